/**
 * Compressed and encrypted objects in a real browser, which has other implementations of DEFLATE and AES than Node.
 */
import { describe, expect } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { createHash } from "node:crypto"
import { MemoryStorage, Safetensors, Storage, StorageCompression, StorageEncryption } from "surfing-weights"
import { browser, inBrowser, openTab, pageOf, perform } from "../support/chromium.js"
import { serveOf } from "../support/weightServer.js"

const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

/** Compressible weights: the upper bytes are nearly the same. */
const weights = Uint16Array.from({ length: 512 * 256 }, (_, index) => 0x3c00 + (index * 7919) % 512)

const setup = Effect.gen(function*() {
  const memory = yield* MemoryStorage.make()
  const address = yield* pageOf("test/browser/formats.ts")
  const { url: server } = yield* serveOf(memory, { writable: true, origins: [address] })
  const { context } = yield* browser
  return { memory, server, tab: yield* openTab(context, address), layer: Layer.succeed(Storage.Storage, memory) }
})

const text = new TextEncoder().encode(JSON.stringify(Array.from({ length: 20_000 }, (_, index) => [`token ${index}`])))

describe("Chromium", () => {
  inBrowser.scopedLive("reads a compressed safetensors file", () =>
    Effect.gen(function*() {
      const { layer, memory, server, tab } = yield* setup
      const tensors: ReadonlyArray<Safetensors.TensorSource> = [
        { name: "a", dtype: "BF16", shape: [512, 256], data: weights },
        { name: "b", dtype: "F32", shape: [10, 100], data: Float32Array.from({ length: 1000 }, (_, i) => 1 / (i + 1)) }
      ]
      yield* Effect.provide(Safetensors.save("model.safetensors", tensors, { compress: true }), layer)
      // Otherwise nothing was compressed.
      expect((yield* memory.head("model.safetensors")).size).toBeLessThan(0.8 * weights.byteLength)
      const expected = yield* Effect.provide(
        Effect.gen(function*() {
          const file = yield* Safetensors.open("model.safetensors")
          return yield* Effect.forEach(["a", "b"], (name) =>
            Effect.gen(function*() {
              const whole = hashOf((yield* file.load(name)).bytes)
              return [name, whole, hashOf((yield* file.loadSlice(name, 3, 5)).bytes)]
            }))
        }),
        layer
      )
      expect(expected[0]?.[1]).toBe(hashOf(new Uint8Array(weights.buffer)))
      const actual = yield* perform(tab, "tensors", { server, key: "model.safetensors" })
      expect(actual).toHaveLength(expected.length)
      expect(actual).toEqual(expect.arrayContaining(expected))
    }))

  const secret = Array.from({ length: 32 }, (_, index) => index)
  const wrappers: ReadonlyArray<readonly [string, Layer.Layer<Storage.Storage, unknown, Storage.Storage>]> = [
    ["compression", StorageCompression.layer()],
    [
      "encryption",
      StorageEncryption.layer({ keys: [{ id: "test", secret: Redacted.make(Uint8Array.from(secret)) }] })
    ]
  ]
  for (const [name, wrapper] of wrappers) {
    inBrowser.scopedLive(
      `reads through Storage${name === "compression" ? "Compression" : "Encryption"} and saves`,
      () =>
        Effect.gen(function*() {
          const { layer, memory, server, tab } = yield* setup
          const key = "tokenizer.json"
          const wrapped = Layer.provide(wrapper, layer)
          yield* Effect.provide(Storage.save(key, text), wrapped)
          expect(hashOf(yield* memory.load(key))).not.toBe(hashOf(text))
          const hash = hashOf(text)
          expect(yield* perform(tab, name, { server, key, secret })).toEqual({
            loaded: hash,
            range: [...text.subarray(100_000, 100_010)],
            streamed: hash
          })
          expect(hashOf(yield* memory.load(`${key}-from-the-browser`))).not.toBe(hash)
          expect(hashOf(yield* Effect.provide(Storage.load(`${key}-from-the-browser`), wrapped))).toBe(hash)
        })
    )
  }
})
