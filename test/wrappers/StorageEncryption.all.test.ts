/**
 * Encryption at rest, beside another implementation of the format, and against thousands of damaged objects.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Stream } from "effect"
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { ByteRange, MemoryStorage, StorageEncryption } from "surfing-weights"
import { bytes, gather, MiB, print } from "../support/content.js"
import { setup } from "../support/encryption.js"

describe("StorageEncryption, 10,000 damaged objects", () => {
  /** Numbers that are the same in each run. */
  const numbers = (seed: number) => {
    let state = seed
    return (below: number) => {
      state = (state * 1_103_515_245 + 12_345) % 2 ** 31
      return Math.floor(state / 2 ** 31 * below)
    }
  }

  const damage = (stored: Uint8Array, other: Uint8Array, next: (below: number) => number): Uint8Array => {
    const at = next(stored.byteLength)
    switch (next(5)) {
      case 0:
        return stored.map((byte, i) => i === at ? byte ^ (1 << next(8)) : byte)
      case 1:
        return stored.slice(0, at)
      case 2:
        return Buffer.concat([stored, bytes(1 + next(40_000), 1)])
      case 3:
        // The start of one object, and the rest of another.
        return Buffer.concat([stored.subarray(0, at), other.subarray(at)])
      default: {
        const [from, length] = [next(stored.byteLength), 1 + next(20_000)]
        const moved = Buffer.concat([stored.subarray(0, at), stored.subarray(from, from + length), stored.subarray(at)])
        return moved.subarray(0, next(2) === 0 ? moved.byteLength : stored.byteLength)
      }
    }
  }

  it.live("are all CorruptObject, and give out no wrong byte, whole, as streams or by range", () =>
    Effect.gen(function*() {
      const { storage, store } = yield* setup()
      const next = numbers(7)
      let [damaged, correct] = [0, 0]
      while (damaged < 10_000) {
        const size = next(4) === 0 ? next(4) * 16_384 : next(70_000)
        const plain = bytes(size, 1)
        yield* storage.save("k", plain)
        yield* storage.save("other", bytes(size, 2))
        const [stored, other] = [yield* store.load("k"), yield* store.load("other")]
        for (let i = 0; i < 50; i++) {
          const changed = damage(stored, other, next)
          if (Buffer.from(changed).equals(stored)) continue
          damaged++
          yield* store.save("k", changed)
          const error = yield* Effect.flip(storage.load("k"))
          expect(error, error.message).toMatchObject({ _tag: "CorruptObject", key: "k" })
          if (i % 2 === 0) {
            const read: Array<Uint8Array> = []
            const streamed = storage.stream("k").pipe(Stream.runForEach((part) => Effect.sync(() => read.push(part))))
            expect(yield* Effect.flip(streamed)).toMatchObject({ _tag: "CorruptObject" })
            const received = Buffer.concat(read)
            expect(received.equals(plain.subarray(0, received.byteLength))).toBe(true)
            continue
          }
          const start = next(size + 1)
          const end = start + 1 + next(20_000)
          const ranged = yield* Effect.either(storage.load("k", { range: ByteRange.make(start, end) }))
          if (ranged._tag === "Left") expect(["CorruptObject", "InvalidRange"]).toContain(ranged.left._tag)
          else {
            // Chunks that are intact are given out.
            expect(Buffer.from(ranged.right).equals(plain.subarray(start, end))).toBe(true)
            correct++
          }
        }
      }
      expect(correct).toBeGreaterThan(100)
    }))
})

const program = fileURLToPath(new URL("../support/encryption.py", import.meta.url))
const python = process.env["CRYPTOGRAPHY_PYTHON"] ?? "python3"
const secret = bytes(32, 5)

const runPython = (operation: "decrypt" | "encrypt", key: string, input: Uint8Array) => {
  const args = [program, operation, Buffer.from(secret).toString("hex"), key]
  return spawnSync(python, args, { input, maxBuffer: 100 * MiB })
}

// Skipped without the Python package `cryptography`, 50 or later.
describe.skipIf(runPython("encrypt", "k", bytes(1)).status !== 0)("StorageEncryption and Python's cryptography", () => {
  const keys = [{ id: "python", secret: Redacted.make(secret) }] as const
  const sizes = [0, 1, 16_383, 16_384, 16_385, 100_000, 64 * 16_384, 9 * MiB + 7]

  it.live("read what the other one wrote, whole, as a stream and by range", () =>
    Effect.gen(function*() {
      const store = yield* MemoryStorage.make()
      const storage = yield* StorageEncryption.make(store, { keys })
      for (const size of sizes) {
        const key = `folder/größe ${size}`
        const plain = bytes(size, 6)
        yield* store.save(key, runPython("encrypt", key, plain).stdout)
        expect((yield* storage.head(key)).size).toBe(size)
        expect(print(yield* storage.load(key))).toBe(print(plain))
        expect(print(yield* gather(storage.stream(key)))).toBe(print(plain))
        for (const start of [0, 1, 16_380, 50_000, 64 * 16_384 - 1].filter((start) => start < size)) {
          const range = ByteRange.make(start, start + 20_000)
          expect(print(yield* storage.load(key, { range }))).toBe(print(plain.slice(start, start + 20_000)))
        }
        yield* storage.save(key, size % 2 === 0 ? plain : Stream.make(plain))
        const { status, stderr, stdout } = runPython("decrypt", key, yield* store.load(key))
        expect([status, stderr.toString()]).toEqual([0, ""])
        expect(print(stdout)).toBe(print(plain))
        expect(runPython("decrypt", `${key}!`, yield* store.load(key)).status).not.toBe(0)
      }
    }))

  it.live("agree that damaged objects are damaged", () =>
    Effect.gen(function*() {
      const store = yield* MemoryStorage.make()
      const storage = yield* StorageEncryption.make(store, { keys })
      yield* storage.save("k", bytes(50_000))
      const stored = yield* store.load("k")
      for (const at of [3, 20, 940, 970, 1000, 1030, 20_000, stored.byteLength - 1]) {
        const flipped = stored.map((byte, i) => i === at ? byte ^ 1 : byte)
        expect(runPython("decrypt", "k", flipped).status, `byte ${at}`).not.toBe(0)
      }
    }))
})
