/**
 * A storage between a wrapper and what it wraps, to see what is asked of it and to have each operation take as long as
 * a test wants; and every operation of a backend once, for rules that hold for all of them.
 */
import { Effect, Stream, Struct } from "effect"
import type { StorageChaos, StorageError } from "surfing-weights"
import { ByteRange, MemoryStorage, Storage } from "surfing-weights"

export type Operation = StorageChaos.Operation

/** An operation as it was asked for. */
export interface Call {
  readonly operation: Operation
  readonly args: ReadonlyArray<unknown>
}

export interface Hooks {
  /** What becomes of an operation; of streams and listings, of their opening. */
  readonly around?: <A, E, R>(effect: Effect.Effect<A, E, R>, call: Call) => Effect.Effect<A, E, R>
  /** What becomes of a stream that was opened, or of a listing. */
  readonly through?: <A, E>(stream: Stream.Stream<A, E>, call: Call) => Stream.Stream<A, E>
}

/** The same storage under these hooks, which also gives URLs. */
export const intercepting = (
  { backend }: Storage.Service,
  { around = (effect) => effect, through = (stream) => stream }: Hooks
): Storage.Service => {
  const listing = <A, E>(stream: Stream.Stream<A, E>, call: Call) =>
    Stream.unwrap(Effect.as(around(Effect.void, call), through(stream, call)))
  return Storage.make({
    name: backend.name,
    capabilities: { ...backend.capabilities, presign: true },
    open: (...args) => {
      const call: Call = { operation: "open", args }
      const opening = Effect.map(backend.open(...args), (opened) => ({
        info: opened.info,
        range: opened.range,
        stream: through(opened.stream, call)
      }))
      return around(opening, call)
    },
    load: (...args) => around(backend.load(...args), { operation: "load", args }),
    loadRanges: (...args) => around(backend.loadRanges(...args), { operation: "loadRanges", args }),
    head: (...args) => around(backend.head(...args), { operation: "head", args }),
    save: (...args) => around(backend.save(...args), { operation: "save", args }),
    entries: (...args) => listing(backend.entries(...args), { operation: "entries", args }),
    keys: (...args) => listing(backend.keys(...args), { operation: "keys", args }),
    listDirectory: (...args) => around(backend.listDirectory(...args), { operation: "listDirectory", args }),
    remove: (...args) => around(backend.remove(...args), { operation: "remove", args }),
    removeAll: (...args) => around(backend.removeAll(...args), { operation: "removeAll", args }),
    copy: (...args) => around(backend.copy(...args), { operation: "copy", args }),
    move: (...args) => around(backend.move(...args), { operation: "move", args }),
    presign: (...args) => around(Effect.succeed("https://storage.test/"), { operation: "presign", args })
  })
}

/** The same storage, which writes down what it is asked for. */
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
  save: (storage) => storage.save("new", pattern(5), { ifNoneMatch: "*", size: 5 }),
  entries: (storage) => Stream.runCollect(storage.entries({ prefix: "k", startAfter: "k/a" })),
  keys: (storage) => storage.list("k/"),
  listDirectory: (storage) => storage.listDirectory("k"),
  remove: (storage) => storage.remove("k"),
  removeAll: (storage) => storage.removeAll(["k", "k/a", "missing"]),
  copy: (storage) => storage.copy("k", "new", { ifNoneMatch: "*" }),
  move: (storage) => storage.move("k", "k/c", { ifNoneMatch: "*" }),
  presign: (storage) => storage.presign("k", { method: "GET", expiresIn: "1 hour" })
}

/** Every operation of a backend, as a user asks for it. */
export const operations: ReadonlyArray<readonly [operation: Operation, run: Run]> = Struct.entries(runs)

/** Bytes that tell where they stand. */
export const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 31 + 7) % 251)

/** A memory storage in which each of `operations` succeeds, be it in a folder. */
export const filled = (folder = ""): Effect.Effect<Storage.Service, StorageError.SaveError> =>
  Effect.gen(function*() {
    const memory = yield* MemoryStorage.make()
    for (const key of ["k", "k/a", "k/b"]) yield* memory.save(folder + key, pattern(10))
    return memory
  })
