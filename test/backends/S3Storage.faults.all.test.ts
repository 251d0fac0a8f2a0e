/**
 * What a storage on a bucket makes of a server that breaks: every operation, whatever it is that breaks it. What
 * happens to bodies on their way is in `S3Storage.faults.load.test.ts` and `S3Storage.faults.save.test.ts`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Duration, Effect, Exit, Fiber, Schedule, Stream } from "effect"
import { RetryPolicy, S3Storage, type Storage, StorageError } from "surfing-weights"
import { bytes, gather, print } from "../support/content.js"
import { options, server } from "../support/s3Bucket.js"
import {
  Fault,
  idle,
  is,
  isGetFrom,
  isPart,
  large,
  look,
  type Match,
  onBucket,
  onServers,
  type Options,
  partSize,
  refusal,
  type Setup,
  small,
  soon
} from "../support/s3Faults.js"
import { client } from "../support/s3Server.js"
import { eventually, quick, timed } from "../support/timing.js"

interface Operation {
  readonly name: string
  /** Which of its requests breaks. */
  readonly breaks: Match
  /** Whether more than one part is on its way. */
  readonly isLarge?: true
  /** What has to be in the bucket. */
  readonly reads?: ReadonlyArray<string>
  /** Gives what is to be the same whatever broke. There is nothing under the key before. */
  readonly run: (setup: Setup, key: string) => Effect.Effect<unknown, StorageError.StorageError>
  readonly options?: Options
  /** Whether there is an object under the key when it has failed. */
  readonly leaves?: true
  /** How many requests it takes to make good for an answer that got lost: one, unless it is said here. */
  readonly lost?: number
  /** Answers to it have no body, which would tell what a status does not. */
  readonly speechless?: true
  /** The emulator cannot do it. */
  readonly conditional?: true
}

const listed = ["list/a", "list/b/c", "list/d"]

/** Saves, and gives what is there then. */
const save = (
  setup: Setup,
  key: string,
  data: Uint8Array | Stream.Stream<Uint8Array>,
  options: Storage.SaveOptions = {}
) => Effect.flatMap(setup.storage.save(key, data, options), (info) => look(setup, info, key))

/** Runs it, and gives whether there is an object under the key then. */
const andLook = ({ direct }: Setup, key: string, effect: Effect.Effect<unknown, StorageError.StorageError>) =>
  Effect.zipRight(effect, direct.exists(key))

const operations: ReadonlyArray<Operation> = [
  { name: "load", reads: ["small"], breaks: is.get, run: ({ storage }) => Effect.map(storage.load("small"), print) },
  {
    name: "load by a client of the app",
    reads: ["small"],
    breaks: is.get,
    options: { ownClient: true },
    run: ({ storage }) => Effect.map(storage.load("small"), print)
  },
  {
    name: "load, the first part",
    breaks: isGetFrom(0),
    isLarge: true,
    reads: ["large"],
    run: ({ storage }) => Effect.map(storage.load("large"), print)
  },
  {
    name: "load, a later part",
    breaks: isGetFrom(partSize),
    isLarge: true,
    reads: ["large"],
    run: ({ storage }) => Effect.map(storage.load("large"), print)
  },
  {
    name: "stream",
    isLarge: true,
    reads: ["large"],
    breaks: is.get,
    run: ({ storage }) => Effect.map(gather(storage.stream("large")), print)
  },
  {
    name: "stream with three parts ahead, a later part",
    breaks: isGetFrom(partSize),
    isLarge: true,
    reads: ["large"],
    options: { streamConcurrency: 3 },
    run: ({ storage }) => Effect.map(gather(storage.stream("large")), print)
  },
  { name: "head", reads: ["small"], breaks: is.head, speechless: true, run: ({ storage }) => storage.head("small") },
  { name: "list", reads: listed, breaks: is.list, run: ({ storage }) => storage.list("list/") },
  {
    name: "entries",
    reads: listed,
    breaks: is.list,
    run: ({ storage }) => Effect.map(Stream.runCollect(storage.entries({ prefix: "list/" })), Chunk.toArray)
  },
  { name: "save", breaks: is.put, run: (setup, key) => save(setup, key, small) },
  {
    name: "save with ifNoneMatch",
    breaks: is.put,
    conditional: true,
    lost: 2,
    run: (setup, key) => save(setup, key, small, { ifNoneMatch: "*" })
  },
  {
    name: "save with ifMatch",
    breaks: is.put,
    conditional: true,
    // Elsewhere one more, to find out whether the server takes the etag with its quotes.
    lost: server.kind === "radosgw" ? 2 : 3,
    leaves: true,
    run: (setup, key) =>
      Effect.flatMap(setup.direct.save(key, bytes(10)), ({ etag }) => save(setup, key, small, { ifMatch: etag }))
  },
  {
    name: "save in parts, the first part",
    isLarge: true,
    breaks: isPart(1),
    run: (setup, key) => save(setup, key, large)
  },
  {
    name: "save of a stream in parts, the last part",
    isLarge: true,
    breaks: isPart(2),
    run: (setup, key) => save(setup, key, Stream.make(large))
  },
  { name: "remove", breaks: is.remove, leaves: true, run: removing("remove") },
  { name: "removeAll", breaks: is.removeBatch, leaves: true, run: removing("removeAll") },
  {
    name: "copy",
    reads: ["small"],
    breaks: is.put,
    run: (setup, key) => andLook(setup, key, setup.storage.copy("small", key))
  },
  {
    name: "copy, the HEAD of the source",
    reads: ["small"],
    breaks: is.head,
    speechless: true,
    run: (setup, key) => andLook(setup, key, setup.storage.copy("small", key))
  },
  {
    name: "move, the removal",
    breaks: is.remove,
    leaves: true,
    run: (setup, key) =>
      Effect.zipRight(
        setup.direct.save(`${key}-before`, small),
        andLook(setup, key, setup.storage.move(`${key}-before`, key))
      )
  }
]

function removing(operation: "remove" | "removeAll"): Operation["run"] {
  return (setup, key) => {
    const { direct, storage } = setup
    return Effect.zipRight(
      direct.save(key, small),
      andLook(setup, key, operation === "remove" ? storage.remove(key) : storage.removeAll([key]))
    )
  }
}

/** What passes if one tries again. */
const passing: ReadonlyArray<readonly [name: string, fault: Fault, needs?: "body"]> = [
  ["a reset", Fault.ResetAnswer({})],
  ["500", refusal(500, "InternalError")],
  ["502 from a proxy", Fault.Answer({ status: 502, body: "<html>Bad Gateway</html>" })],
  ["503 SlowDown", refusal(503, "SlowDown")],
  ["503 SlowDown with Retry-After", refusal(503, "SlowDown", { headers: { "retry-after": "1" } })],
  ["504 without a body", Fault.Answer({ status: 504 })],
  ["429", refusal(429, "TooManyRequests")],
  ["408", refusal(408, "RequestTimeout")],
  ["400 RequestTimeout", refusal(400, "RequestTimeout"), "body"],
  ["409 OperationAborted", refusal(409, "OperationAborted"), "body"]
]

for (const operation of operations) {
  describe.concurrent(`S3Storage, ${operation.name}`, () => {
    const { breaks, isLarge, leaves = false, lost = 1, options = {}, run, speechless = false } = operation
    const test = operation.conditional ? onServers : it.scopedLive

    test("succeeds with one more request after any temporary failure", () =>
      onBucket(operation, (setup) =>
        Effect.gen(function*() {
          // The first conditional save finds out in which form the server takes a condition.
          yield* run(setup, "before")
          setup.seen()
          const expected = yield* run(setup, "calm")
          const calm = setup.seen().length
          // What a fault means does not depend on the size of what it strikes.
          for (const [what, fault, needs] of isLarge ? passing.slice(0, 3) : passing) {
            if (speechless && needs === "body") continue
            setup.breaks(breaks, fault)
            expect(yield* run(setup, `key-${what}`), what).toEqual(expected)
            const requests = setup.seen()
            expect(requests.filter(({ fault }) => fault !== undefined).length, what).toBe(1)
            expect(requests.length, what).toBe(calm + 1)
          }
          setup.breaks(breaks, Fault.DropAnswer())
          expect(yield* run(setup, "key-dropped"), "a lost answer").toEqual(expected)
          expect(setup.seen().length, "a lost answer").toBe(calm + lost)
        })))

    test("fails when the policy ends, and at once if access is denied", () =>
      onBucket(operation, (setup) =>
        Effect.gen(function*() {
          const storage = yield* setup.open({ ...options, retry: Schedule.recurs(0) })
          const cases = [
            ["reset", Fault.ResetAnswer({}), setup, 4],
            ["SlowDown", refusal(503, "SlowDown"), setup, 4],
            ["InternalError", refusal(500, "InternalError"), { ...setup, storage }, 1]
          ] as const
          for (const [what, fault, setup, attempts] of cases) {
            setup.seen()
            setup.breaks(breaks, fault, Infinity)
            const error = yield* Effect.flip(run(setup, `key-${what}`))
            expect(error, what).toMatchObject({ _tag: "StorageUnavailable", attempts })
            expect(error.message).toContain(`gave up after ${attempts} attempt`)
            if (what !== "reset") expect(error.message).toContain("request the-request-id")
            if (what !== "reset" && !speechless) expect(error.message).toContain(what)
            expect(StorageError.isRetryable(error), what).toBe(false)
            expect(setup.seen(breaks).length, what).toBe(attempts)
            setup.proxy.clear()
            expect(yield* setup.direct.exists(`key-${what}`), what).toBe(leaves)
          }

          setup.breaks(breaks, refusal(403, "AccessDenied"), Infinity)
          const error = yield* Effect.flip(run(setup, "key"))
          expect(error._tag).toBe("AccessDenied")
          expect(error.message).toContain("request the-request-id")
          // Not counted is the request that finds out whether the server honours conditions.
          const isOwn: Match = (request) => breaks(request) && !request.path.includes(".surfing-weights-")
          expect(setup.seen(isOwn).length).toBe(1)
        })))

    test("ends at once if it is interrupted, during a request or between two attempts", () =>
      onBucket(
        { ...operation, options: { ...options, retry: Schedule.spaced("1 hour") } },
        (setup) =>
          Effect.gen(function*() {
            for (const fault of [Fault.StallAnswer({}), Fault.ResetAnswer({})]) {
              setup.seen()
              setup.breaks(breaks, fault)
              const fiber = yield* Effect.fork(run(setup, `key-${fault._tag}`))
              yield* setup.until(breaks)
              const [exit, millis] = yield* timed(Fiber.interrupt(fiber))
              expect(Exit.isInterrupted(exit), fault._tag).toBe(true)
              expect(millis, fault._tag).toBeLessThan(soon)
              expect(setup.seen(breaks).length, fault._tag).toBe(1)
              yield* eventually(() => expect(setup.proxy.activeRequests(), fault._tag).toBe(0))
            }
          })
      ))
  })
}

// They wait more than they do, so they wait together.
describe.concurrent("S3Storage, a wait for a response", () => {
  for (const operation of operations) {
    const { breaks, name, options = {}, run } = operation
    const test = operation.conditional ? onServers : it.scopedLive
    const limits: Options = { ...options, idleTimeout: idle, retry: Schedule.recurs(1) }

    test(`ends at the idle timeout: ${name}`, () =>
      onBucket({ ...operation, options: limits }, (setup) =>
        Effect.gen(function*() {
          setup.breaks(breaks, Fault.StallAnswer({}), Infinity)
          const [error, millis] = yield* timed(Effect.flip(run(setup, "key")))
          expect(error).toMatchObject({ _tag: "StorageTimeout", attempts: 2 })
          expect(StorageError.isRetryable(error)).toBe(false)
          expect(setup.seen(breaks).length).toBe(2)
          expect(millis).toBeGreaterThan(2 * idle - 10)
          expect(millis).toBeLessThan(2 * idle + soon)
        })))
  }
})

type Permanent = readonly [
  tag: StorageError.StorageError["_tag"],
  fault: Fault,
  message: string,
  ...operations: ReadonlyArray<"load" | "stream" | "head" | "list" | "save" | "part" | "complete" | "remove" | "copy">
]

/** What does not pass, however often one asks, and what it means. */
const permanent: ReadonlyArray<Permanent> = [
  ["ObjectNotFound", refusal(404, "NoSuchKey"), "no such object", "load", "stream", "head"],
  [
    "StorageNotFound",
    refusal(404, "NoSuchBucket"),
    "does not exist; create it",
    "load",
    "list",
    "save",
    "part",
    "copy"
  ],
  ["AccessDenied", refusal(403, "SignatureDoesNotMatch"), "correct the credentials", "load", "list", "save", "remove"],
  ["AccessDenied", refusal(400, "ExpiredToken"), "get new ones", "load", "list", "save", "remove", "copy"],
  ["AccessDenied", refusal(401, "Unauthorized"), "do not allow this", "load", "head", "save", "part", "remove"],
  ["UnexpectedStorageError", refusal(400, "InvalidArgument"), "refused", "load", "list", "save", "part", "complete"],
  ["UnexpectedStorageError", refusal(400, "InvalidRequest"), "HTTP 400", "head", "remove", "copy", "stream"],
  ["UnexpectedStorageError", refusal(404, "NoSuchUpload"), "NoSuchUpload", "part"],
  ["UnexpectedStorageError", refusal(400, "InvalidPart"), "InvalidPart", "complete"],
  ["PreconditionFailed", refusal(412, "PreconditionFailed"), "changed", "load", "stream", "copy"],
  ["StorageFull", refusal(400, "EntityTooLarge"), "larger than the server allows", "save", "part", "complete", "copy"],
  ["StorageFull", refusal(403, "QuotaExceeded"), "no space is left", "save", "part", "copy"],
  ["StorageFull", refusal(507, "InsufficientStorage"), "no space is left", "save", "part"],
  ["UnsupportedOperation", refusal(403, "InvalidObjectState"), "archived", "load", "stream", "copy"],
  ["UnsupportedOperation", refusal(501, "NotImplemented"), "does not support this", "load", "list", "save", "copy"],
  [
    "StorageNotFound",
    refusal(301, "PermanentRedirect", { headers: { "x-amz-bucket-region": "eu-central-1" } }),
    `set region: "eu-central-1"`,
    "load",
    "head",
    "list",
    "save",
    "part",
    "remove",
    "copy"
  ],
  [
    "StorageNotFound",
    refusal(400, "AuthorizationHeaderMalformed", { elements: "<Region>eu-west-1</Region>" }),
    `set region: "eu-west-1"`,
    "load",
    "stream",
    "list",
    "save",
    "part",
    "remove",
    "copy"
  ]
]

/** The operations that break for good, the request of each that does. */
const breakable: Readonly<Record<Permanent[3], Pick<Operation, "breaks" | "run">>> = {
  load: { breaks: is.get, run: ({ storage }) => storage.load("small") },
  stream: { breaks: is.get, run: ({ storage }) => gather(storage.stream("small")) },
  head: { breaks: is.head, run: ({ storage }) => storage.head("small") },
  list: { breaks: is.list, run: ({ storage }) => storage.list() },
  save: { breaks: is.put, run: ({ storage }, key) => storage.save(key, small) },
  part: { breaks: isPart(2), run: ({ storage }, key) => storage.save(key, large) },
  complete: { breaks: is.complete, run: ({ storage }, key) => storage.save(key, large) },
  remove: { breaks: is.remove, run: ({ storage }) => storage.remove("small") },
  copy: { breaks: is.put, run: ({ storage }, key) => storage.copy("small", key) }
}

describe("S3Storage, a failure that is not temporary", () => {
  for (const [tag, fault, message, ...names] of permanent) {
    const what = fault._tag === "Answer" ? `${fault.status} ${/<Code>(.*)<\/Code>/.exec(fault.body ?? "")?.[1]}` : ""
    it.scopedLive(`is ${tag} at once: ${what} to ${names.join(", ")}`, () =>
      onBucket({ reads: ["small"] }, (setup) =>
        Effect.gen(function*() {
          for (const name of names) {
            const { breaks, run } = breakable[name]
            setup.seen()
            setup.breaks(breaks, fault, Infinity)
            const error = yield* Effect.flip(run(setup, "key"))
            expect([name, error._tag]).toEqual([name, tag])
            expect(error.message, name).toContain(message)
            expect(StorageError.isRetryable(error), name).toBe(false)
            if ("reason" in error) expect(error.message, name).toContain("request the-request-id")
            expect(setup.seen(breaks).length, name).toBe(1)
            setup.proxy.clear()
            expect(yield* setup.direct.exists("key"), name).toBe(false)
            expect(yield* setup.direct.exists("small"), name).toBe(true)
          }
        })))
  }

  it.scopedLive("has the same type on the real server", () =>
    onBucket({}, ({ bucket, direct, open, seen, storage }) =>
      Effect.gen(function*() {
        const elsewhere = yield* open({ bucket: `${bucket}-missing` })
        const cases = [
          ["ObjectNotFound", storage.load("missing")],
          ["ObjectNotFound", gather(storage.stream("missing"))],
          ["ObjectNotFound", storage.head("missing")],
          ["StorageNotFound", elsewhere.load("missing")],
          ["StorageNotFound", elsewhere.list()],
          ["StorageNotFound", elsewhere.save("new", small)],
          ["StorageNotFound", elsewhere.save("new", large)]
        ] as const
        for (const [tag, effect] of cases) {
          expect((yield* Effect.flip<unknown, StorageError.StorageError, never>(effect))._tag).toBe(tag)
          expect(seen().length).toBe(1)
        }
        expect(yield* direct.list()).toEqual([])
      })))
})

describe("S3Storage, removeAll", () => {
  const failing = (code: string): Fault =>
    Fault.Answer({
      status: 200,
      headers: { "x-amz-request-id": "the-request-id" },
      body: `<?xml version="1.0"?><DeleteResult><Error><Key>b</Key><Code>${code}</Code>` +
        `<Message>It says ${code}.</Message></Error></DeleteResult>`
    })
  const bodies = (setup: Setup) => setup.seen(is.removeBatch).map(({ headers }) => Number(headers["content-length"]))

  it.scopedLive("retries only the keys whose failure is temporary", () =>
    onBucket({ reads: ["a", "b"] }, (setup) =>
      Effect.gen(function*() {
        for (const code of ["InternalError", "SlowDown", "ServiceUnavailable"]) {
          setup.breaks(is.removeBatch, failing(code))
          expect(yield* setup.storage.removeAll(["a", "b"]), code).toEqual({ removed: 2, failed: [] })
          const [first = 0, second = 0, ...others] = bodies(setup)
          expect(second, code).toBeLessThan(first)
          expect(second, code).toBeGreaterThan(0)
          expect(others, code).toEqual([])
        }
        expect(yield* setup.direct.list()).toEqual(["a"])
      })))

  it.scopedLive("returns the failure of each key when the policy ends, or at once if it is not temporary", () =>
    onBucket({}, (setup) =>
      Effect.gen(function*() {
        setup.breaks(is.removeBatch, failing("InternalError"), 4)
        const exhausted = yield* setup.storage.removeAll(["a", "b"])
        expect(exhausted).toMatchObject({ removed: 1, failed: [{ _tag: "StorageUnavailable", key: "b", attempts: 4 }] })
        expect(setup.seen().length).toBe(4)
        setup.breaks(is.removeBatch, failing("AccessDenied"))
        const denied = yield* setup.storage.removeAll(["a", "b"])
        expect(denied).toMatchObject({ removed: 1, failed: [{ _tag: "AccessDenied", key: "b" }] })
        expect(denied.failed[0]?.message).toContain("request the-request-id")
        expect(setup.seen().length).toBe(1)
      })))

  it.scopedLive("retries if a response with status 200 reports that everything failed", () =>
    onBucket({ reads: ["a"] }, (setup) =>
      Effect.gen(function*() {
        setup.breaks(is.removeBatch, refusal(200, "InternalError"))
        expect(yield* setup.storage.removeAll(["a", "b"])).toEqual({ removed: 2, failed: [] })
        expect(setup.seen().length).toBe(2)
        expect(yield* setup.direct.list()).toEqual([])
      })))
})

describe("S3Storage, copy", () => {
  it.scopedLive("fails if a response with status 200 contains a failure", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const { direct, seen, storage } = setup
        for (const code of ["InternalError", "SlowDown"]) {
          setup.breaks(is.put, refusal(200, code))
          const { etag } = yield* storage.copy("small", code)
          expect(seen(is.put).length, code).toBe(2)
          expect((yield* direct.head(code)).etag, code).toBe(etag)
        }
        setup.breaks(is.put, refusal(200, "InternalError"), Infinity)
        const error = yield* Effect.flip(storage.copy("small", "key"))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
        setup.proxy.clear()
        setup.breaks(is.put, refusal(200, "AccessDenied"), Infinity)
        expect((yield* Effect.flip(storage.copy("small", "key")))._tag).toBe("AccessDenied")
        expect(yield* direct.exists("key")).toBe(false)
      })))

  // Ceph does not look at the condition, and copies what is there by then.
  it.scopedLive("fails or copies the new object if the source is overwritten after its HEAD, and says which", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const { direct } = setup
        setup.breaks(is.put, Fault.Before({ effect: Effect.orDie(direct.save("small", bytes(5))) }))
        const outcome = yield* Effect.merge(setup.storage.copy("small", "key"))
        if ("_tag" in outcome) {
          expect(outcome).toMatchObject({ _tag: "PreconditionFailed", key: "small" })
          expect(yield* direct.exists("key")).toBe(false)
        } else {
          expect(outcome).toEqual(yield* direct.head("key"))
          expect(print(yield* direct.load("key"))).toBe(print(bytes(5)))
        }
      })))
})

describe("S3Storage, the wait between two attempts", () => {
  const patient: Options = { retry: quick.pipe(RetryPolicy.respectRetryAfter({ within: "10 seconds" })) }

  it.scopedLive("is at least as long as Retry-After, in seconds or as a date", () =>
    onBucket({ options: patient, reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const seconds = () => "1"
        // Without the fraction of the second in which it falls.
        const date = () => new Date(Date.now() + 2000).toUTCString()
        for (const [status, code, after] of [[503, "SlowDown", seconds], [429, "TooManyRequests", date]] as const) {
          setup.breaks(is.get, refusal(status, code, { headers: { "retry-after": after() } }))
          const [read, millis] = yield* timed(setup.storage.load("small"))
          expect(print(read)).toBe(print(small))
          expect(millis).toBeGreaterThan(950)
          expect(millis).toBeLessThan(soon)
        }
      })))

  it.scopedLive("is in the failure", () =>
    onBucket({ options: { retry: Schedule.recurs(0) } }, (setup) =>
      Effect.gen(function*() {
        setup.breaks(is.list, refusal(503, "SlowDown", { headers: { "retry-after": "7" } }))
        const error = yield* Effect.flip(setup.storage.list())
        expect(error).toMatchObject({ _tag: "StorageUnavailable", retryAfter: Duration.seconds(7) })
        expect(error.message).toContain("asked to wait 7s")
      })))

  it.scopedLive("is that of RetryPolicy.default unless another policy is given", () =>
    onBucket({ reads: ["small"] }, ({ breaks, bucket, proxy, seen }) =>
      Effect.gen(function*() {
        const storage = yield* S3Storage.make({
          ...options,
          endpoint: proxy.endpoint,
          bucket,
          verify: false
        })
        breaks(is.get, refusal(503, "SlowDown", { headers: { "retry-after": "1" } }))
        const [read, millis] = yield* timed(storage.load("small"))
        expect(print(read)).toBe(print(small))
        expect(millis).toBeGreaterThan(1000)
        expect(seen().length).toBe(2)
      }).pipe(Effect.scoped)))
})

describe("S3Storage, a client of the app", () => {
  it.scopedLive("adds no retries, whatever its own settings", () =>
    onBucket({}, ({ breaks, bucket, proxy, seen }) =>
      Effect.gen(function*() {
        const own = yield* Effect.acquireRelease(
          Effect.sync(() => client(server, { endpoint: proxy.endpoint, maxAttempts: 10, retryMode: "adaptive" })),
          (own) => Effect.sync(() => own.destroy())
        )
        const storage = yield* S3Storage.makeFromClient(own, { bucket, retry: quick, verify: false })
        for (const [matches, effect] of [[is.list, storage.list()], [is.put, storage.save("key", small)]] as const) {
          breaks(matches, refusal(503, "SlowDown"), Infinity)
          const error = yield* Effect.flip<unknown, StorageError.StorageError, never>(effect)
          expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
          expect(seen().length).toBe(4)
        }
      }).pipe(Effect.scoped)))
})

describe("S3Storage, a wrong clock", () => {
  const signedAt = (date: unknown) => {
    const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(date)) ??
      []
    return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  }

  it.scopedLive("is corrected by the clock of the server, for the next attempt and all later requests", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const ahead = 7 * 60_000
        const date = new Date(Date.now() + ahead).toUTCString()
        setup.breaks(is.get, refusal(403, "RequestTimeTooSkewed", { headers: { date } }))
        expect(print(yield* setup.storage.load("small"))).toBe(print(small))
        yield* setup.storage.save("key", small)
        const offsets = setup.seen().map(({ headers }) => signedAt(headers["x-amz-date"]) - Date.now())
        expect(offsets.length).toBe(3)
        expect(Math.abs(offsets[0] ?? NaN)).toBeLessThan(5000)
        for (const offset of offsets.slice(1)) expect(Math.abs(offset - ahead)).toBeLessThan(5000)
      })))

  it.scopedLive("is detected by the date of an error response without a body, once", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const dated = (minutes: number) => ({
          headers: { date: new Date(Date.now() + minutes * 60_000).toUTCString() }
        })
        setup.breaks(is.head, refusal(403, "RequestTimeTooSkewed", dated(-7)))
        expect((yield* setup.storage.head("small")).size).toBe(small.byteLength)
        expect(setup.seen().length).toBe(2)
        setup.breaks(is.head, refusal(403, "AccessDenied", dated(-9)))
        expect(yield* Effect.flip(setup.storage.head("small"))).toBeInstanceOf(StorageError.AccessDenied)
        expect(setup.seen().length).toBe(1)
      })))

  it.scopedLive("is a failure that says so if it cannot be corrected", () =>
    onBucket({}, (setup) =>
      Effect.gen(function*() {
        setup.breaks(is.list, refusal(403, "RequestTimeTooSkewed"), Infinity)
        const error = yield* Effect.flip(setup.storage.list())
        expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
        expect(error.message).toContain("the clocks of this machine and of the server are too far apart")
      })))
})

describe("S3Storage, the check of the bucket when a storage is built", () => {
  it.scopedLive("is retried, and its failure says what to change", () =>
    onBucket({}, (setup) =>
      Effect.gen(function*() {
        const { breaks, open, seen } = setup
        const verified: Options = { verify: true }
        breaks(is.list, refusal(503, "SlowDown"))
        yield* open(verified)
        expect(seen().length).toBe(2)
        const cases = [
          ["StorageUnavailable", "gave up after 4 attempts", 4, refusal(500, "InternalError")],
          ["AccessDenied", "verify: false", 1, refusal(403, "AccessDenied")],
          ["StorageNotFound", "does not exist; create it", 1, refusal(404, "NoSuchBucket")],
          [
            "StorageNotFound",
            `set region: "eu-central-1"`,
            1,
            refusal(301, "PermanentRedirect", { headers: { "x-amz-bucket-region": "eu-central-1" } })
          ],
          [
            "StorageNotFound",
            `set region: "eu-west-1"`,
            1,
            refusal(400, "AuthorizationHeaderMalformed", { elements: "<Region>eu-west-1</Region>" })
          ]
        ] as const
        for (const [tag, message, requests, fault] of cases) {
          breaks(is.list, fault, requests)
          const error = yield* Effect.flip(open(verified))
          expect([tag, error._tag]).toEqual([tag, tag])
          expect(error.message).toContain(message)
          expect(error.message).toContain("request the-request-id")
          expect(seen().length, message).toBe(requests)
        }
      })))
})

describe("S3Storage, connections", () => {
  it.scopedLive("are reused after responses of every kind and length", () =>
    onBucket({ reads: ["small"] }, (setup) =>
      Effect.gen(function*() {
        const { breaks, proxy, storage } = setup
        const long = "<!-- " + "x".repeat(300_000) + " -->"
        const answers = [refusal(404, "NoSuchKey", { elements: long }), refusal(400, "Odd", { elements: long })]
        for (let i = 0; i < 10; i++) {
          for (const answer of answers) {
            breaks(is.get, answer)
            yield* Effect.flip(storage.load("small"))
            breaks(is.get, answer)
            yield* Effect.flip(gather(storage.stream("small")))
          }
          yield* storage.head("small")
          yield* Effect.flip(storage.head("missing"))
          yield* storage.load("small")
        }
        expect(proxy.openSockets()).toBe(1)
        expect(proxy.activeRequests()).toBe(0)
      })))

  it.scopedLive("are limited for any number of concurrent requests, and are closed with the storage", () =>
    onBucket({ reads: ["small"] }, ({ proxy, storage }) =>
      Effect.gen(function*() {
        const all = yield* Effect.forEach(Array(200).keys(), () => storage.load("small"), { concurrency: "unbounded" })
        expect(new Set(all.map(print))).toEqual(new Set([print(small)]))
        expect(proxy.openSockets()).toBeLessThanOrEqual(64)
      })))
})
