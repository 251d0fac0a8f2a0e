/**
 * Compressed safetensors files for tests, and how they are damaged.
 */
import { expect } from "@effect/vitest"
import { Cause, Effect, Exit, Option } from "effect"
import { MemoryStorage, Safetensors, Storage } from "surfing-weights"
import { random } from "./realWeights.js"
import { fileOf, names, on, opened, sameBytes } from "./safetensorsFiles.js"

/** A file of these tensors, compressed. */
export const compressed = (tensors: ReadonlyArray<Safetensors.TensorSource>) =>
  Effect.gen(function*() {
    const storage = yield* MemoryStorage.make()
    yield* on(storage, Safetensors.save("model", tensors, { metadata: { format: "pt" }, compress: true }))
    return yield* storage.load("model")
  })

/** Each tensor of a file is that of another. */
export const hasSameTensors = (file: Safetensors.SafetensorsFile, original: Safetensors.SafetensorsFile) =>
  Effect.forEach(file.tensors.keys(), (name) =>
    Effect.gen(function*() {
      const { bytes, dtype, shape, values } = yield* file.load(name)
      const expected = yield* original.load(name)
      expect({ dtype, shape }, name).toEqual({ dtype: expected.dtype, shape: expected.shape })
      expect(sameBytes(bytes, expected.bytes), name).toBe(true)
      expect(values?.length, name).toBe(expected.values?.length)
    }))

/** The JSON of a file's header. */
export const header = (bytes: Uint8Array): string => {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true))
  return new TextDecoder().decode(bytes.subarray(8, 8 + length))
}

interface Description extends Record<string, unknown> {
  tensors: Record<string, Record<string, unknown>>
}

/** A compressed file whose description was changed. */
export const withDescription = (bytes: Uint8Array, change: (description: Description) => void): Uint8Array => {
  const json = header(bytes)
  const parsed = JSON.parse(json) as { __metadata__: Record<string, string> }
  const name = "surfing-weights/compression"
  const description = JSON.parse(parsed.__metadata__[name] ?? "") as Description
  change(description)
  parsed.__metadata__[name] = JSON.stringify(description)
  return fileOf(JSON.stringify(parsed), bytes.subarray(8 + Buffer.byteLength(json)))
}

/**
 * Changes, inserts, removes or repeats some bytes of a compressed file at random, `count` times: it opens and gives the bytes of
 * the original, or it fails with `SafetensorsError` or `CorruptObject`.
 */
export const mutations = (tensors: ReadonlyArray<Safetensors.TensorSource>, count: number) =>
  Effect.gen(function*() {
    const bytes = yield* compressed(tensors)
    const original = new Map(
      (yield* (yield* opened(bytes)).loadMany(names(tensors))).map((tensor) => [tensor.name, tensor])
    )
    const outcomes = { same: 0, failed: 0 }
    for (let seed = 0; seed < count; seed++) {
      const damaged = mutated(bytes, seed)
      const outcome = yield* Effect.exit(readAll(damaged))
      if (Exit.isSuccess(outcome)) {
        outcomes.same++
        for (const { bytes, dtype, name, shape } of outcome.value) {
          const expected = original.get(name)
          expect({ name, dtype, shape }, `seed ${seed}`).toEqual({
            name,
            dtype: expected?.dtype,
            shape: expected?.shape
          })
          expect(sameBytes(bytes, expected?.bytes), `seed ${seed}, ${name}`).toBe(true)
        }
      } else {
        outcomes.failed++
        const error = Option.getOrThrow(Cause.failureOption(outcome.cause))
        expect(["SafetensorsError", "CorruptObject"], `seed ${seed}: ${error.message}`).toContain(error._tag)
      }
    }
    expect(outcomes.same + outcomes.failed).toBe(count)
    expect(outcomes.failed).toBeGreaterThan(0.9 * count)
  })

const readAll = (bytes: Uint8Array) =>
  Effect.gen(function*() {
    const storage = yield* MemoryStorage.make()
    yield* storage.save("model", bytes)
    const file = yield* Effect.provideService(Safetensors.open("model"), Storage.Storage, storage)
    return yield* file.loadMany(file.tensors.keys())
  })

const mutated = (bytes: Uint8Array, seed: number): Uint8Array => {
  const next = random(seed)
  const below = (limit: number) => Math.floor(next() * limit)
  let changed = [...bytes]
  // Half of them in the header, which has fewer bytes.
  const place = () => below(next() < 0.5 ? Math.min(1200, changed.length) : changed.length)
  for (let change = 0; change <= below(3); change++) {
    const at = place()
    const kind = below(6)
    if (kind < 3) changed[at] = kind === 0 ? below(256) : (changed[at] ?? 0) ^ 1 << below(8)
    else if (kind === 3) changed.splice(at, 1 + below(20))
    else if (kind === 4) changed.splice(at, 0, ...Array.from({ length: 1 + below(20) }, () => below(256)))
    else changed = [...changed.slice(0, at), ...changed.slice(Math.max(0, at - below(50)))]
  }
  return Uint8Array.from(changed)
}
