/**
 * A storage between a wrapper and what it wraps, to record its calls and to change how long each operation takes; and every
 * operation of a backend once, for rules that hold for all of them.
 */
import { Effect, Stream, Struct } from "effect"
import type { StorageChaos, StorageError } from "surfing-weights"
import { ByteRange, MemoryStorage, Storage, StorageBackend } from "surfing-weights"

export type Operation = StorageChaos.Operation

/** A call of an operation. */
export interface Call {
  readonly operation: Operation
  readonly args: ReadonlyArray<unknown>
}

export interface Hooks {
  /** Wraps every operation; of streams and listings, their opening. */
  readonly around?: <A, E, R>(effect: Effect.Effect<A, E, R>, call: Call) => Effect.Effect<A, E, R>
  /** Wraps the stream of each opened object, which is then not in memory, and each listing. */
  readonly through?: <A, E>(stream: Stream.Stream<A, E>, call: Call) => Stream.Stream<A, E>
}

/** The same storage under these hooks, with presigned URLs. */
export const intercepting = (
  { backend }: Storage.Service,
  { around = (effect) => effect, through }: Hooks
): Storage.Service => {
  const on = (operation: Operation, args: ReadonlyArray<unknown>) => {
    const call: Call = { operation, args }
    return StorageBackend.intercept(backend, {
      name: backend.name,
      effect: (effect) => around(effect, call),
      stream: (stream) => {
        const changed = through === undefined ? stream : through(stream, call)
        return operation === "open" ? changed : Stream.unwrap(Effect.as(around(Effect.void, call), changed))
      }
    })
  }
  return Storage.make({
    name: backend.name,
    location: backend.location,
    capabilities: { ...backend.capabilities, presign: true },
    open: (...args) =>
      Effect.map(
        on("open", args).open(...args),
        (opened) => through === undefined ? opened : { ...opened, bytes: undefined }
      ),
    load: (...args) => on("load", args).load(...args),
    loadRanges: (...args) => on("loadRanges", args).loadRanges(...args),
    head: (...args) => on("head", args).head(...args),
    save: (...args) => on("save", args).save(...args),
    entries: (...args) => on("entries", args).entries(...args),
    keys: (...args) => on("keys", args).keys(...args),
    listDirectory: (...args) => on("listDirectory", args).listDirectory(...args),
    remove: (...args) => on("remove", args).remove(...args),
    removeAll: (...args) => on("removeAll", args).removeAll(...args),
    copy: (...args) => on("copy", args).copy(...args),
    move: (...args) => on("move", args).move(...args),
    presign: (...args) => around(Effect.succeed("https://storage.test/"), { operation: "presign", args })
  })
}

/** The same storage, which records its calls. */
export const noting = (inner: Storage.Service, calls: Array<Call>): Storage.Service =>
  intercepting(inner, {
    around: (effect, call) => Effect.zipRight(Effect.sync(() => void calls.push(call)), effect)
  })

type Run = (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>

const runs: Readonly<Record<Operation, Run>> = {
  open: (storage) => Stream.runCollect(storage.stream("k", { range: ByteRange.from(3) })),
  load: (storage) => storage.load("k", { range: ByteRange.last(4), ifNoneMatch: "other" }),
  loadRanges: (storage) => storage.loadRanges("k", [ByteRange.make(0, 2), ByteRange.last(1)], { ifNoneMatch: "other" }),
  head: (storage) => storage.head("k"),
  save: (storage) => storage.save("new", pattern(5), { ifNoneMatch: "*", size: 5, attributes: { contentType: "a/b" } }),
  entries: (storage) => Stream.runCollect(storage.entries({ prefix: "k", startAfter: "k/a" })),
  keys: (storage) => storage.list("k/"),
  listDirectory: (storage) => storage.listDirectory("k"),
  remove: (storage) => storage.remove("k", { ifMatch: "1" }),
  removeAll: (storage) => storage.removeAll(["k", "k/a", "missing"]),
  copy: (storage) => storage.copy("k", "new", { ifNoneMatch: "*" }),
  move: (storage) => storage.move("k", "k/c", { ifNoneMatch: "*" }),
  presign: (storage) => storage.presign("k", { method: "GET", expiresIn: "1 hour" })
}

/** Every operation of a backend, as a user calls it. */
export const operations: ReadonlyArray<readonly [operation: Operation, run: Run]> = Struct.entries(runs)

/** Bytes that show their position. */
export const pattern = (length: number): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(length)
  bytes.set(Uint8Array.from({ length: Math.min(length, 251) }, (_, i) => (i * 31 + 7) % 251))
  for (let filled = 251; filled < length; filled *= 2) bytes.copyWithin(filled, 0, filled)
  return bytes
}

/** A memory storage in which each of `operations` succeeds, also in a folder. */
export const filled = (folder = ""): Effect.Effect<Storage.Service, StorageError.SaveError> =>
  Effect.gen(function*() {
    const memory = yield* MemoryStorage.make()
    for (const key of ["k", "k/a", "k/b"]) yield* memory.save(folder + key, pattern(10))
    return memory
  })
