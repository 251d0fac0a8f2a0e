/**
 * What a storage on a bucket makes of bodies that break on their way from the server: of loads, streams and listings.
 */
import { PutObjectCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Fiber, Stream } from "effect"
import { ByteRange, type Storage, StorageError } from "surfing-weights"
import { bytes, gather, MiB, print } from "../support/content.js"
import { startOf } from "../support/faultProxy.js"
import { sdk } from "../support/s3Bucket.js"
import {
  behindProxy,
  contentOf,
  Fault,
  idle,
  is,
  isGetFrom,
  large,
  onBucket,
  type Options,
  partSize,
  refusal,
  type Setup,
  small,
  soon
} from "../support/s3Faults.js"
import { eventually, timed } from "../support/timing.js"

interface Reading {
  readonly name: string
  readonly key: "small" | "large"
  /** The answer that breaks: so many bytes of the object from `start` on. */
  readonly start: number
  readonly length: number
  readonly options?: Options
  readonly read: (storage: Storage.Service, key: string) => Effect.Effect<string, StorageError.LoadError>
}

const load: Reading["read"] = (storage, key) => Effect.map(storage.load(key), print)
const stream: Reading["read"] = (storage, key) => Effect.map(gather(storage.stream(key)), print)

const ahead = { streamConcurrency: 3 }
const ownClient = { ownClient: true }
const readings: ReadonlyArray<Reading> = [
  { name: "load", key: "small", start: 0, length: 1000, read: load },
  { name: "load, the first part", key: "large", start: 0, length: partSize, read: load },
  { name: "load, the last part", key: "large", start: partSize, length: MiB, read: load },
  { name: "stream", key: "small", start: 0, length: 1000, read: stream },
  { name: "stream of a large object", key: "large", start: 0, length: large.length, read: stream },
  {
    name: "stream with parts ahead, the first part",
    key: "large",
    start: 0,
    length: partSize,
    options: ahead,
    read: stream
  },
  {
    name: "stream with parts ahead, the last part",
    key: "large",
    start: partSize,
    length: MiB,
    options: ahead,
    read: stream
  },
  { name: "load by a client of the app", key: "small", start: 0, length: 1000, options: ownClient, read: load },
  {
    name: "load by a client of the app, the last part",
    key: "large",
    start: partSize,
    length: MiB,
    options: ownClient,
    read: load
  },
  {
    name: "stream of a large object by a client of the app",
    key: "large",
    start: 0,
    length: large.length,
    options: ownClient,
    read: stream
  }
]

const everywhere = (length: number) => [0, 1, Math.floor(length / 2), length - 1]
const inTheMiddle = (length: number) => [Math.floor(length / 2)]
const mostlyInTheMiddle = (length: number) => length > 1000 ? inTheMiddle(length) : everywhere(length)

/** How it breaks, where, and what that is in the end. */
const broken: ReadonlyArray<
  readonly [
    name: string,
    at: (after: number) => Fault,
    cuts: (length: number) => ReadonlyArray<number>,
    tag: StorageError.StorageError["_tag"]
  ]
> = [
  ["reset", (after) => Fault.ResetAnswer({ after }), mostlyInTheMiddle, "StorageUnavailable"],
  ["closed as if it were whole", (after) => Fault.TruncateAnswer({ after }), everywhere, "StorageUnavailable"],
  ["stalled", (after) => Fault.StallAnswer({ after }), inTheMiddle, "StorageTimeout"]
]

for (const reading of readings) {
  const { key, length, name, options = {}, read, start } = reading
  const breaks = isGetFrom(start)
  const expected = print(contentOf(key))

  // They wait more than they do, so they wait together.
  describe.concurrent(`S3Storage, the response to a ${name}`, () => {
    for (const [how, at, cuts, tag] of broken) {
      const limits: Options = { ...options, ...(how === "stalled" && { idleTimeout: idle }) }

      it.scopedLive(`is resumed at the byte where it is ${how}, under the etag of the first response`, () =>
        onBucket({ reads: [key], options: limits }, ({ breaks: add, direct, seen, storage }) =>
          Effect.gen(function*() {
            const { etag } = yield* direct.head(key)
            yield* read(storage, key)
            const calm = seen().length
            for (const after of cuts(length)) {
              add(breaks, at(after))
              const [found, millis] = yield* timed(read(storage, key))
              expect(found, `cut after ${after}`).toBe(expected)
              const requests = seen()
              expect(requests.length, `cut after ${after}`).toBe(calm + 1)
              const again = requests.find((request) =>
                request.fault === undefined && startOf(request) >= start && startOf(request) < start + length
              )
              if (again === undefined) throw new Error(`nothing was asked for again after ${after}`)
              // A reset overtakes what was not read before it came.
              if (how === "reset") expect(startOf(again)).toBeLessThanOrEqual(start + after)
              else expect(startOf(again)).toBe(start + after)
              // Where not a byte has come the answer may not have begun for the storage.
              if (after > 0) expect(again.headers.range).toBe(`bytes=${startOf(again)}-${start + length - 1}`)
              if (after > 0) expect(again.headers["if-match"]).toBe(`"${etag}"`)
              if (how === "stalled") expect(millis).toBeGreaterThan(idle - 10)
              expect(millis).toBeLessThan(idle + soon)
            }
          })))

      // What it takes to give up does not depend on the size.
      if (length > 1000 && how !== "reset") continue
      it.scopedLive(`fails when the policy ends if it is always ${how} before its first byte`, () =>
        onBucket({ reads: [key], options: limits }, ({ breaks: add, proxy, seen, storage }) =>
          Effect.gen(function*() {
            add(breaks, at(0), Infinity)
            const [error, millis] = yield* timed(Effect.flip(read(storage, key)))
            expect(error).toMatchObject({ _tag: tag, attempts: 4 })
            expect(StorageError.isRetryable(error)).toBe(false)
            expect(seen(breaks).length).toBe(4)
            if (how === "stalled") expect(millis).toBeGreaterThan(4 * (idle - 10))
            expect(millis).toBeLessThan(4 * idle + soon)
            yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
          })))
    }

    it.scopedLive("may take longer than the idle timeout in total, as long as bytes arrive", () =>
      onBucket(
        { reads: [key], options: { ...options, idleTimeout: idle } },
        ({ breaks: add, seen, storage }) =>
          Effect.gen(function*() {
            yield* read(storage, key)
            const calm = seen().length
            add(
              breaks,
              Fault.SlowAnswer(length === 1000 ? { bytes: 200, interval: 600 } : { bytes: MiB, interval: 600 })
            )
            const [found, millis] = yield* timed(read(storage, key))
            expect(found).toBe(expected)
            if (length !== MiB) expect(millis).toBeGreaterThan(idle)
            expect(seen().length).toBe(calm)
          })
      ))

    it.scopedLive("is never joined with bytes of another version of the object", () =>
      onBucket({ reads: [key], options }, ({ breaks: add, bucket, seen, storage }) =>
        Effect.gen(function*() {
          const overwrite = Effect.promise(() =>
            sdk.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytes(contentOf(key).length, 9) }))
          )
          add(breaks, Fault.TruncateAnswer({ after: Math.floor(length / 2) }))
          add(
            (request) => is.get(request) && startOf(request) === start + Math.floor(length / 2),
            Fault.Before({ effect: overwrite })
          )
          const error = yield* Effect.flip(read(storage, key))
          expect(error).toMatchObject({ _tag: "PreconditionFailed", key })
          // What the server refused was asked for once.
          expect(seen(({ headers }) => headers["if-match"] !== undefined).filter(({ status }) => status === 412).length)
            .toBeLessThanOrEqual(2)
          expect(yield* read(storage, key)).not.toBe(expected)
        })))
  })
}

describe("S3Storage, the response to a stream", () => {
  it.scopedLive("restarts the policy whenever bytes have arrived", () =>
    onBucket({ reads: ["small"] }, ({ breaks, seen, storage }) =>
      Effect.gen(function*() {
        breaks(is.get, Fault.TruncateAnswer({ after: 100 }), Infinity)
        expect(print(yield* gather(storage.stream("small")))).toBe(print(small))
        expect(seen().map(({ headers }) => headers.range)).toEqual([
          undefined,
          ...[100, 200, 300, 400, 500, 600, 700, 800, 900].map((start) => `bytes=${start}-999`)
        ])
      })))

  it.scopedLive("counts error responses and responses without a byte together", () =>
    onBucket({ reads: ["small"] }, ({ breaks, seen, storage }) =>
      Effect.gen(function*() {
        breaks(is.get, refusal(503, "SlowDown"), 2)
        breaks(is.get, Fault.TruncateAnswer({ after: 0 }), Infinity)
        expect(yield* Effect.flip(gather(storage.stream("small")))).toMatchObject({ attempts: 4 })
        expect(seen().length).toBe(4)
      })))

  it.scopedLive("resumes within the requested range", () =>
    onBucket({ reads: ["small"] }, ({ breaks, direct, seen, storage }) =>
      Effect.gen(function*() {
        const { etag } = yield* direct.head("small")
        const cases = [
          [ByteRange.make(100, 300), "bytes=150-299", small.slice(100, 300)],
          [ByteRange.from(900), "bytes=950-999", small.slice(900)],
          [ByteRange.last(100), "bytes=950-999", small.slice(900)]
        ] as const
        for (const [range, rest, expected] of cases) {
          breaks(is.get, Fault.TruncateAnswer({ after: 50 }))
          expect(print(yield* gather(storage.stream("small", { range })))).toBe(print(expected))
          expect(seen()[1]?.headers).toMatchObject({ range: rest, "if-match": `"${etag}"` })
          breaks(is.get, Fault.TruncateAnswer({ after: 50 }))
          expect(print(yield* storage.load("small", { range }))).toBe(print(expected))
          expect(seen()[1]?.headers).toMatchObject({ range: rest, "if-match": `"${etag}"` })
        }
      })))

  const slowly = (wait: number): (storage: Storage.Service) => ReturnType<Reading["read"]> => (storage) => {
    let waits = 1
    const waiting = Stream.tap(storage.stream("large"), () => waits-- > 0 ? Effect.sleep(wait) : Effect.void)
    return Effect.map(gather(waiting), print)
  }

  for (const [name, options] of [["one connection", {}], ["parts ahead", ahead]] as const) {
    it.scopedLive(`waits for a reader that takes longer than the idle timeout: ${name}`, () =>
      onBucket(
        { reads: ["large"], options: { ...options, idleTimeout: idle } },
        ({ seen, storage }) =>
          Effect.gen(function*() {
            yield* gather(storage.stream("large"))
            const calm = seen().length
            expect(yield* slowly(2 * idle)(storage)).toBe(print(large))
            expect(seen().length).toBe(calm)
          })
      ))

    it.scopedLive(`is closed if its reader stops or is interrupted: ${name}`, () =>
      onBucket({ reads: ["large"], options }, ({ breaks, proxy, storage, until }) =>
        Effect.gen(function*() {
          const begin = yield* Stream.runCollect(Stream.take(storage.stream("large"), 1))
          expect(begin.length).toBe(1)
          yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
          breaks(is.get, Fault.StallAnswer({ after: 2 * MiB }))
          const fiber = yield* Effect.fork(gather(storage.stream("large")))
          yield* until((request) => is.get(request))
          const [, millis] = yield* timed(Fiber.interrupt(fiber))
          expect(millis).toBeLessThan(soon)
          yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
        })))
  }

  it.scopedLive("is opened with one request, whose connection is closed with the scope", () =>
    onBucket({ reads: ["large"] }, ({ proxy, seen, storage }) =>
      Effect.gen(function*() {
        const { info, range } = yield* Effect.scoped(storage.open("large"))
        expect([info.size, range.endExclusive]).toEqual([large.length, large.length])
        expect(seen().length).toBe(1)
        yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
      })))
})

describe("S3Storage, a server that responds with something else than requested", () => {
  /** Breaks a load and a stream, gives this answer in the place of the rest, and tells what came of it. */
  const answering = (
    { breaks, storage }: Setup,
    answer: { readonly status: number; readonly headers: Record<string, string>; readonly body: string }
  ) =>
    Effect.forEach([load, stream], (read) => {
      breaks(is.get, Fault.TruncateAnswer({ after: 300 }))
      breaks(({ headers }) => headers.range === "bytes=300-999", Fault.Answer(answer))
      return Effect.merge(Effect.mapError(read(storage, "small"), ({ _tag }) => _tag))
    })

  it.scopedLive("fails if the rest is of another version, also if the server ignores If-Match", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const outcomes = yield* answering(setup, {
          status: 206,
          headers: { etag: `"another"`, "content-range": "bytes 300-999/1000" },
          body: "x".repeat(700)
        })
        expect(outcomes).toEqual(["PreconditionFailed", "PreconditionFailed"])
      })))

  it.scopedLive("fails if the server sends the whole object instead of the rest", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const { etag } = yield* setup.direct.head("small")
        const outcomes = yield* answering(setup, {
          status: 200,
          headers: { etag: `"${etag}"` },
          body: "x".repeat(1000)
        })
        expect(outcomes).toEqual(["UnexpectedStorageError", "UnexpectedStorageError"])
      })))

  it.scopedLive("fails if the server sends other bytes than requested", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const { etag } = yield* setup.direct.head("small")
        const outcomes = yield* answering(setup, {
          status: 206,
          headers: { etag: `"${etag}"`, "content-range": "bytes 0-699/1000" },
          body: "x".repeat(700)
        })
        expect(outcomes).toEqual(["UnexpectedStorageError", "UnexpectedStorageError"])
      })))
})

describe("S3Storage, the budget of a load", () => {
  it.scopedLive("is shared by error responses and responses that break before their first byte", () =>
    onBucket({ reads: ["small"] }, ({ breaks, seen, storage }) =>
      Effect.gen(function*() {
        breaks(is.get, refusal(503, "SlowDown"), 2)
        breaks(is.get, Fault.TruncateAnswer({ after: 0 }), Infinity)
        expect(yield* Effect.flip(storage.load("small"))).toMatchObject({ attempts: 4 })
        expect(seen().length).toBe(4)
      })))
})

// Two pages, the second of a few.
const keys = Array.from({ length: 1005 }, (_, index) => `many/${String(index).padStart(4, "0")}`)

describe("S3Storage, the response to a listing", () => {
  it.scopedLive(
    "has every key once, whatever breaks a page",
    () =>
      behindProxy({ idleTimeout: idle }, ({ breaks, direct, seen, storage }) =>
        Effect.gen(function*() {
          yield* Effect.forEach(keys, (key) => direct.save(key, bytes(1)), { concurrency: 32, discard: true })
          const faults: ReadonlyArray<Fault> = [
            Fault.ResetAnswer({}),
            Fault.ResetAnswer({ after: 10 }),
            Fault.ResetAnswer({ after: 1000 }),
            Fault.TruncateAnswer({ after: 0 }),
            Fault.TruncateAnswer({ after: 1000 }),
            Fault.StallAnswer({ after: 1000 }),
            refusal(500, "InternalError"),
            refusal(503, "SlowDown"),
            refusal(200, "InternalError"),
            Fault.DropAnswer()
          ]
          const entries = Effect.map(
            Stream.runCollect(storage.entries()),
            (found) => Chunk.toArray(found).map(({ key }) => key)
          )
          const directory = Effect.map(
            storage.listDirectory("many/"),
            ({ objects }) => objects.map(({ key }) => key)
          )
          const listings = [storage.list(), entries, directory]
          for (const [index, fault] of faults.entries()) {
            for (const page of [is.list, is.nextPage]) {
              breaks(page, fault)
              const found = yield* listings[index % listings.length] ?? storage.list()
              expect(found.join() === keys.join(), JSON.stringify(fault)).toBe(true)
              expect(seen().length, JSON.stringify(fault)).toBe(3)
            }
          }

          // What came before it broke for good has been given.
          breaks(is.nextPage, Fault.TruncateAnswer({ after: 1000 }), Infinity)
          let given = 0
          const error = yield* storage.entries().pipe(
            Stream.runForEach(() => Effect.sync(() => given++)),
            Effect.flip
          )
          expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
          expect(given).toBe(1000)
          expect(seen().length).toBe(5)
        }))
  )
})
