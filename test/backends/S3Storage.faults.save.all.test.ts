/**
 * What a storage on a bucket makes of saves that break: bodies on their way to the server, answers that get lost,
 * conditions, and uploads in parts, which must be completed or leave nothing.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, Schedule, type Scope, Stream } from "effect"
import * as net from "node:net"
import { setTimeout } from "node:timers/promises"
import { S3Storage, type Storage, StorageError } from "surfing-weights"
import { bytes, MiB, print } from "../support/content.js"
import { listen } from "../support/loopback.js"
import { abortUploads, makeBucket, options, server, unfinishedUploads } from "../support/s3Bucket.js"
import {
  behindProxy,
  Fault,
  idle,
  is,
  isPart,
  large,
  look,
  type Match,
  onServers,
  type Options,
  partSize,
  refusal,
  type Setup,
  small,
  soon
} from "../support/s3Faults.js"
import { eventually, timed } from "../support/timing.js"

const longer = bytes(2 * partSize + MiB, 4)
const other = bytes(100, 2)

interface Saving {
  readonly name: string
  readonly data: Uint8Array
  /** How it is handed over. */
  readonly as?: (data: Uint8Array) => Stream.Stream<Uint8Array>
  /** The request that breaks, and the length of its body. */
  readonly breaks: Match
  readonly length: number
  readonly options?: Options
}

/** In pieces of another size than that of a part. */
const asStream = (data: Uint8Array): Stream.Stream<Uint8Array> =>
  Stream.map(Stream.range(0, Math.ceil(data.length / MiB) - 1), (i) => data.subarray(i * MiB, (i + 1) * MiB))

const savings: ReadonlyArray<Saving> = [
  { name: "save", data: small, breaks: is.put, length: small.length },
  { name: "save of exactly one part", data: bytes(partSize, 3), breaks: is.put, length: partSize },
  { name: "save in parts, the first part", data: large, breaks: isPart(1), length: partSize },
  { name: "save in parts, the last part", data: large, breaks: isPart(2), length: MiB },
  { name: "save of a stream, the first part", data: large, as: asStream, breaks: isPart(1), length: partSize },
  {
    name: "save by a client of the app",
    data: small,
    breaks: is.put,
    length: small.length,
    options: { ownClient: true }
  },
  {
    name: "save in parts by a client of the app, the first part",
    data: large,
    breaks: isPart(1),
    length: partSize,
    options: { ownClient: true }
  }
]

const run = ({ as, data }: Pick<Saving, "as" | "data">, storage: Storage.Service, key = "key") =>
  storage.save(key, as === undefined ? data : as(data))

for (const saving of savings) {
  const { breaks, data, length, name, options = {} } = saving

  // They wait more than they do, so they wait together, here and below.
  describe.concurrent(`S3Storage, the body of a ${name}`, () => {
    const ways = [
      ["reset", (after: number) => Fault.ResetRequest({ after }), "StorageUnavailable"],
      ["read no more", (after: number) => Fault.StallRequest({ after }), "StorageTimeout"]
    ] as const
    for (const [how, at, tag] of ways) {
      const limits: Options = how === "reset" ? options : { ...options, idleTimeout: idle }
      const cuts = how === "reset" ? [1, Math.floor(length / 2), length - 1] : [Math.floor(length / 2)]

      it.scopedLive(`is sent again if it is ${how}, and nothing else is`, () =>
        behindProxy(limits, (setup) =>
          Effect.gen(function*() {
            yield* run(saving, setup.storage)
            const calm = setup.seen().length
            for (const after of cuts) {
              setup.breaks(breaks, at(after))
              const [info, millis] = yield* timed(run(saving, setup.storage))
              expect(yield* look(setup, info), `after ${after}`).toBe(print(data))
              const requests = setup.seen()
              expect(requests.length, `after ${after}`).toBe(calm + 1)
              expect(requests.filter(breaks).length, `after ${after}`).toBe(2)
              if (how !== "reset") expect(millis).toBeGreaterThan(idle - 10)
              expect(millis).toBeLessThan(idle + soon)
            }
          })))

      // What it takes to give up does not depend on the size.
      if (length !== MiB && how !== "reset") continue
      it.scopedLive(`leaves nothing behind if it is ${how} each time`, () =>
        behindProxy(limits, (setup) =>
          Effect.gen(function*() {
            setup.breaks(breaks, at(Math.floor(length / 2)), Infinity)
            const [error, millis] = yield* timed(Effect.flip(run(saving, setup.storage)))
            expect(error).toMatchObject({ _tag: tag, attempts: 4 })
            expect(StorageError.isRetryable(error)).toBe(false)
            const requests = setup.seen()
            expect(requests.filter(breaks).length).toBe(4)
            expect(requests.filter(is.abort).length).toBe(data.length > partSize ? 1 : 0)
            expect(requests.filter(is.complete).length).toBe(0)
            if (how !== "reset") expect(millis).toBeGreaterThan(4 * (idle - 10))
            expect(millis).toBeLessThan(4 * idle + soon)
            expect(yield* setup.direct.list()).toEqual([])
          })))
    }
  })
}

describe("S3Storage, the body of a save", () => {
  onServers("may go more slowly in all than the idle timeout, if only it moves", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const { endpoint } = yield* slowServer(256 * 1024, 30)
      const storage = yield* S3Storage.make({
        ...options,
        endpoint,
        bucket,
        partSize: 32 * MiB,
        retry: Schedule.recurs(0),
        idleTimeout: idle,
        verify: false
      })
      const data = bytes(32 * MiB)
      const [, millis] = yield* timed(storage.save("key", data))
      expect(millis).toBeGreaterThan(idle)
      const direct = yield* S3Storage.make({ ...options, bucket })
      expect(print(yield* direct.load("key"))).toBe(print(data))
    }))
})

/** The server behind something that takes so many bytes of a request at a time, and waits so many milliseconds then. */
const slowServer = (count: number, wait: number) => {
  const { hostname, port } = new URL(server.endpoint)
  const relay = net.createServer((client) => {
    const upstream = net.connect(Number(port), hostname)
    for (const socket of [client, upstream]) {
      socket.on("error", () => {}).on("close", () => {
        client.destroy()
        upstream.destroy()
      })
    }
    upstream.pipe(client)
    client.on("readable", () => void pass())
    let isPassing = false
    const pass = async () => {
      if (isPassing) return
      isPassing = true
      for (;;) {
        const piece: unknown = client.read(Math.min(count, client.readableLength)) ?? undefined
        if (!(piece instanceof Uint8Array)) break
        upstream.write(piece)
        await setTimeout(wait * piece.byteLength / count)
      }
      isPassing = false
    }
  })
  return listen(relay)
}

/** A save on the condition that there is nothing, or what there was. */
const conditional = (on: "ifNoneMatch" | "ifMatch", data: Uint8Array) => ({
  name: `${on}, ${data === small ? "in one request" : "in parts"}`,
  data,
  done: data === small ? is.put : is.complete,
  /** What comes before that, or is that: not all servers look at the condition of a save in parts themselves. */
  before: data === small ? is.put : isPart(2),
  /** The failure where somebody else was first. */
  refused: on === "ifNoneMatch" ? "ObjectAlreadyExists" as const : "PreconditionFailed" as const,
  /** Puts there what has to be there, and gives the save. */
  prepare: ({ direct }: Setup, key: string) =>
    on === "ifNoneMatch"
      ? Effect.succeed((storage: Storage.Service) => storage.save(key, data, { ifNoneMatch: "*" }))
      : Effect.map(direct.save(key, bytes(10, 5)), ({ etag }) => (storage: Storage.Service) =>
        storage.save(key, data, { ifMatch: etag }))
})

const conditionals = [
  conditional("ifNoneMatch", small),
  conditional("ifMatch", small),
  conditional("ifNoneMatch", large),
  conditional("ifMatch", large)
]

for (const { before, data, done, name, prepare, refused } of conditionals) {
  describe.concurrent(`S3Storage, a save with ${name}`, () => {
    const somebodyElse = ({ direct }: Setup, key: string) => Effect.orDie(direct.save(key, other))

    /** The first conditional save finds out in which form the server takes a condition. */
    const experienced = (test: (setup: Setup) => Effect.Effect<unknown, unknown, Scope.Scope>) => () =>
      behindProxy({}, (setup) =>
        Effect.gen(function*() {
          const save = yield* conditional("ifMatch", small).prepare(setup, "before")
          yield* save(setup.storage)
          setup.seen()
          yield* test(setup)
        }))

    onServers(
      "is a success where the answer to it got lost",
      experienced((setup) =>
        Effect.gen(function*() {
          for (const times of [1, 2]) {
            const key = `key-${times}`
            const save = yield* prepare(setup, key)
            setup.breaks(done, Fault.DropAnswer(), times)
            expect(yield* look(setup, yield* save(setup.storage), key)).toBe(print(data))
            expect(setup.seen(done).length).toBeLessThanOrEqual(times + 2)
          }
        })
      )
    )

    onServers(
      "is a success where a proxy has sent it twice",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          setup.breaks(done, Fault.Repeat())
          expect(yield* look(setup, yield* save(setup.storage))).toBe(print(data))
          expect(setup.seen(done).length).toBe(1)
        })
      )
    )

    onServers(
      "is a success where the answer to it is garbage",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          for (const body of ["", "<html>log in</html>"]) {
            // It has been done by the first try, and the second one has another answer.
            setup.breaks(done, Fault.DropAnswer())
            setup.breaks(done, Fault.Answer({ status: 200, body }))
            if (body === "") expect(yield* look(setup, yield* save(setup.storage))).toBe(print(data))
            else {
              const again = yield* prepare(setup, "other key")
              expect(yield* look(setup, yield* again(setup.storage), "other key")).toBe(print(data))
            }
          }
        })
      )
    )

    onServers(
      "is a success where the look after a lost answer breaks, too",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          let isDone = false
          setup.breaks(done, Fault.DropAnswer())
          setup.breaks((request) => {
            isDone = isDone || done(request)
            return isDone && is.head(request)
          }, refusal(503, "SlowDown"))
          expect(yield* look(setup, yield* save(setup.storage))).toBe(print(data))
        })
      )
    )

    onServers(
      "is refused where somebody else was first while it was on its way",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          setup.breaks(before, Fault.Before({ effect: somebodyElse(setup, "key") }))
          const outcome = yield* Effect.merge(save(setup.storage))
          expect("_tag" in outcome && outcome._tag).toBe(refused)
          expect(print(yield* setup.direct.load("key"))).toBe(print(other))
        })
      )
    )

    onServers(
      "is refused where somebody else was first after a try that was lost",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          const patient = yield* setup.open({
            retry: Schedule.intersect(Schedule.spaced("300 millis"), Schedule.recurs(1))
          })
          setup.breaks(done, Fault.ResetAnswer({}))
          const fiber = yield* Effect.fork(save(patient))
          yield* setup.until(done)
          yield* somebodyElse(setup, "key")
          const outcome = yield* Effect.merge(Fiber.join(fiber))
          expect("_tag" in outcome && outcome._tag).toBe(refused)
          expect(print(yield* setup.direct.load("key"))).toBe(print(other))
          expect(setup.seen(done).length).toBeLessThanOrEqual(3)
        })
      )
    )

    onServers(
      "is refused at once where its condition does not hold",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          yield* somebodyElse(setup, "key")
          expect((yield* Effect.flip(save(setup.storage)))._tag).toBe(refused)
          expect(setup.seen(({ method }) => method !== "HEAD").length).toBeLessThanOrEqual(1)
          expect(print(yield* setup.direct.load("key"))).toBe(print(other))
        })
      )
    )

    onServers(
      "is tried again where another is in the way for the moment",
      experienced((setup) =>
        Effect.gen(function*() {
          const save = yield* prepare(setup, "key")
          setup.breaks(done, refusal(409, "ConditionalRequestConflict"), 2)
          expect(yield* look(setup, yield* save(setup.storage))).toBe(print(data))
          setup.seen()
          const again = yield* prepare(setup, "other")
          setup.breaks(done, refusal(409, "ConditionalRequestConflict"), Infinity)
          expect(yield* Effect.flip(again(setup.storage))).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
          expect(setup.seen(done).length).toBe(4)
        })
      )
    )
  })
}

/** The requests of a save in parts, by what they are for. */
const stages: ReadonlyArray<readonly [name: string, matches: Match]> = [
  ["its beginning", is.create],
  ["the first part", isPart(1)],
  ["the last part", isPart(2)],
  ["its end", is.complete]
]

const inParts: ReadonlyArray<
  readonly [name: string, saving: Pick<Saving, "as" | "data">, faults: ReadonlyArray<Fault>]
> = [
  ["bytes", { data: large }, [Fault.ResetAnswer({}), Fault.DropAnswer()]],
  ["a stream of unknown length", { data: large, as: asStream }, [Fault.StallAnswer({}), refusal(503, "SlowDown")]]
]

describe("S3Storage, a save in parts", () => {
  for (const [what, saving, faults] of inParts) {
    it.scopedLive(`is complete after any temporary failure of one of its requests: ${what}`, () =>
      behindProxy({ idleTimeout: idle }, (setup) =>
        Effect.gen(function*() {
          yield* run(saving, setup.storage)
          const calm = setup.seen().length
          for (const [name, matches] of stages) {
            for (const fault of faults) {
              // What then becomes of the upload that nobody knows is another test.
              if (matches === is.create && fault._tag === "DropAnswer") continue
              setup.breaks(matches, fault)
              const info = yield* run(saving, setup.storage)
              const about = `${fault._tag} at ${name}`
              expect(yield* look(setup, info), about).toBe(print(large))
              // To find out what became of an end whose answer got lost may take a look.
              expect(setup.seen().length - calm, about).toBeGreaterThanOrEqual(1)
            }
          }
        })))

    it.scopedLive(`leaves nothing behind if one of its requests fails for good: ${what}`, () =>
      behindProxy({}, (setup) =>
        Effect.gen(function*() {
          for (const [name, matches] of stages) {
            for (
              const [tag, fault, tries] of [
                ["AccessDenied", refusal(403, "AccessDenied"), 1],
                ["StorageUnavailable", refusal(500, "InternalError"), 4]
              ] as const
            ) {
              setup.breaks(matches, fault, Infinity)
              const error = yield* Effect.flip(run(saving, setup.storage))
              expect([name, error._tag]).toEqual([name, tag])
              const requests = setup.seen()
              expect(requests.filter(matches).length, name).toBe(tries)
              expect(requests.filter(is.abort).length, name).toBe(name === "its beginning" ? 0 : 1)
              setup.proxy.clear()
              expect(yield* unfinishedUploads(setup.bucket), name).toEqual([])
              expect(yield* setup.direct.list(), name).toEqual([])
            }
          }
        })))

    it.scopedLive(`leaves nothing behind if it is interrupted at any of its requests: ${what}`, () =>
      behindProxy({}, (setup) =>
        Effect.gen(function*() {
          for (const [name, matches] of stages) {
            setup.seen()
            // The request is on its way, and gets there only after the interruption.
            const late = Fault.Before({ effect: Effect.sleep("300 millis") })
            setup.breaks(matches, matches === is.create || matches === is.complete ? late : Fault.StallAnswer({}))
            const fiber = yield* Effect.fork(run(saving, setup.storage))
            yield* setup.until(matches)
            const [exit, millis] = yield* timed(Fiber.interrupt(fiber))
            expect(Exit.isInterrupted(exit), name).toBe(true)
            expect(millis, name).toBeLessThan(soon)
            yield* eventually(() => expect(setup.proxy.activeRequests(), name).toBe(0))
            expect(yield* unfinishedUploads(setup.bucket), name).toEqual([])
          }
        })))

    it.scopedLive(`is all or nothing, whenever it is interrupted: ${what}`, () =>
      behindProxy({}, (setup) =>
        Effect.gen(function*() {
          for (const millis of [0, 3, 10, 20, 40, 60, 80, 100, 150]) {
            const fiber = yield* Effect.fork(run(saving, setup.storage))
            yield* Effect.sleep(millis)
            yield* Fiber.interrupt(fiber)
            expect(yield* unfinishedUploads(setup.bucket), `after ${millis} ms`).toEqual([])
            if (yield* setup.direct.exists("key")) {
              expect(print(yield* setup.direct.load("key")), `after ${millis} ms`).toBe(print(large))
              yield* setup.direct.remove("key")
            }
          }
        })))
  }

  it.scopedLive("ends within the idle timeout if it is interrupted before its upload has an id", () =>
    behindProxy({ idleTimeout: idle, retry: Schedule.spaced("1 hour") }, (setup) =>
      Effect.gen(function*() {
        setup.breaks(is.create, Fault.StallAnswer({}), Infinity)
        const fiber = yield* Effect.fork(setup.storage.save("key", large))
        yield* setup.until(is.create)
        const [exit, millis] = yield* timed(Fiber.interrupt(fiber))
        expect(Exit.isInterrupted(exit)).toBe(true)
        expect(millis).toBeLessThan(idle + soon)
        expect(setup.seen(is.create).length).toBe(1)
      })))

  it.scopedLive("is complete if it is interrupted after its end", () =>
    behindProxy({}, (setup) =>
      Effect.gen(function*() {
        setup.breaks(is.head, Fault.StallAnswer({}))
        const fiber = yield* Effect.fork(setup.storage.save("key", large))
        yield* setup.until(is.head)
        yield* Fiber.interrupt(fiber)
        expect(print(yield* setup.direct.load("key"))).toBe(print(large))
      })))

  it.scopedLive("returns the metadata that the bucket has, also if the HEAD for it breaks", () =>
    behindProxy({}, (setup) =>
      Effect.gen(function*() {
        for (const fault of [refusal(503, "SlowDown"), Fault.ResetAnswer({}), Fault.DropAnswer()]) {
          setup.breaks(is.head, fault)
          const info = yield* setup.storage.save("key", large)
          expect(info, fault._tag).toEqual(yield* setup.direct.head("key"))
        }
      })))

  it.scopedLive("fails if a response with status 200 contains a failure", () =>
    behindProxy({}, (setup) =>
      Effect.gen(function*() {
        for (const code of ["InternalError", "SlowDown"]) {
          setup.breaks(is.complete, refusal(200, code))
          expect(yield* look(setup, yield* setup.storage.save("key", large)), code).toBe(print(large))
          expect(setup.seen(is.complete).length, code).toBe(2)
        }
        yield* setup.direct.remove("key")
        setup.breaks(is.complete, refusal(200, "InternalError"), Infinity)
        const error = yield* Effect.flip(setup.storage.save("key", large))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
        expect(setup.seen(is.complete).length).toBe(4)
        setup.proxy.clear()
        setup.breaks(is.complete, refusal(200, "AccessDenied"), Infinity)
        const denied = yield* Effect.flip(setup.storage.save("key", large))
        expect(denied._tag).toBe("AccessDenied")
        expect(setup.seen(is.complete).length).toBe(1)
        expect(yield* setup.direct.list()).toEqual([])
      })))

  onServers(
    "is whole where the name of its upload gets lost; only that upload, empty, remains",
    () =>
      behindProxy({}, (setup) =>
        Effect.gen(function*() {
          setup.breaks(is.create, Fault.DropAnswer())
          expect(yield* look(setup, yield* setup.storage.save("key", large))).toBe(print(large))
          expect(setup.seen(is.create).length).toBe(2)
          // Nothing tells it from one of somebody else's.
          expect((yield* unfinishedUploads(setup.bucket)).length).toBeLessThanOrEqual(1)
          yield* abortUploads(setup.bucket)
        }))
  )

  it.scopedLive("fails with the failure of its source, and leaves nothing behind", () =>
    behindProxy({}, (setup) =>
      Effect.gen(function*() {
        const failing = Stream.concat(asStream(longer), Stream.fail("no more" as const))
        expect(yield* Effect.flip(setup.storage.save("key", failing))).toBe("no more")
        const dying = Stream.concat(asStream(longer), Stream.die("a bug"))
        expect(Exit.isFailure(yield* Effect.exit(setup.storage.save("key", dying)))).toBe(true)
        expect(setup.seen(is.abort).length).toBe(2)
        expect(yield* setup.direct.list()).toEqual([])
      })))

  it.scopedLive("interrupts its source if a part fails for good, and reads no more of it", () =>
    behindProxy({ concurrency: 2 }, (setup) =>
      Effect.gen(function*() {
        const cases = [
          ["AccessDenied", refusal(403, "AccessDenied")],
          ["StorageFull", refusal(400, "EntityTooLarge")],
          ["StorageUnavailable", refusal(500, "InternalError")]
        ] as const
        for (const [tag, fault] of cases) {
          let taken = 0
          let closed = 0
          const endless = Stream.repeatEffect(Effect.sync(() => {
            taken++
            return bytes(MiB)
          })).pipe(Stream.ensuring(Effect.sync(() => closed++)))
          setup.breaks(isPart(2), fault, Infinity)
          expect((yield* Effect.flip(setup.storage.save("key", endless)))._tag).toBe(tag)
          expect(closed).toBe(1)
          const before = taken
          yield* Effect.sleep("50 millis")
          expect(taken).toBe(before)
          expect(setup.seen(is.abort).length).toBe(1)
          setup.proxy.clear()
        }
        // A source that gives nothing any more does not hold it up.
        let closed = 0
        const hanging = Stream.concat(asStream(longer), Stream.never).pipe(Stream.ensuring(Effect.sync(() => closed++)))
        setup.breaks(isPart(2), refusal(403, "AccessDenied"))
        const [error, millis] = yield* timed(Effect.flip(setup.storage.save("key", hanging)))
        expect(error._tag).toBe("AccessDenied")
        expect(millis).toBeLessThan(soon)
        expect(closed).toBe(1)
      })))

  it.scopedLive("is aborted if it is interrupted while it waits for its source", () =>
    behindProxy({}, (setup) =>
      Effect.gen(function*() {
        let closed = 0
        const hanging = Stream.concat(asStream(longer), Stream.never).pipe(Stream.ensuring(Effect.sync(() => closed++)))
        const fiber = yield* Effect.fork(setup.storage.save("key", hanging))
        yield* setup.until(isPart(2))
        yield* Effect.sleep("100 millis")
        expect(closed).toBe(0)
        yield* Fiber.interrupt(fiber)
        expect(closed).toBe(1)
        expect(setup.seen(is.abort).length).toBe(1)
        expect(yield* setup.direct.list()).toEqual([])
      })))

  it.scopedLive("does not time out while its source yields nothing", () =>
    behindProxy({ idleTimeout: idle }, (setup) =>
      Effect.gen(function*() {
        let wait = 2 * idle
        const slow = Stream.tap(asStream(large), () => {
          const now = wait
          wait = 0
          return Effect.sleep(now)
        })
        expect(yield* look(setup, yield* setup.storage.save("key", slow))).toBe(print(large))
      })))

  it.scopedLive("respects its concurrency and the order of its parts", () =>
    behindProxy({ concurrency: 2 }, (setup) =>
      Effect.gen(function*() {
        let most = 0
        const data = bytes(5 * partSize, 7)
        for (const number of [1, 2, 3, 4, 5]) {
          setup.breaks(
            isPart(number),
            Fault.Before({
              effect: Effect.suspend(() => {
                most = Math.max(most, setup.proxy.activeRequests())
                return Effect.sleep(number % 2 * 100)
              })
            })
          )
        }
        expect(yield* look(setup, yield* setup.storage.save("key", asStream(data)))).toBe(print(data))
        expect(most).toBe(2)
      })))
})

describe.concurrent("S3Storage, the abort of an upload", () => {
  const failing = (storage: Storage.Service) => Effect.flip(storage.save("key", large))

  for (
    const [name, fault, times] of [
      ["is refused for now", refusal(503, "SlowDown"), 2],
      ["is reset", Fault.ResetAnswer({}), 2],
      ["is not answered", Fault.StallAnswer({}), 1],
      ["is carried out and its response is lost", Fault.DropAnswer(), 1]
    ] as const
  ) {
    it.scopedLive(`is repeated if it ${name}`, () =>
      behindProxy({ idleTimeout: idle }, (setup) =>
        Effect.gen(function*() {
          setup.breaks(isPart(2), refusal(403, "AccessDenied"))
          setup.breaks(is.abort, fault, times)
          expect((yield* failing(setup.storage))._tag).toBe("AccessDenied")
          expect(setup.seen(is.abort).length).toBe(times + 1)
          expect(yield* unfinishedUploads(setup.bucket)).toEqual([])

          setup.breaks(is.complete, Fault.StallAnswer({}))
          setup.breaks(is.abort, fault, times)
          const fiber = yield* Effect.fork(setup.storage.save("key", asStream(large)))
          yield* setup.until(is.complete)
          yield* Fiber.interrupt(fiber)
          expect(setup.seen(is.abort).length).toBe(times + 1)
          expect(yield* unfinishedUploads(setup.bucket)).toEqual([])
        })))
  }

  onServers(
    "does not hide the failure of the save where it fails itself, and is told of in the log",
    () =>
      behindProxy({}, (setup) =>
        Effect.gen(function*() {
          const { bucket } = setup
          const log: Array<string> = []
          const logger = Logger.make(({ logLevel, message }) => log.push(`${logLevel.label} ${String(message)}`))
          setup.breaks(isPart(2), refusal(403, "AccessDenied"))
          setup.breaks(is.abort, refusal(500, "InternalError"), Infinity)
          const error = yield* failing(setup.storage).pipe(
            Effect.provide(Logger.replace(Logger.defaultLogger, logger))
          )
          expect(error._tag).toBe("AccessDenied")
          expect(setup.seen(is.abort).length).toBe(4)
          // Others say that the abort is tried again.
          const advice = log.filter((line) => line.includes("AbortIncompleteMultipartUpload"))
          expect(advice).toEqual([expect.stringMatching(/^WARN/)])
          expect(yield* unfinishedUploads(bucket)).toEqual(["key"])
          yield* abortUploads(bucket)
        }))
  )
})
