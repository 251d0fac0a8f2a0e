/**
 * Encrypted storages for tests, and what becomes of their objects.
 */
import { Effect, Redacted } from "effect"
import { MemoryStorage, type Storage, StorageEncryption } from "surfing-weights"
import { bytes } from "./content.js"
import { type Call, noting } from "./intercepting.js"

/** A master key, different for each id. */
export const keyOf = (id: string): StorageEncryption.SecretKey => ({
  id,
  secret: Redacted.make(bytes(32, id.length + 1))
})

/** An encrypted storage, and the store that holds the encrypted bytes and records its calls. */
export const setup = (...keys: ReadonlyArray<StorageEncryption.SecretKey | StorageEncryption.WrappingKey>) =>
  Effect.gen(function*() {
    const calls: Array<Call> = []
    const store = yield* MemoryStorage.make()
    const [first = keyOf("test"), ...others] = keys
    const storage = yield* StorageEncryption.make(noting(store, calls), { keys: [first, ...others] })
    return { calls, storage, store }
  })

/** Saves an object of which the store then has other bytes. */
export const saveDamaged = (
  storage: Storage.Service,
  store: Storage.Service,
  key: string,
  data: Uint8Array,
  damage: (stored: Uint8Array) => Uint8Array
) =>
  Effect.gen(function*() {
    yield* storage.save(key, data)
    yield* store.save(key, damage(yield* store.load(key)))
  })

/** The bytes that calls of `open` asked for, as `[start, end]`. */
export const rangesOf = (calls: ReadonlyArray<Call>): ReadonlyArray<unknown> =>
  calls.filter(({ operation }) => operation === "open").map(({ args: [, options] }) => {
    const { range } = options as Storage.StreamOptions
    return range === undefined ? "whole" : range._tag === "Bounded" ? [range.start, range.endExclusive] : range
  })
