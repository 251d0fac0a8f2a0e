/**
 * A storage over HTTP whose connections break and whose server fails: every operation behind a fault proxy, with each HTTP
 * client. However it ends, no request is left under way.
 */
import { HttpClient } from "@effect/platform"
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Duration, Effect, Exit, Fiber, Schedule, Stream, TestClock } from "effect"
import * as http from "node:http"
import { ByteRange, HttpStorage, MemoryStorage, Storage, StorageBackend, StorageError } from "surfing-weights"
import { bytes, gather, print } from "../support/content.js"
import * as FaultProxy from "../support/faultProxy.js"
import { Fault, startOf } from "../support/faultProxy.js"
import { clients } from "../support/httpClients.js"
import { listen } from "../support/loopback.js"
import { eventually, quick, timed } from "../support/timing.js"
import { serveOf } from "../support/weightServer.js"

const MiB = 1024 * 1024
const content = bytes(3 * MiB)
const other = bytes(1000, 5)

interface Setup {
  readonly proxy: FaultProxy.FaultProxy
  readonly storage: Storage.Service
  /** The storage of the server. */
  readonly direct: Storage.Service
}

type Match = Parameters<FaultProxy.FaultProxy["add"]>[0]["match"]

const is = {
  get: ({ method, path }) => method === "GET" && path.startsWith("/objects/"),
  list: ({ method, path }) => method === "GET" && path === "/objects",
  head: ({ method }) => method === "HEAD",
  put: ({ method }) => method === "PUT",
  remove: ({ method }) => method === "DELETE"
} satisfies Record<string, Match>

for (const [name, client] of clients) {
  const behindProxy = <Err, R>(
    options: Partial<HttpStorage.Options>,
    test: (setup: Setup) => Effect.Effect<unknown, Err, R>
  ) =>
    Effect.gen(function*() {
      const direct = yield* MemoryStorage.make()
      const proxy = yield* FaultProxy.make((yield* serveOf(direct, { writable: true })).url)
      const storage = yield* HttpStorage.make({
        url: proxy.endpoint,
        retry: quick,
        idleTimeout: "10 seconds",
        verify: false,
        ...options
      })
      yield* test({ proxy, storage, direct })
      proxy.clear()
      yield* eventually(() => expect(proxy.activeRequests(), "requests under way").toBe(0))
    }).pipe(Effect.scoped, Effect.provide(client))

  const load = (storage: Storage.Service) => Effect.map(storage.load("key"), print)
  const stream = (storage: Storage.Service) => Effect.map(gather(storage.stream("key")), print)

  // By itself: other tests in this process would slow the server down as well.
  describe(`HttpStorage with ${name}, a slow response to a load or stream`, () => {
    it.live("may take longer than the idle timeout as long as bytes arrive, and waits for a slow reader", () =>
      behindProxy({ idleTimeout: "1 second" }, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          yield* direct.save("key", content)
          proxy.add({ match: is.get, fault: Fault.SlowAnswer({ bytes: 256 * 1024, interval: 120 }) })
          const [found, millis] = yield* timed(load(storage))
          expect(found).toBe(print(content))
          expect(millis).toBeGreaterThan(1000)
          let waits = 2
          const slow = Stream.tap(storage.stream("key"), () => waits-- > 0 ? Effect.sleep(1500) : Effect.void)
          expect(print(yield* gather(slow))).toBe(print(content))
          expect(proxy.requests.length).toBe(2)
        })))
  })

  describe.concurrent(`HttpStorage with ${name}, the response to a load or stream`, () => {
    for (const [what, read] of [["load", load], ["stream", stream]] as const) {
      for (
        const [how, at, tag] of [
          ["reset", (after: number) => Fault.ResetAnswer({ after }), "StorageUnavailable"],
          ["closed as if it were whole", (after: number) => Fault.TruncateAnswer({ after }), "StorageUnavailable"],
          ["stalled", (after: number) => Fault.StallAnswer({ after }), "StorageTimeout"]
        ] as const
      ) {
        const options: Partial<HttpStorage.Options> = how === "stalled" ? { idleTimeout: "1500 millis" } : {}

        it.live(`resumes at the byte where a ${what} is ${how}, under the etag of the first response`, () =>
          behindProxy(options, ({ direct, proxy, storage }) =>
            Effect.gen(function*() {
              const { etag } = yield* direct.save("key", content)
              const cuts = how === "stalled" ? [MiB] : [0, 1, MiB, content.length - 1]
              for (const after of cuts) {
                const before = proxy.requests.length
                proxy.add({ match: is.get, fault: at(after) })
                expect(yield* read(storage), `after ${after}`).toBe(print(content))
                const [first, again, ...more] = proxy.requests.slice(before)
                expect([first?.fault !== undefined, more.length]).toEqual([true, 0])
                if (again === undefined) throw new Error(`there was no second request after ${after}`)
                if (how === "reset") expect(startOf(again)).toBeLessThanOrEqual(after)
                else expect(startOf(again)).toBe(after)
                if (startOf(again) > 0) expect(again.headers["if-match"]).toBe(`"${etag}"`)
              }
            })))

        it.live(`is requested again as a whole where a ${what} of a small object is ${how}`, () =>
          behindProxy(
            { ...options, ...(how === "stalled" && { idleTimeout: "500 millis" }) },
            ({ direct, proxy, storage }) =>
              Effect.gen(function*() {
                yield* direct.save("key", other)
                for (const after of [0, 1, other.length - 1]) {
                  const before = proxy.requests.length
                  proxy.add({ match: is.get, fault: at(after) })
                  expect(yield* read(storage), `after ${after}`).toBe(print(other))
                  const sent = proxy.requests.slice(before)
                  expect(sent.map((request) => request.fault !== undefined), `after ${after}`).toEqual([true, false])
                  expect(sent.map(startOf), `after ${after}`).toEqual([0, 0])
                }
                proxy.add({ match: is.get, fault: at(1), times: Infinity })
                const error = yield* Effect.flip(read(storage))
                expect([tag, "CorruptObject"]).toContain(error._tag)
                expect(error).toMatchObject({ attempts: 4 })
              })
          ))

        it.live(`fails when retries are exhausted where a ${what} is always ${how} before its first byte`, () =>
          behindProxy(
            { ...options, ...(how === "stalled" && { idleTimeout: "700 millis" }) },
            (setup) =>
              Effect.gen(function*() {
                yield* setup.direct.save("key", content)
                setup.proxy.add({ match: is.get, fault: at(0), times: Infinity })
                const error = yield* Effect.flip(read(setup.storage))
                // An empty body may be a truncated one.
                expect([tag, "CorruptObject"]).toContain(error._tag)
                expect(error).toMatchObject({ attempts: 4 })
                expect(StorageError.isRetryable(error)).toBe(false)
                expect(setup.proxy.requests.length).toBe(4)
              })
          ))
      }

      it.live(`never joins two versions: ${what}`, () =>
        behindProxy({}, ({ direct, proxy, storage }) =>
          Effect.gen(function*() {
            yield* direct.save("key", content)
            proxy.add({ match: is.get, fault: Fault.TruncateAnswer({ after: MiB }) })
            proxy.add({
              match: is.get,
              fault: Fault.Before({ effect: Effect.orDie(direct.save("key", bytes(content.length, 9))) })
            })
            expect(yield* Effect.flip(read(storage))).toMatchObject({ _tag: "PreconditionFailed", key: "key" })
          })))
    }

    it.live("may come without its length, which a proxy has removed", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          const read = storage.load("key", { range: ByteRange.last(10) })
          for (const object of [content, other, new Uint8Array(0)]) {
            yield* direct.save("key", object)
            proxy.add({
              match: is.get,
              times: Infinity,
              fault: Fault.RewriteHeaders({ headers: { "content-length": undefined } })
            })
            expect(yield* load(storage)).toBe(print(object))
            expect(yield* stream(storage)).toBe(print(object))
            expect(print(yield* read)).toBe(print(object.slice(-10)))
            proxy.clear()
          }
        })))

    it.live("is closed at once when its reader has enough, or is interrupted", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          yield* direct.save("key", content)
          yield* Stream.runDrain(Stream.take(storage.stream("key"), 1))
          yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
          for (const read of [load, stream]) {
            proxy.add({ match: is.get, fault: Fault.StallAnswer({ after: MiB }) })
            const fiber = yield* Effect.fork(read(storage))
            yield* eventually(() => expect(proxy.activeRequests()).toBe(1))
            yield* Effect.sleep("100 millis")
            const [, millis] = yield* timed(Fiber.interrupt(fiber))
            expect(millis).toBeLessThan(1000)
            yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
          }
        })))
  })

  const operations: ReadonlyArray<
    readonly [
      operation: string,
      match: Match,
      run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>
    ]
  > = [
    ["load", is.get, (storage) => storage.load("key")],
    ["head", is.head, (storage) => storage.head("key")],
    ["save", is.put, (storage) => storage.save("new", content)],
    ["save of a few bytes", is.put, (storage) => storage.save("new", other)],
    ["list", is.list, (storage) => storage.list()],
    ["listDirectory", is.list, (storage) => storage.listDirectory()],
    ["remove", is.remove, (storage) => storage.remove("key")],
    ["removeAll", is.remove, (storage) => storage.removeAll(["key"])],
    ["copy", is.put, (storage) => storage.copy("key", "new")],
    ["move", is.put, (storage) => storage.move("key", "new")]
  ]
  const passing: ReadonlyArray<Fault> = [
    Fault.ResetAnswer({}),
    Fault.DropAnswer(),
    Fault.Answer({ status: 500 }),
    Fault.Answer({ status: 502, body: "<h1>Bad gateway</h1>" }),
    Fault.Answer({ status: 503, headers: { "retry-after": "0" } }),
    Fault.Answer({ status: 429 })
  ]

  describe.concurrent(`HttpStorage with ${name}, every operation`, () => {
    for (const [operation, match, run] of operations) {
      it.live(`${operation} is retried after retryable failures, as often as the policy says`, () =>
        behindProxy({}, ({ direct, proxy, storage }) =>
          Effect.gen(function*() {
            for (const fault of passing) {
              yield* direct.save("key", content)
              const before = proxy.requests.length
              proxy.add({ match, fault })
              yield* run(storage)
              expect(proxy.requests.slice(before).filter(match).length, JSON.stringify(fault)).toBe(2)
            }
            yield* direct.save("key", content)
            const before = proxy.requests.length
            proxy.add({ match, fault: Fault.Answer({ status: 503 }), times: Infinity })
            const error = yield* Effect.flip(run(storage))
            expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
            expect(proxy.requests.slice(before).filter(match).length).toBe(4)
            expect(yield* direct.exists("key")).toBe(true)
          })))
    }
  })

  describe(`HttpStorage with ${name}, the body of a save`, () => {
    for (
      const [how, fault, tag] of [
        ["reset", Fault.ResetRequest({ after: MiB }), "StorageUnavailable"],
        ["not read any more", Fault.StallRequest({ after: 100_000 }), "StorageTimeout"]
      ] as const
    ) {
      // More than fits into the buffers of the system.
      const large = bytes(24 * MiB, 3)
      const options: Partial<HttpStorage.Options> = how === "reset" ? {} : { idleTimeout: "2 seconds" }

      it.live(`is sent again where an array is ${how}`, () =>
        behindProxy(options, ({ direct, proxy, storage }) =>
          Effect.gen(function*() {
            proxy.add({ match: is.put, fault })
            expect((yield* storage.save("key", large)).size).toBe(large.length)
            expect(print(yield* direct.load("key"))).toBe(print(large))
            expect(proxy.requests.length).toBe(2)
          })))

      it.live(`is sent once where a stream is ${how}, and leaves nothing behind`, () =>
        behindProxy(options, ({ direct, proxy, storage }) =>
          Effect.gen(function*() {
            let closed = 0
            const source = Stream.fromIterable(
              Array.from({ length: 24 }, (_, i) => large.subarray(i * MiB, (i + 1) * MiB))
            )
              .pipe(Stream.rechunk(1), Stream.ensuring(Effect.sync(() => closed++)))
            proxy.add({ match: is.put, fault })
            expect(yield* Effect.flip(storage.save("key", source))).toMatchObject({ _tag: tag, key: "key" })
            expect([closed, proxy.requests.length]).toEqual([1, 1])
            proxy.clear()
            yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
            expect(yield* direct.list()).toEqual([])
          })))
    }

    it.live("waits for a slow source, and reads no more from it than the server does", () =>
      behindProxy({ idleTimeout: "1500 millis" }, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          const source = Stream.tap(Stream.make(other, other), () => Effect.sleep("2 seconds"))
          expect((yield* storage.save("key", source)).size).toBe(2000)
          expect((yield* direct.load("key")).length).toBe(2000)
          let given = 0
          const endless = Stream.repeatEffect(Effect.sync(() => {
            given++
            return new Uint8Array(MiB)
          }))
          proxy.add({ match: is.put, fault: Fault.StallRequest({ after: 1000 }) })
          expect(yield* Effect.flip(storage.save("key", endless))).toMatchObject({ _tag: "StorageTimeout" })
          expect(given).toBeLessThan(32)
        })))

    it.live("is broken off where its source fails, dies or is interrupted, and never ends as a complete upload", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          const beginnings = [Stream.empty, Stream.make(other), Stream.make(content, content)]
          for (const beginning of beginnings) {
            const failing = Stream.concat(beginning, Stream.fail("mine" as const))
            expect(yield* Effect.flip(storage.save("key", failing))).toBe("mine")
            const dying = Stream.concat(beginning, Stream.die("bug"))
            expect(Exit.isFailure(yield* Effect.exit(storage.save("key", dying)))).toBe(true)
            // After everything that the server reads ahead.
            const late = Stream.concat(
              beginning,
              Stream.fromEffect(Effect.zipRight(Effect.sleep(50), Effect.fail("late")))
            )
            expect(yield* Effect.flip(storage.save("key", late))).toBe("late")
          }
          const beginning = Stream.make(content, content)
          const started = yield* Deferred.make<void>()
          const fiber = yield* Effect.fork(
            storage.save(
              "key",
              Stream.concat(
                beginning,
                Stream.execute(Effect.zipRight(Deferred.succeed(started, undefined), Effect.never))
              )
            )
          )
          yield* Deferred.await(started)
          yield* Effect.sleep("50 millis")
          yield* Fiber.interrupt(fiber)
          yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
          yield* Effect.sleep("50 millis")
          expect(yield* direct.list()).toEqual([])
        })))
  })

  describe.concurrent(`HttpStorage with ${name}, a conditional save or removal whose response is lost`, () => {
    for (
      const [what, fault] of [["whose response was lost", Fault.DropAnswer()], [
        "that a proxy sent twice",
        Fault.Repeat()
      ]] as const
    ) {
      it.live(`is a success ${what}`, () =>
        behindProxy({}, ({ direct, proxy, storage }) =>
          Effect.gen(function*() {
            proxy.add({ match: is.put, fault })
            const created = yield* storage.save("key", other, { ifNoneMatch: "*" })
            expect(created).toEqual(yield* direct.head("key"))
            expect(print(yield* direct.load("key"))).toBe(print(other))
            proxy.add({ match: is.put, fault })
            const replaced = yield* storage.save("key", content, { ifMatch: created.etag })
            expect(replaced).toEqual(yield* direct.head("key"))
            expect(print(yield* direct.load("key"))).toBe(print(content))
            proxy.add({ match: is.remove, fault })
            yield* storage.remove("key", { ifMatch: replaced.etag })
            expect(yield* direct.exists("key")).toBe(false)
            expect(proxy.requests.filter(({ fault }) => fault !== undefined).length).toBe(3)
          })))
    }

    it.live("of a stream is a success that a proxy sent twice", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          for (const size of [undefined, content.length]) {
            proxy.add({ match: is.put, fault: Fault.Repeat() })
            const saved = yield* storage.save("key", Stream.make(content), { ifNoneMatch: "*", size })
            expect(saved).toEqual(yield* direct.head("key"))
            expect(print(yield* direct.load("key"))).toBe(print(content))
            yield* direct.remove("key")
          }
        })))

    it.live("fails where another one came first", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          const { etag } = yield* direct.save("key", other)
          const failures = (options: StorageBackend.SaveOptions) =>
            Effect.gen(function*() {
              proxy.add({ match: is.put, fault: Fault.Repeat() })
              return yield* Effect.flip(storage.save("key", content, options))
            })
          expect(yield* failures({ ifNoneMatch: "*" })).toMatchObject({ _tag: "ObjectAlreadyExists" })
          yield* direct.save("key", other)
          expect(yield* failures({ ifMatch: etag })).toMatchObject({ _tag: "PreconditionFailed" })
          proxy.add({ match: is.remove, fault: Fault.Repeat() })
          expect(yield* Effect.flip(storage.remove("key", { ifMatch: etag }))).toMatchObject({
            _tag: "PreconditionFailed"
          })
          expect(print(yield* direct.load("key"))).toBe(print(other))
        })))

    it.live("is in doubt where the server does not recognise a repetition", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          // A server that forgets, as after a restart.
          proxy.add({ match: is.put, fault: Fault.DropAnswer() })
          proxy.add({ match: is.put, fault: Fault.Answer({ status: 412 }) })
          expect(yield* Effect.flip(storage.save("key", other, { ifNoneMatch: "*" }))).toMatchObject({
            _tag: "StorageUnavailable",
            attempts: 2
          })
          expect(print(yield* direct.load("key"))).toBe(print(other))
          const { etag } = yield* direct.head("key")
          proxy.add({ match: is.remove, fault: Fault.DropAnswer() })
          proxy.add({ match: is.remove, fault: Fault.Answer({ status: 412 }) })
          expect(yield* Effect.flip(storage.remove("key", { ifMatch: etag }))).toMatchObject({
            _tag: "StorageUnavailable",
            attempts: 2
          })
          expect(yield* direct.exists("key")).toBe(false)
        })))

    it.live("does not run the source of a stream where the precondition does not hold", () =>
      behindProxy({}, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          yield* direct.save("key", other)
          const source = Stream.die("the source was run")
          for (
            const [options, tag] of [
              [{ ifNoneMatch: "*" }, "ObjectAlreadyExists"],
              [{ ifMatch: "another" }, "PreconditionFailed"],
              [{ ifMatch: "\ud800" }, "PreconditionFailed"]
            ] as const
          ) {
            expect(yield* Effect.flip(storage.save("key", source, options))).toMatchObject({ _tag: tag })
          }
          expect(proxy.requests.filter(is.put)).toEqual([])
        })))
  })

  describe(`HttpStorage with ${name}, the response to a listing`, () => {
    const keys = Array.from({ length: 2500 }, (_, index) => `many/${String(index).padStart(4, "0")}`)

    it.live("has every key once, wherever it breaks, and fails when retries are exhausted", () =>
      behindProxy({ idleTimeout: "1500 millis" }, ({ direct, proxy, storage }) =>
        Effect.gen(function*() {
          yield* Effect.forEach(keys, (key) => direct.save(key, bytes(1)), { discard: true })
          const entries = Effect.map(Stream.runCollect(storage.entries()), Chunk.toReadonlyArray)
          const listings = [
            storage.list(),
            Effect.map(entries, (all) => all.map(({ key }) => key)),
            Effect.map(storage.listDirectory("many/"), ({ objects }) => objects.map(({ key }) => key))
          ]
          for (const listing of listings) {
            for (
              const fault of [
                Fault.ResetAnswer({ after: 100_000 }),
                Fault.TruncateAnswer({ after: 0 }),
                Fault.TruncateAnswer({ after: 50_000 }),
                Fault.StallAnswer({ after: 150_000 })
              ]
            ) {
              const before = proxy.requests.length
              proxy.add({ match: is.list, fault })
              expect((yield* listing).join()).toBe(keys.join())
              expect(proxy.requests.length - before).toBe(2)
            }
          }
          // Cut off within a line, and ended as if it were complete.
          const line = `{"key":"many/0000","size":1,"lastModified":"2026-01-01T00:00:00.000Z","etag":"1"}\n`
          proxy.add({ match: is.list, fault: Fault.Answer({ status: 200, body: line + line.slice(0, 30) }) })
          const before = proxy.requests.length
          expect((yield* storage.list()).join()).toBe(keys.join())
          expect(proxy.requests[before + 1]?.query.get("startAfter")).toBe("many/0000")
          proxy.add({ match: is.list, fault: Fault.Answer({ status: 200, body: line.slice(0, 30) }), times: Infinity })
          expect(yield* Effect.flip(storage.list())).toMatchObject({ _tag: "StorageUnavailable", attempts: 4 })
          proxy.clear()
          proxy.add({ match: is.list, fault: Fault.Answer({ status: 200, body: "<html>\n</html>\n" }) })
          expect(yield* Effect.flip(storage.list())).toMatchObject({ _tag: "UnexpectedStorageError" })
        })))
  })

  describe.concurrent(`HttpStorage with ${name}, failures`, () => {
    const context = { key: "key" }
    const all: ReadonlyArray<StorageError.StorageError> = [
      new StorageError.ObjectNotFound(context),
      new StorageError.PreconditionFailed(context),
      new StorageError.ObjectNotModified(context),
      new StorageError.InvalidKey({ ...context, reason: "r" }),
      new StorageError.InvalidRange({ ...context, reason: "r" }),
      new StorageError.AccessDenied({ ...context, reason: "r" }),
      new StorageError.StorageNotFound({ ...context, reason: "r" }),
      new StorageError.StorageUnavailable({ ...context, reason: "r", retryAfter: Duration.millis(1500), attempts: 7 }),
      new StorageError.StorageTimeout({ ...context, limit: Duration.seconds(5), attempts: 7 }),
      new StorageError.CorruptObject({ ...context, problem: "checksum", reason: "r" }),
      new StorageError.UnsupportedOperation({ ...context, reason: "r" }),
      new StorageError.UnexpectedStorageError({ ...context, reason: "r", cause: new Error("inside") })
    ]
    const saves: ReadonlyArray<StorageError.StorageError> = [
      new StorageError.ObjectAlreadyExists(context),
      new StorageError.StorageFull({ ...context, reason: "r" })
    ]

    it.live("have the same type as on the server, from every operation that can have them, with the server's failure as cause", () =>
      Effect.gen(function*() {
        let failure: StorageError.StorageError | undefined
        // A storage that fails with anything: to the server, the types do not matter.
        const fails = (): Effect.Effect<never, never> => Effect.fail(failure) as Effect.Effect<never, never>
        const inner = StorageBackend.make({
          name: "Inner",
          capabilities: StorageBackend.full,
          open: () => Effect.suspend(fails),
          save: (_, data) =>
            Effect.zipRight(data instanceof Uint8Array ? Effect.void : Stream.runDrain(data), Effect.suspend(fails)),
          entries: () => Stream.fromEffect(Effect.suspend(fails)),
          remove: () => Effect.suspend(fails)
        }, { head: () => Effect.suspend(fails) })
        const { url } = yield* serveOf(Storage.make(inner), { writable: true })
        const storage = yield* HttpStorage.make({ url, verify: false, retry: Schedule.recurs(0) })
        const check = (
          error: StorageError.StorageError,
          operation: string,
          run: Effect.Effect<unknown, StorageError.StorageError>
        ) =>
          Effect.gen(function*() {
            failure = error
            const found = yield* Effect.flip(run)
            const { backend: _, cause: __, operation: ___, ...fields } = error
            const { cause, ...complete } = found
            expect(found._tag, `${operation}: ${found.message}`).toBe(error._tag)
            const reason = isHidden.has(error._tag)
              ? { reason: expect.stringMatching(/the server|the storage of/) as string }
              : {}
            expect({ ...complete }).toMatchObject({ ...fields, ...reason, operation, backend: storage.backend.name })
            // A 304 has no body.
            if (operation !== "head" && error._tag !== "ObjectNotModified") {
              expect(cause).toMatchObject({ _tag: error._tag, backend: "WeightServer" })
            }
            expect(JSON.stringify(found)).not.toContain("inside")
          })
        const isHidden = new Set<string>([
          "AccessDenied",
          "StorageNotFound",
          "StorageUnavailable",
          "StorageFull",
          "UnexpectedStorageError"
        ])
        const retryable = new Set(["StorageUnavailable", "StorageTimeout"])
        for (const error of all) {
          yield* check(error, "load", storage.load("key", { ifNoneMatch: "x" }))
          if (error._tag !== "ObjectNotModified" && error._tag !== "InvalidRange") {
            if (error._tag !== "ObjectNotFound") yield* check(error, "save", storage.save("key", other))
          }
          const isCommon = retryable.has(error._tag) ||
            ["AccessDenied", "StorageNotFound", "UnexpectedStorageError"].includes(error._tag)
          if (isCommon || error._tag === "ObjectNotFound") yield* check(error, "head", storage.head("key"))
          if (isCommon) yield* check(error, "remove", storage.remove("key"))
          if (isCommon) yield* check(error, "list", storage.list())
        }
        for (const error of saves) yield* check(error, "save", storage.save("key", other))
        // A failure that the operation cannot have by its type.
        failure = new StorageError.StorageFull({ ...context, reason: "r" })
        expect(yield* Effect.flip(storage.load("key"))).toMatchObject({ _tag: "UnexpectedStorageError" })
      }).pipe(Effect.scoped, Effect.provide(client)))
  })

  describe.concurrent(`HttpStorage with ${name}, when it is built`, () => {
    it.live("asks the server once for its capabilities", () =>
      Effect.gen(function*() {
        const memory = yield* MemoryStorage.make()
        const proxy = yield* FaultProxy.make((yield* serveOf(memory)).url)
        const { backend } = yield* HttpStorage.make({ url: proxy.endpoint })
        expect(backend.capabilities).toMatchObject({ write: false, list: true, createOnly: false, presign: false })
        expect(proxy.requests.map(({ method, path }) => `${method} ${path}`)).toEqual(["GET /health"])
        const blind = yield* HttpStorage.make({ url: proxy.endpoint, verify: false })
        expect(blind.backend.capabilities).toEqual(StorageBackend.full)
        expect(proxy.requests.length).toBe(1)

        const cases = [
          [Fault.Answer({ status: 404 }), "StorageNotFound", 1],
          [Fault.Answer({ status: 200, body: "<h1>Hello</h1>" }), "StorageNotFound", 1],
          [Fault.Answer({ status: 401 }), "AccessDenied", 1],
          [Fault.Answer({ status: 503 }), "StorageUnavailable", 4]
        ] as const
        for (const [fault, tag, count] of cases) {
          const before = proxy.requests.length
          proxy.add({ match: () => true, fault, times: count })
          const error = yield* Effect.flip(HttpStorage.make({ url: proxy.endpoint, retry: quick }))
          expect(error).toMatchObject({
            _tag: tag,
            operation: "make",
            backend: `Http(${new URL(proxy.endpoint).host})`
          })
          expect(proxy.requests.length - before).toBe(count)
        }
        const gone = yield* Effect.scoped(listen(http.createServer()))
        const closed = yield* Effect.flip(HttpStorage.make({ url: gone.endpoint, retry: Schedule.recurs(0) }))
        expect(closed._tag).toBe("StorageUnavailable")
        expect(closed.message).toContain("ECONNREFUSED")
      }).pipe(Effect.scoped, Effect.provide(client)))
  })
}

describe("HttpStorage, the idle timeout", () => {
  const silent = HttpClient.make(() => Effect.never)
  const storage = (options: Partial<HttpStorage.Options> = {}) =>
    Effect.provideService(
      HttpStorage.make({ url: "http://weights.test", verify: false, retry: Schedule.recurs(0), ...options }),
      HttpClient.HttpClient,
      silent
    )

  it.effect("ends every wait for a silent server, by default after 30 seconds", () =>
    Effect.gen(function*() {
      for (const [options, limit] of [[{}, 30_000], [{ idleTimeout: "2 minutes" }, 120_000]] as const) {
        const { head, list, load, remove, save, stream } = yield* storage(options)
        const operations = [
          load("key"),
          Stream.runDrain(stream("key")),
          head("key"),
          list(),
          remove("key"),
          save("key", other),
          save("key", content),
          save("key", Stream.make(other))
        ]
        for (const operation of operations) {
          const fiber = yield* Effect.fork(Effect.flip<unknown, StorageError.StorageError, never>(operation))
          yield* TestClock.adjust(limit - 1)
          expect(fiber.unsafePoll()).toBe(null)
          yield* TestClock.adjust(1)
          expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "StorageTimeout", limit: Duration.millis(limit) })
        }
      }
    }))
})
