/**
 * A failover between storages in memory that fail by rules, with a test clock and the calls of each recorded.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Types } from "effect"
import {
  Chunk,
  Clock,
  Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Either,
  Exit,
  FastCheck,
  Fiber,
  Layer,
  Logger,
  Stream,
  TestClock
} from "effect"
import { createHash } from "node:crypto"
import {
  ByteRange,
  MemoryStorage,
  ObjectKey,
  Storage,
  StorageBackend,
  StorageChaos,
  StorageError,
  StorageFailover
} from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7) % 251)

const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (parts) => new Uint8Array(Buffer.concat(Chunk.toArray(parts))))

/** A storage in memory whose etags are made of the bytes: by default their MD5, as on S3. */
const inMemory = (
  name: string,
  etagOf = (bytes: Uint8Array) => createHash("md5").update(bytes).digest("hex")
): Storage.Service => {
  const objects = new Map<string, { readonly info: StorageBackend.ObjectInfo; readonly bytes: Uint8Array }>()
  return Storage.make(StorageBackend.make({
    name,
    capabilities: { ...StorageBackend.full, presign: true },
    open: (key, options) =>
      Effect.suspend(() =>
        Either.fromNullable(
          objects.get(key),
          () => new StorageError.ObjectNotFound()
        ).pipe(Either.flatMap(({ bytes, info }) => StorageBackend.openBytes(bytes, info, options)))
      ),
    save: (key, data, options) =>
      Effect.flatMap(
        data instanceof Uint8Array ? Effect.sync(() => data.slice()) : gather(data),
        (bytes) =>
          Clock.clockWith((clock) =>
            Either.map(
              StorageBackend.checkSave(objects.get(key)?.info, options),
              () => {
                const lastModified = new Date(clock.unsafeCurrentTimeMillis())
                const { attributes } = options
                const info = { key, size: bytes.length, lastModified, etag: etagOf(bytes), attributes }
                objects.set(key, { info, bytes })
                return info
              }
            )
          )
      ),
    entries: ({ prefix = "", startAfter = "" }) =>
      Stream.suspend(() =>
        Stream.fromIterable(
          [...objects.values()].map(({ info }) => info)
            .filter(({ key }) => key.startsWith(prefix) && ObjectKey.compare(key, startAfter) > 0)
            .sort((one, other) => ObjectKey.compare(one.key, other.key))
        )
      ),
    remove: (key) => Effect.sync(() => void objects.delete(key))
  }, {
    presign: (key, { method }) => Effect.succeed(`${method} ${name}/${key}`)
  }))
}

/** The same storage, which records its calls, and when what it opened is closed. */
const recording = (inner: Storage.Service, letter: string, log: Array<string>): Storage.Service => {
  const { backend } = inner
  const note = (what: string) => Effect.sync(() => void log.push(`${letter} ${what}`))
  const noted = <A, E, R>(effect: Effect.Effect<A, E, R>, ...what: ReadonlyArray<unknown>) =>
    Effect.zipRight(
      note(what.map((part) => typeof part === "string" ? part : JSON.stringify(part)).join(" ")),
      effect
    )
  const opened = (what: string) => Effect.acquireRelease(note(what), () => note("close"))
  return Storage.make({
    name: backend.name,
    capabilities: backend.capabilities,
    open: (key, options) =>
      Effect.zipRight(
        opened(Object.keys(options).length === 0 ? "open" : `open ${JSON.stringify(options)}`),
        backend.open(key, options)
      ),
    load: (key, options) => noted(backend.load(key, options), "load"),
    loadRanges: (key, ranges, options) => noted(backend.loadRanges(key, ranges, options), "loadRanges"),
    head: (key) => noted(backend.head(key), "head"),
    save: (key, data, options) =>
      noted(backend.save(key, data, options), "save", data instanceof Uint8Array ? "bytes" : "stream", options),
    entries: (options) => Stream.unwrapScoped(Effect.as(opened("entries"), backend.entries(options))),
    keys: (options) => Stream.unwrapScoped(Effect.as(opened("keys"), backend.keys(options))),
    listDirectory: (prefix) => noted(backend.listDirectory(prefix), "listDirectory"),
    remove: (key, options) => noted(backend.remove(key, options), "remove"),
    removeAll: (keys) => noted(backend.removeAll(keys), "removeAll", keys),
    copy: (from, to, options) => noted(backend.copy(from, to, options), "copy"),
    move: (from, to, options) => noted(backend.move(from, to, options), "move"),
    presign: (key, options) => noted(backend.presign(key, options), "presign")
  })
}

type Rules = ReadonlyArray<StorageChaos.Rule>

/** The same storage under rules, whose failures name it unless they are given. */
const unreliable = (storage: Storage.Service, rules: Rules) => {
  const { name } = storage.backend
  const error = ({ key }: StorageChaos.Target) =>
    new StorageError.StorageUnavailable({ key: key === "" ? undefined : key, reason: `${name} is down` })
  return StorageChaos.make(storage, rules.map((rule) => ({ error, ...rule })))
}

const aIsDown = { _tag: "StorageUnavailable", reason: "A is down" }

/** A failover from A to B, and to C if there are rules for it. Calls are recorded before the rules apply. */
const setup = (
  rules: { readonly a?: Rules; readonly b?: Rules; readonly c?: Rules },
  options?: StorageFailover.Options
) =>
  Effect.gen(function*() {
    const log: Array<string> = []
    const [a, b, c] = [inMemory("A"), inMemory("B"), inMemory("C")]
    const under = (storage: Storage.Service, rules: Rules = []) =>
      Effect.map(unreliable(storage, rules), (failing) => recording(failing, storage.backend.name, log))
    const [onA, onB] = [yield* under(a, rules.a), yield* under(b, rules.b)]
    const others = rules.c === undefined ? [] : [yield* under(c, rules.c)]
    return { log, a, b, c, storage: yield* StorageFailover.make([onA, onB, ...others], options) }
  })

/** The same object on each storage. */
const saveOn = (storages: ReadonlyArray<Storage.Service>, content: Uint8Array, key = "k") =>
  Effect.forEach(storages, (storage) => storage.save(key, content), { discard: true })

const dead: Rules = [{ times: Infinity }]

const failing = (
  error: (struck: StorageChaos.Target) => StorageError.StorageError,
  rule: StorageChaos.Rule = {}
): StorageChaos.Rule => ({ times: Infinity, error, ...rule })

const requests = (log: ReadonlyArray<string>, letter: string) =>
  log.filter((line) => line.startsWith(`${letter} `) && line !== `${letter} close`).length

/** How much was opened on any storage and not closed. */
const left = (log: ReadonlyArray<string>) =>
  log.filter((line) => /^. (open|entries|keys)/.test(line)).length - log.filter((line) => line.endsWith("close")).length

/** Every operation that reads, by its name on the backend. */
const reads: ReadonlyArray<
  readonly [
    operation: StorageChaos.Operation,
    run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>
  ]
> = [
  ["load", (storage) => storage.load("k")],
  ["loadRanges", (storage) => storage.loadRanges("k", [ByteRange.make(0, 2), ByteRange.last(1)])],
  ["head", (storage) => storage.head("k")],
  ["head", (storage) => storage.exists("k")],
  ["open", (storage) => gather(storage.stream("k"))],
  ["open", (storage) => Effect.scoped(Effect.map(storage.open("k"), ({ info, range }) => [info, range]))],
  ["entries", (storage) => Stream.runCollect(storage.entries())],
  ["keys", (storage) => storage.list()],
  ["listDirectory", (storage) => storage.listDirectory()]
]

/** Each kind of failure. */
const context = { key: "k" }
const failures: ReadonlyArray<StorageError.StorageError> = [
  new StorageError.ObjectNotFound(context),
  new StorageError.ObjectAlreadyExists(context),
  new StorageError.PreconditionFailed(context),
  new StorageError.ObjectNotModified(context),
  new StorageError.InvalidKey({ ...context, reason: "" }),
  new StorageError.InvalidRange({ ...context, reason: "" }),
  new StorageError.AccessDenied({ ...context, reason: "" }),
  new StorageError.StorageNotFound({ ...context, reason: "" }),
  new StorageError.StorageUnavailable({ ...context, reason: "" }),
  new StorageError.StorageUnavailable({ ...context, reason: "exhausted", attempts: 3 }),
  new StorageError.StorageTimeout({ ...context, limit: Duration.seconds(1) }),
  new StorageError.StorageTimeout({ ...context, limit: Duration.seconds(1), attempts: 3 }),
  new StorageError.CorruptObject({ ...context, problem: "truncated", reason: "" }),
  new StorageError.CorruptObject({ ...context, problem: "truncated", reason: "exhausted", attempts: 3 }),
  new StorageError.CorruptObject({ ...context, problem: "size", reason: "" }),
  new StorageError.CorruptObject({ ...context, problem: "checksum", reason: "" }),
  new StorageError.CorruptObject({ ...context, problem: "frame", reason: "" }),
  new StorageError.StorageFull({ ...context, reason: "" }),
  new StorageError.UnsupportedOperation({ ...context, reason: "" }),
  new StorageError.UnexpectedStorageError({ ...context, reason: "" })
]

describe("StorageFailover", () => {
  it.effect("names itself around its storages, and has the capabilities of the primary", () =>
    Effect.gen(function*() {
      const a = inMemory("A")
      const able = (capabilities: Partial<StorageBackend.Capabilities>) =>
        Storage.make({ ...inMemory("B").backend, capabilities: { ...StorageBackend.full, ...capabilities } })
      const storage = yield* StorageFailover.make([a, able({ list: false, write: false }), able({})])
      expect(storage.backend.name).toBe("Failover(A, B, B)")
      expect(storage.backend.capabilities).toEqual(a.backend.capabilities)

      const poor = yield* StorageFailover.make([able({ list: false, write: false, compareAndSwap: false }), a])
      expect(poor.backend.capabilities).toEqual({
        ...StorageBackend.full,
        list: false,
        write: false,
        compareAndSwap: false
      })
      const flat = yield* StorageFailover.make([a, able({ objectsWithinObjects: false })])
      expect(flat.backend.capabilities.objectsWithinObjects).toBe(false)
    }))

  it.effect("calls no backup as long as the primary answers", () =>
    Effect.forEach(reads, ([operation, run]) =>
      Effect.gen(function*() {
        const { a, log, storage } = yield* setup({ b: dead })
        yield* saveOn([a], bytes(10))
        expect(yield* run(storage), operation).toEqual(yield* run(a))
        expect(requests(log, "A"), operation).toBe(1)
        expect(requests(log, "B"), operation).toBe(0)
        expect(left(log), operation).toBe(0)
      })))

  it.effect("reads from the first backup that answers, and leaves nothing open", () =>
    Effect.forEach(reads, ([operation, run]) =>
      Effect.gen(function*() {
        const { c, log, storage } = yield* setup({ a: dead, b: dead, c: [] })
        yield* saveOn([c], bytes(10))
        expect(yield* run(storage), operation).toEqual(yield* run(c))
        expect(log.filter((line) => !line.endsWith("close")).map((line) => line.slice(0, 1))).toEqual(["A", "B", "C"])
        expect(left(log), operation).toBe(0)
      })))

  it.effect("closes what failed to open before it opens the next", () =>
    Effect.gen(function*() {
      const { b, log, storage } = yield* setup({ a: dead })
      yield* saveOn([b], bytes(10))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* storage.open("k")
        expect(log).toEqual(["A open", "A close", "B open"])
      }))
      yield* storage.list()
      expect(log.slice(3)).toEqual(["B close", "A keys", "A close", "B keys", "B close"])
    }))

  it.effect("fails with the failure of the primary where every storage has failed", () =>
    Effect.forEach(reads, ([operation, run]) =>
      Effect.gen(function*() {
        const { log, storage } = yield* setup({ a: dead, b: dead, c: dead })
        const error = yield* Effect.flip(run(storage))
        expect(error, operation).toMatchObject({
          ...aIsDown,
          backend: "Failover(Chaos(A), Chaos(B), Chaos(C))"
        })
        expect(["A", "B", "C"].map((letter) => requests(log, letter)), operation).toEqual([1, 1, 1])
        expect(left(log), operation).toBe(0)
      })))

  it("treats a storage as down when it is unavailable, times out or truncates, retried or not", () => {
    expect(failures.map((error) => error._tag).filter((tag, i, all) => all.indexOf(tag) === i).length).toBe(
      // No operation fails with InvalidOptions.
      StorageError.StorageError.members.length - 1
    )
    expect(failures.filter(StorageFailover.isDown)).toEqual(failures.slice(8, 14))
  })

  it.effect("fails over where a storage is down, and passes every other failure through", () =>
    Effect.forEach(failures, (error) =>
      Effect.gen(function*() {
        const { b, log, storage } = yield* setup({ a: [failing(() => error)] })
        yield* saveOn([b], bytes(10))
        const result = yield* Effect.either(storage.load("k"))
        if (StorageFailover.isDown(error)) expect(result).toEqual(Either.right(bytes(10)))
        else {
          expect(Either.isLeft(result)).toBe(true)
          expect(requests(log, "B")).toBe(0)
        }
      })))

  it.effect("passes failures through", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup({ a: [failing(() => new StorageError.AccessDenied({ reason: "no" }))] })
      const denied = { _tag: "AccessDenied", backend: "Failover(Chaos(A), Chaos(B))", reason: "no" }
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject(denied)
      expect(yield* Effect.flip(gather(storage.stream("k")))).toMatchObject(denied)
    }))

  it.effect("fails over where shouldFailover says so, which is not called for mistakes of the caller", () =>
    Effect.forEach(failures, (error) =>
      Effect.gen(function*() {
        const asked: Array<StorageError.StorageError> = []
        const { b, log, storage } = yield* setup({ a: [failing(() => error, { operation: "load" })] }, {
          shouldFailover: (error) => asked.push(error) > 0
        })
        yield* saveOn([b], bytes(10))
        // A load gives no other failure than these.
        const isOfLoad = error._tag !== "ObjectAlreadyExists" && error._tag !== "StorageFull"
        const moved = error._tag !== "InvalidKey" && error._tag !== "InvalidRange"
        expect(Either.isRight(yield* Effect.either(storage.load("k"))), error._tag).toBe(moved)
        expect(requests(log, "B")).toBe(moved ? 1 : 0)
        if (isOfLoad && moved) expect(asked).toContain(error)
        if (!moved) expect(asked).toEqual([])
      })))

  it.effect("returns the result of a backup, also that there is no such object", () =>
    Effect.gen(function*() {
      const { a, storage } = yield* setup({ a: dead })
      yield* saveOn([a], bytes(10))
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ _tag: "ObjectNotFound" })
      expect(yield* storage.exists("k")).toBe(false)
    }))

  it.effect("goes on where shouldFailover includes ObjectNotFound, and fails as the primary did", () =>
    Effect.gen(function*() {
      const { storage } = yield* setup({ a: dead }, {
        shouldFailover: (error) => StorageFailover.isDown(error) || error._tag === "ObjectNotFound"
      })
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject(aIsDown)
    }))

  it.effect("skips a backup that does not support the operation", () =>
    Effect.gen(function*() {
      const { backend } = inMemory("A")
      const down = yield* unreliable(inMemory("A"), dead)
      const cannot = Storage.make({
        ...backend,
        name: "B",
        capabilities: StorageBackend.readOnly,
        keys: () => Stream.dieMessage("not asked"),
        presign: () => Effect.dieMessage("not asked"),
        load: () => new StorageError.UnsupportedOperation({ reason: "too large" })
      })
      const c = inMemory("C")
      yield* saveOn([c], bytes(10))

      const two = yield* StorageFailover.make([down, cannot])
      for (const read of [two.list(), two.load("k"), two.presign("k", { method: "GET", expiresIn: "1 minute" })]) {
        expect(yield* Effect.flip<unknown, StorageError.StorageError, never>(read)).toMatchObject(aIsDown)
      }
      const three = yield* StorageFailover.make([down, cannot, c])
      expect(yield* three.list()).toEqual(["k"])
      expect(yield* three.load("k")).toEqual(bytes(10))
      expect(yield* three.presign("k", { method: "GET", expiresIn: "1 minute" })).toBe("GET C/k")
    }))

  it.effect("passes through that the primary does not support the operation", () =>
    Effect.gen(function*() {
      const cannot = (struck: StorageChaos.Target) =>
        new StorageError.UnsupportedOperation({ ...struck, reason: "too large" })
      const { log, storage } = yield* setup({ a: [failing(cannot)] })
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject({ _tag: "UnsupportedOperation" })
      expect(requests(log, "B")).toBe(0)
    }))

  it.effect("fails with PreconditionFailed on a backup under the etag of the primary", () =>
    Effect.gen(function*() {
      const b = inMemory("B", (bytes) => `of-b-${bytes.length}`)
      const a = inMemory("A")
      yield* saveOn([a, b], bytes(10))
      const { etag } = yield* a.head("k")
      const storage = yield* StorageFailover.make([yield* StorageChaos.make(a, [{ operation: "load" }]), b])
      const load = storage.load("k", { ifMatch: etag })
      expect(yield* Effect.flip(load)).toMatchObject({ _tag: "PreconditionFailed" })
      expect(yield* load).toEqual(bytes(10))
    }))

  it.effect("presigns URLs to load by the first storage that can, and to save by the primary alone", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* setup({ a: [{ operation: "presign", times: Infinity }] })
      expect(yield* storage.presign("k", { method: "GET", expiresIn: "1 minute" })).toBe("GET B/k")
      log.length = 0
      const error = yield* Effect.flip(storage.presign("k", { method: "PUT", expiresIn: "1 minute" }))
      expect(error).toMatchObject(aIsDown)
      expect(log).toEqual(["A presign"])
    }))

  it.effect("does not record a presigned URL as a success", () =>
    Effect.gen(function*() {
      const { b, log, storage } = yield* setup({ a: [{ operation: "load", times: Infinity }] }, { failureThreshold: 2 })
      yield* saveOn([b], bytes(10))
      yield* Effect.replicateEffect(storage.load("k"), 2)
      yield* TestClock.adjust("30 seconds")
      expect(yield* storage.presign("k", { method: "GET", expiresIn: "1 minute" })).toBe("GET A/k")
      yield* storage.load("k")
      log.length = 0
      yield* storage.load("k")
      expect(log).toEqual(["B load"])
    }))

  it.effect("fails with InvalidOptions on options out of bounds", () =>
    Effect.gen(function*() {
      const [a, b] = [inMemory("A"), inMemory("B")]
      const readOnly = Storage.make({ ...b.backend, capabilities: StorageBackend.readOnly })
      const bad: ReadonlyArray<readonly [StorageFailover.Options, string]> = [
        ...[0, -1, 1.5, NaN, Infinity].map((failureThreshold) => [{ failureThreshold }, "failureThreshold"] as const),
        ...([0, -1, NaN, Infinity, "0 seconds"] as const).map((openDuration) =>
          [{ openDuration }, "openDuration"] as const
        ),
        [{ writes: "some" as "all" }, "writes"],
        [{ shouldFailover: true as never }, "shouldFailover"],
        [{ writes: "all" }, "writes"]
      ]
      for (const [options, option] of bad) {
        const error = yield* Effect.flip(StorageFailover.make([a, readOnly], options))
        expect(error).toMatchObject({ _tag: "InvalidOptions", module: "StorageFailover", option })
      }
      expect((yield* Effect.flip(StorageFailover.make([a, readOnly], { writes: "all" }))).message).toBe(
        "StorageFailover: writes must be \"primary\" where a storage is read-only (B is)"
      )
      yield* StorageFailover.make([a, readOnly], { failureThreshold: 1, openDuration: "1 millis" })
      yield* StorageFailover.make([a, b], { writes: "all", failureThreshold: undefined, openDuration: undefined })
      const piped = yield* StorageFailover.make({ writes: "all" })([a, b])
      expect(piped.backend.name).toBe("Failover(A, B)")
    }))

  it.effect("is built of layers, with the requirements and errors of all", () =>
    Effect.gen(function*() {
      class Region extends Context.Tag("test/Region")<Region, string>() {}
      class Disk extends Context.Tag("test/Disk")<Disk, string>() {}
      class NoDisk {
        readonly _tag = "NoDisk"
      }
      class NoRegion {
        readonly _tag = "NoRegion"
      }
      const a = Layer.effect(Storage.Storage, Effect.map(Region, (name) => inMemory(name)))
      const b = Layer.effect(
        Storage.Storage,
        Effect.filterOrFail(Effect.map(Disk, (name) => inMemory(name)), ({ backend }) =>
          backend.name !== "", () =>
          new NoDisk())
      )
      const c = Layer.fail(new NoRegion())
      const layer = StorageFailover.layer([a, b])
      const three = StorageFailover.layer([a, b, c, MemoryStorage.layer()], { failureThreshold: 2 })

      const check: Types.Equals<
        typeof layer,
        Layer.Layer<Storage.Storage, NoDisk | StorageError.InvalidOptions, Region | Disk>
      > = true
      const checkThree: Types.Equals<
        typeof three,
        Layer.Layer<Storage.Storage, NoDisk | NoRegion | StorageError.InvalidOptions, Region | Disk>
      > = true
      expect(check && checkThree).toBe(true)

      const run = <E>(layer: Layer.Layer<Storage.Storage, E, Region | Disk>, disk: string) =>
        Effect.map(Storage.Storage, ({ backend }) =>
          backend.name).pipe(
            Effect.provide(layer),
            Effect.provideService(Region, "Eu"),
            Effect.provideService(Disk, disk)
          )
      expect(yield* run(layer, "Disk")).toBe("Failover(Eu, Disk)")
      expect(yield* run(StorageFailover.layer([a]), "Disk")).toBe("Failover(Eu)")
      expect(yield* Effect.flip(run(layer, ""))).toEqual(new NoDisk())
      expect(yield* Effect.flip(run(three, "Disk"))).toEqual(new NoRegion())
      expect((yield* Effect.flip(run(StorageFailover.layer([a], { failureThreshold: 0 }), "Disk")))._tag)
        .toBe("InvalidOptions")

      const configured = StorageFailover.layerConfig([a, b], { openDuration: Config.duration("OPEN") })
      const underConfig = (value: string) =>
        Effect.withConfigProvider(run(configured, "Disk"), ConfigProvider.fromMap(new Map([["OPEN", value]])))
      expect(yield* underConfig("1 minute")).toBe("Failover(Eu, Disk)")
      expect(yield* Effect.flip(underConfig("0 seconds"))).toMatchObject({ option: "openDuration" })
    }))
})

describe("StorageFailover, circuit breaker", () => {
  /** A failover from a dead primary to a backup with `k`, after as many loads. */
  const afterLoads = (loads: number, a: Rules = dead, options?: StorageFailover.Options, b: Rules = []) =>
    Effect.gen(function*() {
      const all = yield* setup({ a, b }, options)
      yield* saveOn([all.a, all.b], bytes(10))
      yield* Effect.replicateEffect(all.storage.load("k"), loads, { discard: true })
      return all
    })

  it.effect("calls a dead primary five times, and then not for 30 seconds, whatever is read", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(20)
      expect(requests(log, "A")).toBe(5)
      yield* TestClock.adjust("29999 millis")
      yield* Effect.forEach(reads, ([, run]) => run(storage))
      yield* storage.presign("k", { method: "GET", expiresIn: "1 minute" })
      expect(requests(log, "A")).toBe(5)
      yield* TestClock.adjust("1 millis")
      yield* storage.load("k")
      expect(requests(log, "A")).toBe(6)
    }))

  it.effect("opens at failureThreshold and for openDuration", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(20, dead, { failureThreshold: 2, openDuration: "1 hour" })
      expect(requests(log, "A")).toBe(2)
      yield* TestClock.adjust("59 minutes")
      yield* storage.load("k")
      expect(requests(log, "A")).toBe(2)
      yield* TestClock.adjust("1 minute")
      yield* storage.load("k")
      expect(requests(log, "A")).toBe(3)
    }))

  it.effect("counts the failures of every read", () =>
    Effect.forEach(reads, ([operation, run]) =>
      Effect.gen(function*() {
        const { log, storage } = yield* afterLoads(0)
        yield* Effect.replicateEffect(run(storage), 8)
        expect(requests(log, "A"), operation).toBe(5)
      })))

  it.effect("counts anew after every success, and after every failure about an object", () =>
    Effect.gen(function*() {
      const successes: ReadonlyArray<(storage: Storage.Service) => Effect.Effect<unknown, unknown>> = [
        (storage) => storage.head("k"),
        (storage) => gather(storage.stream("k")),
        (storage) => storage.list(),
        (storage) => storage.save("k", bytes(10)),
        (storage) => storage.save("k", Stream.make(bytes(10))),
        (storage) => storage.remove("other"),
        (storage) => Effect.flip(storage.head("missing")),
        (storage) => Effect.flip(storage.save("k", bytes(1), { ifNoneMatch: "*" }))
      ]
      for (const success of successes) {
        const { log, storage } = yield* afterLoads(4, [{ operation: "load", times: Infinity }])
        for (let round = 0; round < 3; round++) {
          yield* success(storage)
          yield* Effect.replicateEffect(storage.load("k"), 4)
        }
        expect(log.filter((line) => line === "A load").length).toBe(16)
        yield* storage.load("k")
        log.length = 0
        yield* storage.load("k")
        expect(log).toEqual(["B load"])
      }
    }))

  it.effect("does not count failures about an object, also where they fail over", () =>
    Effect.gen(function*() {
      const { b, log, storage } = yield* setup({}, { failureThreshold: 1, shouldFailover: () => true })
      yield* saveOn([b], bytes(10))
      for (let i = 1; i <= 3; i++) {
        expect(yield* storage.load("k")).toEqual(bytes(10))
        expect(requests(log, "A")).toBe(i)
      }
    }))

  it.effect("lets one operation try a half-open storage, and all when that succeeds", () =>
    Effect.forEach(reads, ([operation, run]) =>
      Effect.gen(function*() {
        const slow: StorageChaos.Rule = { operation, delay: "1 second", error: "none", times: Infinity }
        const { log, storage } = yield* afterLoads(1, [{ operation: "load" }, slow], { failureThreshold: 1 })
        yield* TestClock.adjust("30 seconds")
        log.length = 0
        const fibers = yield* Effect.forEach(Array(9), () => Effect.fork(run(storage)))
        yield* TestClock.adjust("999 millis")
        expect([requests(log, "A"), requests(log, "B")], operation).toEqual([1, 8])
        yield* TestClock.adjust("1 millis")
        yield* Fiber.joinAll(fibers)
        log.length = 0
        yield* Effect.forEach(Array(9), () => Effect.fork(run(storage)))
        yield* TestClock.adjust("999 millis")
        expect([requests(log, "A"), requests(log, "B")], operation).toEqual([9, 0])
      })))

  it.effect("opens again when that fails, and the operation goes on to the backup", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(9)
      for (let round = 0; round < 3; round++) {
        log.length = 0
        yield* TestClock.adjust("29 seconds")
        yield* storage.load("k")
        expect(log).toEqual(["B load"])
        yield* TestClock.adjust("1 second")
        const loaded = yield* Effect.forEach(Array(9), () => storage.load("k"), { concurrency: "unbounded" })
        expect(loaded).toEqual(Array(9).fill(bytes(10)))
        expect([requests(log, "A"), requests(log, "B")]).toEqual([1, 10])
      }
    }))

  it.effect("lets another operation try it when the first is interrupted", () =>
    Effect.forEach(reads, ([operation, run]) =>
      Effect.gen(function*() {
        const hangs: StorageChaos.Rule = { operation, delay: "1 hour", error: "none" }
        const { log, storage } = yield* afterLoads(1, [{ operation: "load" }, hangs], { failureThreshold: 1 })
        yield* TestClock.adjust("30 seconds")
        log.length = 0
        const trial = yield* Effect.fork(run(storage))
        yield* Effect.yieldNow()
        yield* run(storage)
        expect([requests(log, "A"), requests(log, "B")], operation).toEqual([1, 1])
        yield* Fiber.interrupt(trial)
        yield* run(storage)
        expect([requests(log, "A"), requests(log, "B")], operation).toEqual([2, 1])
        expect(left(log), operation).toBe(0)
      })))

  it.effect("lets another operation try it when the first dies", () =>
    Effect.gen(function*() {
      let dies = true
      const [a, b] = [inMemory("A"), inMemory("B")]
      yield* saveOn([a, b], bytes(10))
      const flaky = yield* StorageChaos.make(a, [{ operation: "load" }])
      const storage = yield* StorageFailover.make([
        Storage.make({
          ...flaky.backend,
          head: (key) => dies ? Effect.dieMessage("a bug") : flaky.backend.head(key)
        }),
        b
      ], { failureThreshold: 1 })
      yield* storage.load("k")
      yield* TestClock.adjust("30 seconds")
      expect(Exit.isFailure(yield* Effect.exit(storage.head("k")))).toBe(true)
      dies = false
      yield* b.remove("k")
      expect(yield* storage.exists("k")).toBe(true)
    }))

  it.effect("lets another operation try it when the first reads from a backup", () =>
    Effect.gen(function*() {
      const hangs: StorageChaos.Rule = { operation: "load", delay: "1 hour", error: "none" }
      const { log, storage } = yield* afterLoads(0, dead, { failureThreshold: 1 }, [hangs])
      yield* storage.head("k")
      yield* TestClock.adjust("30 seconds")
      const first = yield* Effect.fork(storage.load("k"))
      yield* TestClock.adjust("30 seconds")
      expect(log.slice(2)).toEqual(["A load", "B load"])
      yield* storage.load("k")
      expect(log.slice(4)).toEqual(["A load", "B load"])
      yield* Fiber.interrupt(first)
    }))

  it.effect("tries all in order where all are open, and fails only when every one failed", () =>
    Effect.gen(function*() {
      const { b, log, storage } = yield* setup({ a: [{ times: 9 }], b: [{ times: 8 }], c: dead }, {
        failureThreshold: 2
      })
      yield* saveOn([b], bytes(10))
      for (let i = 0; i < 8; i++) {
        expect(yield* Effect.flip(storage.load("k"))).toMatchObject(aIsDown)
      }
      expect(log).toEqual(Array(8).fill(["A load", "B load", "C load"]).flat())
      expect(yield* storage.load("k")).toEqual(bytes(10))
    }))

  it.effect("tries an open primary when the backups fail, and fails as it does", () =>
    Effect.gen(function*() {
      let isDown = false
      const { log, storage } = yield* afterLoads(5, [{ times: 6 }], {}, [{ times: Infinity, key: () => isDown }])
      isDown = true
      log.length = 0
      expect(yield* Effect.flip(storage.load("k"))).toMatchObject(aIsDown)
      expect(yield* storage.load("k")).toEqual(bytes(10))
      expect(log).toEqual(["B load", "A load", "B load", "A load"])
      // It is closed again.
      expect(yield* storage.load("k")).toEqual(bytes(10))
      expect(log.slice(4)).toEqual(["A load"])
    }))

  it.effect("opens for a storage that opens everything and then breaks off", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(0, [{ operation: "open", afterBytes: 3, times: Infinity }])
      for (let i = 0; i < 8; i++) expect(yield* gather(storage.stream("k"))).toEqual(bytes(10))
      expect(requests(log, "A")).toBe(5)
    }))

  it.effect("opens for a backup as for the primary", () =>
    Effect.gen(function*() {
      const { c, log, storage } = yield* setup({ a: dead, b: dead, c: [] })
      yield* saveOn([c], bytes(10))
      yield* Effect.replicateEffect(storage.load("k"), 9)
      expect(["A", "B", "C"].map((letter) => requests(log, letter))).toEqual([5, 5, 9])
    }))

  it.effect("logs once that a storage is not used, why, and what is used instead; and once that it is used again", () =>
    Effect.gen(function*() {
      const logged: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel.label} ${String(message)}`))
      yield* Effect.provide(
        Effect.gen(function*() {
          const { storage } = yield* afterLoads(4, [{ operation: "load", times: 11 }])
          yield* Effect.flip(storage.head("missing"))
          yield* gather(storage.stream("k"))
          yield* Effect.replicateEffect(storage.load("k"), 4)
          expect(logged).toEqual([])
          yield* Effect.replicateEffect(storage.load("k"), 9)
          for (let round = 0; round < 2; round++) {
            yield* TestClock.adjust("30 seconds")
            yield* Effect.replicateEffect(storage.load("k"), 9)
          }
          expect(logged).toEqual([
            "WARN Failover(Chaos(A), Chaos(B)): Chaos(A) failed 5 times in a row and is not used for 30s; Chaos(B) is " +
            "used instead. The last failure: \"k\": A is down"
          ])
          yield* TestClock.adjust("30 seconds")
          yield* Effect.replicateEffect(storage.load("k"), 9)
          expect(logged.slice(1)).toEqual(["INFO Failover(Chaos(A), Chaos(B)): Chaos(A) is used again"])

          const all = yield* setup({ a: dead, b: dead }, { failureThreshold: 1 })
          yield* Effect.flip(all.storage.load("k"))
          expect(logged.slice(2).map((line) => /for 30s; (.*)\. The last/.exec(line)?.[1])).toEqual([
            "Chaos(B) is used instead",
            "there is no other"
          ])
        }),
        Logger.add(logger)
      )
    }))

  it.effect("sends writes to an open primary, counts their failures, and closes when one succeeds", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(0, [{ times: 6 }])
      const writes = [
        storage.save("k", bytes(10)),
        storage.save("k", Stream.make(bytes(10))),
        storage.remove("k"),
        storage.removeAll(["k"]),
        storage.copy("k", "new"),
        storage.move("k", "new")
      ]
      for (const write of writes) {
        expect(yield* Effect.flip<unknown, StorageError.StorageError, never>(write)).toMatchObject(aIsDown)
      }
      expect(requests(log, "A")).toBe(6)
      expect(requests(log, "B")).toBe(0)
      yield* storage.load("k")
      expect(requests(log, "A")).toBe(6)
      yield* storage.save("k", bytes(3))
      expect(yield* storage.load("k")).toEqual(bytes(3))
    }))

  it.effect("does not stay open longer for a write that fails while it is open", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(5, [{ operation: "load", times: 5 }, { operation: "save" }])
      yield* TestClock.adjust("20 seconds")
      yield* Effect.flip(storage.save("k", bytes(1)))
      yield* TestClock.adjust("10 seconds")
      log.length = 0
      yield* storage.load("k")
      expect(log).toEqual(["A load"])
    }))

  it.effect("does not count failures of the source of a save, even if they are those of a storage", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* afterLoads(0, [], { failureThreshold: 1 })
      const source = yield* setup({ a: dead, b: dead })
      for (let i = 0; i < 3; i++) {
        const error = yield* Effect.flip(storage.save("new", source.storage.stream("k")))
        expect(error).toMatchObject({ ...aIsDown, operation: "stream" })
      }
      log.length = 0
      yield* storage.load("k")
      expect(log).toEqual(["A load"])
      const own = new Error("mine")
      expect(yield* Effect.flip(storage.save("new", Stream.fail(own)))).toBe(own)
    }))
})

describe("StorageFailover, streams", () => {
  const broken = (afterBytes: number): StorageChaos.Rule => ({ operation: "open", afterBytes })

  it.effect("go on at the byte where they broke, with what broke closed before", () =>
    Effect.gen(function*() {
      const { a, b, log, storage } = yield* setup({ a: [broken(7)] })
      yield* saveOn([a, b], bytes(20))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20))
      expect(log).toEqual([
        "A open",
        "A close",
        `B open {"range":{"start":7,"endExclusive":20,"_tag":"Bounded"}}`,
        "B close"
      ])
    }))

  it.effect("go on within the range, and keep the metadata that was opened first", () =>
    Effect.gen(function*() {
      const { a, b, log, storage } = yield* setup({ a: [broken(2)] })
      yield* saveOn([a, b], bytes(20))
      yield* Effect.scoped(Effect.gen(function*() {
        const opened = yield* storage.open("k", { range: ByteRange.last(8), ifMatch: (yield* a.head("k")).etag })
        expect(opened.info).toEqual(yield* a.head("k"))
        expect(opened.range).toEqual({ start: 12, endExclusive: 20 })
        expect(yield* gather(opened.stream)).toEqual(bytes(20).slice(12))
      }))
      expect(log[2]).toBe(`B open {"range":{"start":14,"endExclusive":20,"_tag":"Bounded"}}`)
    }))

  it.effect("go on from storage to storage, and from a backup to the primary", () =>
    Effect.gen(function*() {
      const { a, b, c, log, storage } = yield* setup({
        a: [{ operation: "open" }, broken(4)],
        b: [broken(3)],
        c: []
      })
      yield* saveOn([a, b, c], bytes(20))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20))
      expect(log.filter((line) => line.includes("open")).map((line) => line.replace(/ open.*start":/, " "))).toEqual([
        "A open",
        "B open",
        `A 3,"endExclusive":20,"_tag":"Bounded"}}`,
        `C 7,"endExclusive":20,"_tag":"Bounded"}}`
      ])
      expect(left(log)).toBe(0)
    }))

  it.effect.prop(
    "yield every byte once, or those before the failure, whatever the size and wherever they break",
    [
      FastCheck.integer({ min: 0, max: 300 }),
      FastCheck.tuple(...Array.from({ length: 3 }, () => FastCheck.option(FastCheck.integer({ min: 0, max: 120 }))))
    ],
    ([size, cuts]) =>
      Effect.gen(function*() {
        const [onA = [], onB = [], onC = []] = cuts.map((cut) => cut === null ? [] : [broken(cut)])
        const { a, b, c, log, storage } = yield* setup({ a: onA, b: onB, c: onC })
        yield* saveOn([a, b, c], bytes(size))
        const parts: Array<Uint8Array> = []
        const result = yield* storage.stream("k").pipe(
          Stream.runForEach((part) => Effect.sync(() => void parts.push(part))),
          Effect.either
        )
        const reach = cuts.reduce<number>((sum, cut) => sum + (cut ?? Infinity), 0)
        expect(Buffer.concat(parts).equals(bytes(Math.min(size, reach)))).toBe(true)
        expect(Either.isRight(result)).toBe(reach >= size)
        if (Either.isLeft(result)) expect(result.left).toMatchObject(aIsDown)
        expect(left(log)).toBe(0)
      }),
    { fastCheck: { numRuns: 200 } }
  )

  it.effect("fail with the first failure where no other storage has the same object, and never join two", () =>
    Effect.gen(function*() {
      const others: ReadonlyArray<
        readonly [string, (b: Storage.Service) => Effect.Effect<unknown, StorageError.SaveError>]
      > = [
        ["other bytes, as many", (b) => b.save("k", bytes(20).reverse())],
        ["fewer bytes", (b) => b.save("k", bytes(6))],
        ["more bytes", (b) => b.save("k", bytes(30))],
        ["none", () => Effect.void]
      ]
      for (const [what, saveOther] of others) {
        const { a, b, log, storage } = yield* setup({ a: [broken(7)], c: [{ times: Infinity }] })
        yield* saveOn([a], bytes(20))
        yield* saveOther(b)
        const parts: Array<Uint8Array> = []
        const error = yield* storage.stream("k").pipe(
          Stream.runForEach((part) => Effect.sync(() => void parts.push(part))),
          Effect.flip
        )
        expect(error, what).toMatchObject(aIsDown)
        expect(parts, what).toEqual([bytes(7)])
        expect(["A", "B", "C"].map((letter) => requests(log, letter)), what).toEqual([1, 1, 1])
        expect(left(log), what).toBe(0)
      }
    }))

  it.effect("do not count it as a failure of a storage that it has a different object", () =>
    Effect.gen(function*() {
      const { a, b, log, storage } = yield* setup({ a: [{ ...broken(7), times: Infinity }] }, { failureThreshold: 1 })
      yield* saveOn([a], bytes(20))
      yield* saveOn([b], bytes(20).reverse())
      yield* Effect.flip(gather(storage.stream("k")))
      log.length = 0
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20).reverse())
      expect(log).toEqual(["B open", "B close"])
    }))

  it.effect("go on where the third storage has the same object, but the second has a different one", () =>
    Effect.gen(function*() {
      const { a, b, c, log, storage } = yield* setup({ a: [broken(7)], c: [] })
      yield* saveOn([a, c], bytes(20))
      yield* saveOn([b], bytes(20).reverse())
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20))
      expect(log.map((line) => line.slice(0, 7))).toEqual([
        "A open",
        "A close",
        "B open ",
        "B close",
        "C open ",
        "C close"
      ])
    }))

  it.effect("call no other storage where neither etag nor checksum identifies the content", () =>
    Effect.gen(function*() {
      const [a, b] = [yield* MemoryStorage.make(), yield* MemoryStorage.make()]
      yield* saveOn([a, b], bytes(20))
      expect((yield* a.head("k")).etag).toBe((yield* b.head("k")).etag)
      const log: Array<string> = []
      const storage = yield* StorageFailover.make([yield* unreliable(a, [broken(7)]), recording(b, "B", log)])
      expect(yield* Effect.flip(gather(storage.stream("k")))).toMatchObject({ reason: "Memory is down" })
      expect(log).toEqual([])
    }))

  it.effect("compare checksums where the etags do not identify the content", () =>
    Effect.gen(function*() {
      const summed = (name: string, value: string) => {
        const { backend } = inMemory(name, () => name)
        return Storage.make({
          ...backend,
          open: (key, options) =>
            Effect.map(backend.open(key, options), (opened) => ({
              ...opened,
              info: { ...opened.info, checksum: { algorithm: "CRC32C" as const, value } }
            }))
        })
      }
      for (const [value, goesOn] of [["same", true], ["other", false]] as const) {
        const [a, b] = [summed("A", "same"), summed("B", value)]
        yield* saveOn([a, b], bytes(20))
        const storage = yield* StorageFailover.make([yield* StorageChaos.make(a, [broken(7)]), b])
        const result = yield* Effect.either(gather(storage.stream("k")))
        if (goesOn) expect(result).toEqual(Either.right(bytes(20)))
        else expect(Either.isLeft(result)).toBe(true)
      }
    }))

  it.effect("fail where there is no failover, and where the bytes so far may be corrupt", () =>
    Effect.gen(function*() {
      const denied = (struck: StorageChaos.Target) => new StorageError.AccessDenied({ ...struck, reason: "no" })
      const corrupt = (struck: StorageChaos.Target) =>
        new StorageError.CorruptObject({ ...struck, problem: "checksum", reason: "wrong" })
      for (const [error, shouldFailover] of [[denied, StorageFailover.isDown], [corrupt, () => true]] as const) {
        for (const afterBytes of [7, 20]) {
          const { a, b, log, storage } = yield* setup({ a: [failing(error, { operation: "open", afterBytes })] }, {
            shouldFailover
          })
          yield* saveOn([a, b], bytes(20))
          expect((yield* Effect.flip(gather(storage.stream("k"))))._tag).not.toBe("StorageUnavailable")
          expect(requests(log, "B")).toBe(0)
        }
      }
    }))

  it.effect("end where all bytes arrived and only the end broke", () =>
    Effect.gen(function*() {
      const { a, log, storage } = yield* setup({ a: [broken(20)] })
      yield* saveOn([a], bytes(20))
      expect(yield* gather(storage.stream("k"))).toEqual(bytes(20))
      expect(requests(log, "B")).toBe(0)
    }))

  it.effect("leave nothing open when they are abandoned, before and after they went on", () =>
    Effect.gen(function*() {
      for (const chunks of [1, 2]) {
        const { a, b, log, storage } = yield* setup({ a: [broken(7)] })
        yield* saveOn([a, b], bytes(20))
        yield* Stream.runDrain(Stream.take(storage.stream("k"), chunks))
        yield* Effect.flip(Stream.runDrain(Stream.mapEffect(storage.stream("k"), () => Effect.fail("enough"))))
        const fiber = yield* Effect.fork(Stream.runForEach(storage.stream("k"), () => Effect.never))
        yield* Effect.repeatN(Effect.yieldNow(), 20)
        yield* Fiber.interrupt(fiber)
        expect(left(log)).toBe(0)
        expect(requests(log, "B")).toBe(chunks - 1)
      }
    }))

  it.effect("list elsewhere before the first page, and otherwise fail", () =>
    Effect.gen(function*() {
      const [a, b] = [inMemory("A"), inMemory("B")]
      yield* Effect.forEach(["a", "b"], (key) => saveOn([a, b], bytes(1), key))
      yield* saveOn([b], bytes(1), "c")
      for (const arrived of [0, 1, 2]) {
        const log: Array<string> = []
        const down = new StorageError.StorageUnavailable({ reason: "down" })
        const cut = <A>(listing: Stream.Stream<A, StorageError.ListError>) =>
          Stream.concat(Stream.take(listing, arrived), Stream.fail(down))
        const storage = yield* StorageFailover.make([
          recording(
            Storage.make({
              ...a.backend,
              entries: (options) => cut(a.backend.entries(options)),
              keys: (options) => cut(a.backend.keys(options))
            }),
            "A",
            log
          ),
          recording(b, "B", log)
        ])
        const entries = Effect.map(Stream.runCollect(storage.entries()), (all) =>
          Chunk.toArray(all).map(({ key }) => key))
        for (const listing of [entries, storage.list()]) {
          if (arrived === 0) {
            expect(yield* listing).toEqual(["a", "b", "c"])
          } else expect(yield* Effect.flip(listing)).toMatchObject({ reason: "down" })
        }
        expect(requests(log, "B")).toBe(arrived === 0 ? 2 : 0)
        expect(left(log)).toBe(0)
      }
    }))

  it.effect("list any number of objects, also none", () =>
    Effect.gen(function*() {
      const { a, log, storage } = yield* setup({})
      expect(yield* storage.list()).toEqual([])
      const keys = Array.from({ length: 5000 }, (_, i) => String(i).padStart(5, "0"))
      yield* Effect.forEach(keys, (key) => a.save(key, bytes(0)))
      expect(yield* storage.list()).toEqual(keys)
      expect(Chunk.size(yield* Stream.runCollect(Stream.take(storage.entries(), 3)))).toBe(3)
      expect(left(log)).toBe(0)
    }))
})

describe("StorageFailover, writes on the primary", () => {
  it.effect("writes nothing on a backup, and fails as the primary does", () =>
    Effect.gen(function*() {
      const { a, b, log, storage } = yield* setup({})
      yield* storage.save("k", bytes(3), { ifNoneMatch: "*" })
      yield* storage.save("l", Stream.make(bytes(4)), { size: 4 })
      yield* storage.copy("k", "m")
      yield* storage.move("l", "n")
      yield* storage.remove("k")
      yield* storage.removeAll(["n"])
      expect(yield* a.list()).toEqual(["m"])
      expect(yield* b.list()).toEqual([])
      expect(requests(log, "B")).toBe(0)
      const { etag } = yield* a.head("m")
      expect((yield* Effect.flip(storage.save("m", bytes(1), { ifMatch: "other" })))._tag).toBe("PreconditionFailed")
      expect((yield* storage.save("m", bytes(1), { ifMatch: etag })).size).toBe(1)
    }))
})

describe("StorageFailover, writes on all", () => {
  const toAll = (
    rules: { readonly a?: Rules; readonly b?: Rules; readonly c?: Rules } = {},
    outcomes: Array<StorageFailover.Outcome> = []
  ) =>
    setup({ c: [], ...rules }, {
      writes: "all",
      onWrite: (written) => Effect.sync(() => void outcomes.push(...written))
    })

  /** Every write of objects `k` and `l`, with the keys afterwards. */
  const writes: ReadonlyArray<
    readonly [
      operation: StorageFailover.Write,
      keys: ReadonlyArray<string>,
      run: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>,
      after: ReadonlyArray<string>
    ]
  > = [
    ["save", ["k"], (storage) => storage.save("k", bytes(30)), ["k", "l"]],
    ["save", ["new"], (storage) => storage.save("new", Stream.make(bytes(3), bytes(4))), ["k", "l", "new"]],
    ["remove", ["k"], (storage) => storage.remove("k"), ["l"]],
    ["removeAll", ["k", "x", "l"], (storage) => storage.removeAll(["k", "x", "l"]), []],
    ["copy", ["new"], (storage) => storage.copy("k", "new"), ["k", "l", "new"]],
    ["move", ["k", "new"], (storage) => storage.move("k", "new"), ["l", "new"]]
  ]

  const saved = (storages: ReadonlyArray<Storage.Service>) =>
    Effect.zipRight(saveOn(storages, bytes(10)), saveOn(storages, bytes(20), "l"))

  const contents = (storage: Storage.Service) =>
    Effect.flatMap(
      storage.list(),
      (keys) => Effect.forEach(keys, (key) => Effect.map(storage.load(key), (b) => [key, b]))
    )

  it.effect("writes the same on every storage, returns what the primary returns, and calls onWrite with the outcomes", () =>
    Effect.forEach(writes, ([operation, keys, run, after]) =>
      Effect.gen(function*() {
        const outcomes: Array<StorageFailover.Outcome> = []
        const { a, b, c, storage } = yield* toAll({}, outcomes)
        const alone = inMemory("Alone")
        yield* saved([a, b, c, alone])
        expect(yield* run(storage), operation).toEqual(yield* run(alone))
        for (const each of [a, b, c]) expect(yield* contents(each), operation).toEqual(yield* contents(alone))
        expect(yield* b.list()).toEqual(after)
        expect(outcomes).toEqual(
          ["A", "B", "C"].map((name) => ({ backend: `Chaos(${name})`, operation, keys, failures: [] }))
        )
      })))

  it.effect("writes on every storage, also where its breaker is open", () =>
    Effect.forEach(writes, ([operation, , run, after]) =>
      Effect.gen(function*() {
        const { a, b, c, storage } = yield* toAll({
          a: [{ operation: "head", times: 5 }],
          b: [{ operation: "head", times: 5 }]
        })
        yield* saved([a, b, c])
        yield* Effect.replicateEffect(storage.exists("k"), 6)
        yield* run(storage)
        for (const each of [a, b, c]) expect(yield* each.list(), operation).toEqual(after)
      })))

  it.effect("writes on no backup where the primary fails", () =>
    Effect.forEach(writes, ([operation, , run]) =>
      Effect.gen(function*() {
        const outcomes: Array<StorageFailover.Outcome> = []
        const denied = (struck: StorageChaos.Target) => new StorageError.AccessDenied({ ...struck, reason: "no" })
        const { a, b, c, log, storage } = yield* toAll({ a: [failing(denied, { operation })] }, outcomes)
        yield* saved([a, b, c])
        expect(yield* Effect.flip(run(storage)), operation).toMatchObject({ _tag: "AccessDenied", reason: "no" })
        expect([requests(log, "B"), requests(log, "C"), outcomes.length]).toEqual([0, 0, 0])
      })))

  it.effect("fails with the failure of a backup when all were tried, with the backup in its cause and in the outcomes", () =>
    Effect.forEach(writes, ([operation, keys, run, after]) =>
      Effect.gen(function*() {
        const outcomes: Array<StorageFailover.Outcome> = []
        const { a, b, c, storage } = yield* toAll({ b: dead }, outcomes)
        yield* saved([a, b, c])
        const before = yield* contents(b)
        const error = yield* Effect.flip(run(storage))
        expect(error, operation).toMatchObject({
          _tag: "StorageUnavailable",
          backend: "Failover(Chaos(A), Chaos(B), Chaos(C))",
          reason: "B is down",
          cause: { _tag: "StorageUnavailable", backend: "Chaos(B)", operation }
        })
        expect(yield* a.list()).toEqual(after)
        expect(yield* contents(c)).toEqual(yield* contents(a))
        expect(yield* contents(b)).toEqual(before)
        expect(outcomes).toEqual([
          { backend: "Chaos(A)", operation, keys, failures: [] },
          { backend: "Chaos(B)", operation, keys, failures: [error.cause] },
          { backend: "Chaos(C)", operation, keys, failures: [] }
        ])
      })))

  it.effect("replicates attributes to backups that keep them", () =>
    Effect.gen(function*() {
      const attributes = { contentType: "a/b" }
      const [a, b, c] = [inMemory("A"), inMemory("B"), inMemory("C")]
      const { capabilities } = c.backend
      const without = Storage.make({ ...c.backend, capabilities: { ...capabilities, attributes: false } })
      const storage = yield* StorageFailover.make([a, b, without], { writes: "all" })
      yield* storage.save("bytes", bytes(3), { attributes })
      yield* storage.save("stream", Stream.make(bytes(3)), { attributes })
      yield* storage.copy("bytes", "copy")
      for (const key of ["bytes", "stream", "copy"]) {
        expect((yield* b.head(key)).attributes, key).toEqual(attributes)
        expect((yield* c.head(key)).attributes, key).toBe(undefined)
      }
    }))

  it.effect("applies preconditions on the primary alone", () =>
    Effect.gen(function*() {
      const { a, b, c, log, storage } = yield* toAll()
      yield* saveOn([b], bytes(5))
      yield* storage.save("k", bytes(10), { ifNoneMatch: "*", size: 10 })
      const { etag } = yield* a.head("k")
      yield* saveOn([b], bytes(5))
      yield* storage.save("k", Stream.make(bytes(11)), { ifMatch: etag })
      for (const each of [a, b, c]) expect(yield* each.load("k")).toEqual(bytes(11))
      yield* saveOn([b], bytes(5), "new")
      yield* storage.copy("k", "new", { ifNoneMatch: "*" })
      expect(yield* b.load("new")).toEqual(bytes(11))
      expect(log.filter((line) => line.startsWith("A save"))).toEqual([
        `A save bytes {"ifNoneMatch":"*","size":10}`,
        `A save stream {"ifMatch":"${etag}"}`
      ])
      expect(log.filter((line) => line.startsWith("B save"))).toEqual([
        "B save bytes {}",
        `B save bytes {"size":11}`,
        `B save bytes {"size":11}`
      ])
    }))

  it.effect("runs the source of a save once, and reads the object back from the primary by its etag", () =>
    Effect.gen(function*() {
      const { log, storage } = yield* toAll()
      let runs = 0
      const source = Stream.concat(Stream.execute(Effect.sync(() => void runs++)), Stream.make(bytes(5), bytes(5)))
      const { etag } = yield* storage.save("k", source)
      expect(runs).toBe(1)
      expect(log.filter((line) => line.startsWith("A open"))).toEqual(Array(2).fill(`A open {"ifMatch":"${etag}"}`))
      expect(left(log)).toBe(0)
    }))

  it.effect("saves nothing anywhere when the source fails", () =>
    Effect.gen(function*() {
      const { a, log, storage } = yield* toAll()
      const own = new Error("mine")
      const source = Stream.concat(Stream.make(bytes(5)), Stream.fail(own))
      expect(yield* Effect.flip(storage.save("k", source))).toBe(own)
      expect(yield* a.list()).toEqual([])
      expect(requests(log, "B")).toBe(0)
    }))

  it.effect("does not count it as a failure of a backup that the primary cannot be read back", () =>
    Effect.gen(function*() {
      const outcomes: Array<StorageFailover.Outcome> = []
      const { b, c, log, storage } = yield* toAll(
        { a: [{ operation: "open", times: Infinity, afterBytes: 3 }] },
        outcomes
      )
      for (let i = 0; i < 6; i++) {
        const error = yield* Effect.flip(storage.save("k", Stream.make(bytes(10))))
        expect(error).toMatchObject(aIsDown)
      }
      expect(outcomes.map(({ failures }) => failures.length)).toEqual(Array(6).fill([0, 1, 1]).flat())
      expect(yield* b.list()).toEqual([])
      // The breakers of the backups are closed.
      yield* saveOn([b, c], bytes(10))
      log.length = 0
      yield* storage.copy("k", "l").pipe(Effect.flip)
      expect(log.filter((line) => !line.startsWith("A")).sort()).toEqual([
        "B save stream {\"size\":10}",
        "C save stream {\"size\":10}"
      ])
    }))

  it.effect("leaves an object that was overwritten or removed since to that write", () =>
    Effect.gen(function*() {
      const [a, b] = [inMemory("A"), inMemory("B")]
      for (const meanwhile of [Effect.asVoid(a.save("k", bytes(7))), a.remove("k")]) {
        const raced = Storage.make({
          ...a.backend,
          save: (key, data, options) => Effect.zipLeft(a.backend.save(key, data, options), Effect.orDie(meanwhile))
        })
        const storage = yield* StorageFailover.make([raced, b], { writes: "all" })
        expect((yield* storage.save("k", Stream.make(bytes(10)))).size).toBe(10)
        expect(yield* b.list()).toEqual([])
      }
    }))

  it.effect("keeps writes of one key in one order on all, and lets others pass", () =>
    Effect.gen(function*() {
      const slow: StorageChaos.Rule = { operation: "save", key: "k", delay: "1 second", error: "none" }
      const { a, b, c, log, storage } = yield* toAll({ b: [slow] })
      yield* saveOn([a, b, c], bytes(9), "other")
      const writes: ReadonlyArray<Effect.Effect<unknown, StorageError.StorageError>> = [
        storage.save("k", bytes(10)),
        storage.copy("other", "k"),
        storage.backend.removeAll(["k", "k"]),
        storage.save("k", bytes(12)),
        storage.save("k", Stream.make(bytes(11)))
      ]
      const fibers = yield* Effect.forEach(writes, (write) => Effect.fork(write))
      yield* storage.copy("other", "l")
      yield* storage.move("l", "m")
      expect(yield* b.list()).toEqual(["m", "other"])
      // The stream is on the primary already: a source may take any time, so others do not wait for it.
      expect(log.filter((line) => line.startsWith("A save"))).toEqual(["A save bytes {}", "A save stream {}"])
      expect(yield* a.load("k")).toEqual(bytes(11))
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
      expect(yield* contents(a)).toEqual([["k", bytes(12)], ["m", bytes(9)], ["other", bytes(9)]])
      expect(yield* contents(b)).toEqual(yield* contents(a))
      expect(yield* contents(c)).toEqual(yield* contents(a))
    }))

  it.live("leaves all storages equal after mixed writes, ten at a time", () =>
    Effect.gen(function*() {
      const wait = Effect.flatMap(Effect.sync(() => Math.floor(Math.random() * 4)), (n) =>
        Effect.repeatN(Effect.yieldNow(), n))
      const jittery = (name: string) => {
        const { backend } = inMemory(name)
        return Storage.make({
          ...backend,
          save: (key, data, options) =>
            Effect.zipRight(wait, Effect.zipLeft(backend.save(key, data, options), wait)),
          remove: (key, options) => Effect.zipRight(wait, Effect.zipLeft(backend.remove(key, options), wait)),
          removeAll: (keys) => Effect.zipRight(wait, Effect.zipLeft(backend.removeAll(keys), wait))
        })
      }
      const [a, b, c] = [jittery("A"), jittery("B"), jittery("C")]
      const storage = yield* StorageFailover.make([a, b, c], { writes: "all" })
      const key = (n: number) => `k${n % 4}`
      const write = (n: number): Effect.Effect<unknown, StorageError.StorageError> => {
        switch (n % 6) {
          case 0:
            return storage.remove(key(n))
          case 1:
            return storage.copy(key(n), key(n + 1))
          case 2:
            return storage.move(key(n), key(n + 3))
          case 3:
            return storage.removeAll([key(n), key(n + 2)])
          case 4:
            return storage.save(key(n), Stream.make(bytes(n), bytes(5)))
          default:
            return storage.save(key(n), bytes(n))
        }
      }
      for (let round = 0; round < 100; round++) {
        yield* Effect.forEach(
          Array.from({ length: 10 }, (_, n) => round * 10 + n * 5),
          (n) => Effect.catchTag(write(n), "ObjectNotFound", () => Effect.void),
          { concurrency: "unbounded", discard: true }
        )
        expect(yield* contents(b)).toEqual(yield* contents(a))
        expect(yield* contents(c)).toEqual(yield* contents(a))
      }
    }))

  it.effect("returns one failure for each key that was not removed everywhere", () =>
    Effect.gen(function*() {
      const outcomes: Array<StorageFailover.Outcome> = []
      const ofKey = (key: string): StorageChaos.Rule => ({ operation: "removeAll", key })
      const { a, b, c, log, storage } = yield* toAll(
        { a: [ofKey("p")], b: [ofKey("q"), ofKey("r")], c: [ofKey("r")] },
        outcomes
      )
      for (const key of ["p", "q", "r", "s"]) yield* saveOn([a, b, c], bytes(1), key)
      const { failed, removed } = yield* storage.removeAll(["p", "q", "r", "s"])
      expect(removed).toBe(1)
      expect(failed).toMatchObject([
        { key: "p", reason: "A is down" },
        { key: "q", cause: { backend: "Chaos(B)", key: "q" } },
        { key: "r", cause: { backend: "Chaos(B)", key: "r" } }
      ])
      expect([yield* a.list(), yield* b.list(), yield* c.list()]).toEqual([["p"], ["p", "q", "r"], ["p", "r"]])
      expect(log).toContain(`B removeAll ["q","r","s"]`)
      expect(outcomes.map(({ failures }) => failures.map(({ key }) => key))).toEqual([["p"], ["q", "r"], ["r"]])
    }))

  it.effect("does not remove the source of a move from a backup that lacks the target", () =>
    Effect.gen(function*() {
      const { a, b, c, storage } = yield* toAll({ b: [{ operation: "save" }] })
      yield* saveOn([a, b, c], bytes(10))
      expect(yield* Effect.flip(storage.move("k", "new"))).toMatchObject({ reason: "B is down" })
      expect([yield* a.list(), yield* b.list(), yield* c.list()]).toEqual([["new"], ["k"], ["new"]])
    }))
})

StorageContract.suite("StorageFailover(Memory, Memory)", {
  layer: StorageFailover.layer([MemoryStorage.layer(), MemoryStorage.layer()])
})
