/**
 * What `Storage.make` adds to every backend. The contract suite tests the rest.
 */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Chunk, Context, Deferred, Effect, Exit, Fiber, Stream } from "effect"
import { ByteRange, FileSystemStorage, MemoryStorage, Storage, StorageBackend, StorageError } from "surfing-weights"
import { temporaryDirectory } from "./support/directory.js"

/** A storage in memory, and the names of the operations of its backend that are called. */
const counting = Effect.map(MemoryStorage.make(), ({ backend }) => {
  const calls: Array<string> = []
  const counted = new Proxy(backend, {
    get: (target, name, receiver) => {
      const member: unknown = Reflect.get(target, name, receiver)
      if (typeof member === "function") calls.push(String(name))
      return member
    }
  })
  return { calls, service: Storage.make(counted) }
})

/** A storage in memory with another `save`. */
const saving = (save: StorageBackend.StorageBackend["save"]) =>
  Effect.map(MemoryStorage.make(), ({ backend }) => Storage.make({ ...backend, save }))

const info = { key: "k", size: 0, lastModified: new Date(0), etag: "1" }

describe("Storage", () => {
  it.effect("refuses invalid keys and ranges before it calls the backend", () =>
    Effect.gen(function*() {
      const { calls, service } = yield* counting
      const bad = "a/../b"
      const attempts: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
        service.load(bad),
        service.loadRanges(bad, []),
        Stream.runDrain(service.stream(bad)),
        Effect.scoped(service.open(bad)),
        service.save(bad, new Uint8Array()),
        Stream.run(Stream.empty, service.sink(bad)),
        service.head(bad),
        service.exists(bad),
        service.remove(bad),
        service.copy(bad, "k"),
        service.copy("k", bad),
        service.move(bad, "k"),
        service.move("k", bad),
        service.load("k", { range: ByteRange.make(4, 4) }),
        service.loadRanges("k", [ByteRange.from(0), ByteRange.last(0)]),
        Stream.runDrain(service.stream("k", { range: ByteRange.from(-1) })),
        Effect.scoped(service.open("k", { range: ByteRange.from(0.5) }))
      ]
      const tags = yield* Effect.forEach(attempts, (attempt) => Effect.map(Effect.flip(attempt), (error) => error._tag))
      expect(tags).toEqual([
        ...Array.from({ length: 13 }, () => "InvalidKey"),
        ...Array.from({ length: 4 }, () => "InvalidRange")
      ])
      expect(calls).toEqual([])
    }))

  it.effect("refuses an invalid chunkSize", () =>
    Effect.gen(function*() {
      const { calls, service } = yield* counting
      for (const chunkSize of [0, -1, 0.5, NaN, Infinity]) {
        for (
          const attempt of [
            Effect.scoped(service.open("k", { chunkSize })),
            Stream.runDrain(service.stream("k", { chunkSize }))
          ]
        ) {
          const error = yield* Effect.flip(attempt)
          expect(error._tag).toBe("UnsupportedOperation")
          expect(error.message)
            .toContain(`chunkSize must be a whole number of bytes of at least 1 (got ${chunkSize})`)
        }
      }
      expect(calls).toEqual([])
    }))

  it.scoped.each(["memory", "files"])(
    "streams chunks no larger than chunkSize: %s",
    (where) =>
      Effect.gen(function*() {
        const storage = where === "memory"
          ? yield* MemoryStorage.make()
          : yield* FileSystemStorage.make({ directory: yield* temporaryDirectory })
        const bytes = Uint8Array.from({ length: 10 }, (_, i) => i)
        yield* storage.save("k", bytes)
        const chunks = [...(yield* Stream.runCollect(storage.stream("k", { chunkSize: 4 })))]
        expect(chunks.map(({ length }) => length)).toEqual([4, 4, 2])
        expect(Buffer.concat(chunks)).toEqual(Buffer.from(bytes))
        const larger = yield* Stream.runCollect(storage.stream("k", { chunkSize: 2 ** 50 }))
        expect(larger.length).toBe(1)
      })
  )

  it.effect("lists nothing under a prefix that no key has, without calling the backend", () =>
    Effect.gen(function*() {
      const { calls, service } = yield* counting
      expect(yield* service.list("../")).toEqual([])
      expect((yield* Stream.runCollect(service.entries({ prefix: "a//" }))).length).toBe(0)
      expect(yield* service.listDirectory("/")).toEqual({ objects: [], prefixes: [] })
      expect(calls).toEqual([])
    }))

  it.effect("refuses what the backend does not support, and never ignores an option", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      const service = (capabilities: Partial<StorageBackend.Capabilities>) =>
        Storage.make({ ...backend, capabilities: { ...StorageBackend.full, ...capabilities } })
      const data = new Uint8Array([1])
      const attributes = { contentType: "text/plain" }
      const attempts: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
        service({ write: false }).save("k", data),
        service({ write: false }).remove("k"),
        service({ write: false }).removeAll(["k"]),
        service({ write: false }).copy("k", "j"),
        service({ write: false }).move("k", "j"),
        service({ createOnly: false }).save("k", data, { ifNoneMatch: "*" }),
        service({ createOnly: false }).copy("k", "j", { ifNoneMatch: "*" }),
        service({ compareAndSwap: false }).save("k", data, { ifMatch: "1" }),
        service({ conditionalRemove: false }).remove("k", { ifMatch: "1" }),
        service({ attributes: false }).save("k", data, { attributes }),
        service({ attributes: false }).copy("k", "j", { attributes }),
        service({ list: false }).list(),
        service({ list: false }).listDirectory(),
        Stream.runDrain(service({ list: false }).entries()),
        service({}).presign("k", { method: "GET", expiresIn: "1 minute" })
      ]
      for (const attempt of attempts) expect((yield* Effect.flip(attempt))._tag).toBe("UnsupportedOperation")
      const options = { ifNoneMatch: undefined, ifMatch: undefined, attributes: undefined, size: undefined }
      yield* service({ createOnly: false, compareAndSwap: false, attributes: false }).save("k", data, options)
      expect(yield* service({}).list()).toEqual(["k"])
    }))

  it.effect("accepts undefined for every option", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const data = new Uint8Array([1, 2, 3])
      const attributes = {
        contentType: undefined,
        cacheControl: undefined,
        contentDisposition: undefined,
        contentEncoding: undefined,
        contentLanguage: undefined,
        metadata: undefined
      }
      const saved = yield* storage.save("k", data, {
        ifNoneMatch: undefined,
        ifMatch: undefined,
        size: undefined,
        attributes
      })
      expect(saved.attributes).toEqual({})
      const read = { range: undefined, ifMatch: undefined, ifNoneMatch: undefined, chunkSize: undefined }
      expect(yield* storage.load("k", read)).toEqual(data)
      expect(yield* storage.loadRanges("k", [ByteRange.from(1)], read)).toEqual([data.slice(1)])
      expect(Chunk.toArray(yield* Stream.runCollect(storage.stream("k", read)))).toEqual([data])
      yield* storage.copy("k", "c", { ifNoneMatch: undefined, attributes: undefined })
      yield* storage.remove("c", { ifMatch: undefined })
      expect((yield* Stream.runCollect(storage.entries({ prefix: undefined, startAfter: undefined }))).length).toBe(1)
      expect(yield* storage.list(undefined)).toEqual(["k"])
    }))

  it.effect("calls removeAll of the backend with valid keys only, and not at all without any", () =>
    Effect.gen(function*() {
      const { backend } = yield* MemoryStorage.make()
      const batches: Array<ReadonlyArray<string>> = []
      const storage = Storage.make({
        ...backend,
        removeAll: (keys) => {
          batches.push(keys)
          return Effect.succeed([])
        }
      })
      expect(yield* storage.removeAll(["a", "../b", "c"])).toMatchObject({ removed: 2, failed: [{ key: "../b" }] })
      expect(yield* storage.removeAll(["../a", "../b"])).toMatchObject({ removed: 0, failed: [{}, {}] })
      expect(yield* storage.removeAll(Array.from({ length: 1001 }, (_, i) => `k${i}`))).toMatchObject({ removed: 1001 })
      expect(batches.map(({ length }) => length)).toEqual([2, 1000, 1])
    }))

  it.effect("gives the accessors the storage of the context", () =>
    Effect.gen(function*() {
      yield* Storage.save("a", new Uint8Array([1]))
      expect(yield* Storage.load("a")).toEqual(new Uint8Array([1]))
      expect(yield* Stream.run(Stream.make(new Uint8Array([2])), Storage.sink("b"))).toMatchObject({ size: 1 })
      expect(yield* Storage.list()).toEqual(["a", "b"])
      expect(yield* Storage.removeAll(Stream.fromEffect(Effect.succeed("a")))).toEqual({ removed: 1, failed: [] })
      expect(yield* Storage.removeAll(new Set(["b"]))).toEqual({ removed: 1, failed: [] })
      expect(yield* Storage.list()).toEqual([])
    }).pipe(Effect.provide(MemoryStorage.layer())))
})

describe("the source of a save", () => {
  it.effect("has its failures and requirements in the type of the save", () => {
    class Token extends Context.Tag("test/Token")<Token, number>() {}
    const source = Stream.fromEffect(Effect.map(Token, (byte) => new Uint8Array([byte])))
    const saved: Effect.Effect<StorageBackend.ObjectInfo, StorageError.SaveError | "mine", Token | Storage.Storage> =
      Storage.save("k", Stream.concat(source, Stream.fail("mine" as const)))
    return Effect.gen(function*() {
      expect(yield* Effect.flip(saved)).toBe("mine")
      yield* Storage.save("k", source)
      expect(yield* Storage.load("k")).toEqual(new Uint8Array([7]))
    }).pipe(Effect.provideService(Token, 7), Effect.provide(MemoryStorage.layer()))
  })

  const denied = new StorageError.AccessDenied({ reason: "no" })
  const failingLater = Effect.zipRight(Effect.yieldNow(), Effect.fail(denied))
  const backends: Readonly<Record<string, (data: Stream.Stream<Uint8Array>) => Effect.Effect<unknown, typeof denied>>> =
    {
      "races the source": (data) => Effect.raceFirst(Stream.runDrain(data), failingLater),
      "reads it beside others": (data) =>
        Effect.all([Stream.runDrain(data), failingLater], { concurrency: "unbounded" }),
      "merges it": (data) => Stream.runDrain(Stream.merge(data, Stream.fromEffect(failingLater))),
      "interrupts the fiber that reads it": (data) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Stream.runDrain(data))
          yield* Effect.yieldNow()
          yield* Fiber.interrupt(fiber)
          return yield* denied
        })
    }
  const sources: Readonly<Record<string, Stream.Stream<Uint8Array>>> = {
    "that waits": Stream.never,
    "that is buffered": Stream.buffer(Stream.concat(Stream.make(new Uint8Array(1)), Stream.never), { capacity: 2 }),
    "that is merged": Stream.merge(Stream.never, Stream.make(new Uint8Array(1))),
    "that joins a fiber": Stream.fromEffect(Effect.flatMap(Effect.fork(Effect.never), Fiber.join))
  }
  for (const [how, save] of Object.entries(backends)) {
    it.live(`does not hide the failure of a backend that ${how}`, () =>
      Effect.forEach(Object.entries(sources), ([what, source]) =>
        Effect.gen(function*() {
          const storage = yield* saving((_, data) =>
            data instanceof Uint8Array ? Effect.succeed(info) : Effect.as(save(data), info)
          )
          expect((yield* Effect.flip(storage.save("k", source)))._tag, `a source ${what}`).toBe("AccessDenied")
        }), { discard: true }))
  }

  it.live("is the outcome where the backend ignores how it ended", () =>
    Effect.gen(function*() {
      const storage = yield* saving((_, data) =>
        data instanceof Uint8Array
          ? Effect.succeed(info)
          : Effect.as(Effect.exit(Effect.fork(Stream.runDrain(data)).pipe(Effect.flatMap(Fiber.await))), info)
      )
      expect(yield* Effect.flip(storage.save("k", Stream.fail("mine" as const)))).toBe("mine")
      expect(yield* storage.save("k", Stream.make(new Uint8Array(3)))).toBe(info)
    }))

  it.live("is interrupted with the save, and closed before the save ends", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const isOpen = yield* Deferred.make<void>()
      let closed = 0
      const source = Stream.acquireRelease(Deferred.succeed(isOpen, undefined), () => Effect.sync(() => closed++)).pipe(
        Stream.flatMap(() => Stream.never)
      )
      const fiber = yield* Effect.fork(storage.save("k", source))
      yield* Deferred.await(isOpen)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(closed).toBe(1)
      expect(yield* storage.exists("k")).toBe(false)
    }))
})

describe("a sink", () => {
  it.live("pulls its stream only as fast as the backend reads", () =>
    Effect.gen(function*() {
      const isReading = yield* Deferred.make<void>()
      const mayGoOn = yield* Deferred.make<void>()
      let received = 0
      const storage = yield* saving((_, data) =>
        data instanceof Uint8Array ? Effect.succeed(info) : data.pipe(
          Stream.runForEach(() =>
            received++ > 0
              ? Effect.void
              : Effect.zipRight(Deferred.succeed(isReading, undefined), Deferred.await(mayGoOn))
          ),
          Effect.as(info)
        )
      )
      let pulled = 0
      const source = Stream.repeatEffect(Effect.sync(() => {
        pulled++
        return new Uint8Array(1)
      })).pipe(Stream.take(100))
      const fiber = yield* Effect.fork(Stream.run(source, storage.sink("k")))
      yield* Deferred.await(isReading)
      yield* Effect.repeatN(Effect.yieldNow(), 200)
      // One is being read, one waits for the backend, one for the place of that.
      expect(pulled).toBeLessThanOrEqual(3)
      yield* Deferred.succeed(mayGoOn, undefined)
      yield* Fiber.join(fiber)
      expect({ pulled, received }).toEqual({ pulled: 100, received: 100 })
    }))

  it.live("ends with the failure of the backend while its stream still runs", () =>
    Effect.gen(function*() {
      const storage = yield* saving((_, data) =>
        data instanceof Uint8Array
          ? Effect.succeed(info)
          : Effect.zipRight(
            Stream.runDrain(Stream.take(data, 3)),
            new StorageError.StorageFull({ reason: "no space left" })
          )
      )
      let closed = 0
      const endless = Stream.ensuring(Stream.repeatValue(new Uint8Array(1)), Effect.sync(() => closed++))
      expect(yield* Effect.flip(Stream.run(endless, storage.sink("k"))))
        .toMatchObject({ _tag: "StorageFull", operation: "save", backend: "Memory", key: "k" })
      expect(closed).toBe(1)
    }))

  it.live("ends with the defect of the backend", () =>
    Effect.gen(function*() {
      const storage = yield* saving(() => Effect.die("a bug"))
      const exit = yield* Effect.exit(Stream.run(Stream.repeatValue(new Uint8Array(1)), storage.sink("k")))
      expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(true)
    }))

  it.live("interrupts the save where its stream fails, also in an uninterruptible region", () =>
    Effect.gen(function*() {
      const isReading = yield* Effect.makeLatch()
      let interrupted = 0
      const storage = yield* saving((_, data) =>
        (data instanceof Uint8Array ? Effect.void : Stream.runForEach(data, () => isReading.open)).pipe(
          Effect.as(info),
          Effect.onInterrupt(() => Effect.sync(() => interrupted++))
        )
      )
      const failing = Stream.concat(
        Stream.make(new Uint8Array(3)),
        Stream.fromEffect(Effect.zipRight(isReading.await, Effect.fail("mine" as const)))
      )
      const run = Stream.run(failing, storage.sink("k"))
      expect(yield* Effect.flip(run)).toBe("mine")
      yield* isReading.close
      expect(yield* Effect.flip(Effect.uninterruptible(run))).toBe("mine")
      expect(interrupted).toBe(2)
    }))
})
