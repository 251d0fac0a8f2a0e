/**
 * Models in chunks for tests: how they are made, opened and verified.
 */
import { Effect, Either, Stream } from "effect"
import { createHash } from "node:crypto"
import { MemoryStorage, ModelChunks, Safetensors, Storage } from "surfing-weights"

/** Runs an effect with this storage. */
export const on = (storage: Storage.Service) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Storage.Storage, storage)

export const openOn = (storage: Storage.Service, prefix = "model") => on(storage)(ModelChunks.open(prefix))

export const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

export const text = (content: string) => new TextEncoder().encode(content)

/** The same bytes with one bit flipped. */
export const flip = (bytes: Uint8Array, at = bytes.byteLength >> 1): Uint8Array => {
  const flipped = bytes.slice()
  flipped[at] = (flipped[at] ?? 0) ^ 1
  return flipped
}

/** The events of a verification until it ends or fails, and its failure. */
export const verifyOn = (storage: Storage.Service, prefix = "model", options?: ModelChunks.VerifyOptions) =>
  Effect.gen(function*() {
    const events: Array<ModelChunks.Event> = []
    const end = yield* ModelChunks.verify(prefix, options).pipe(
      Stream.runForEach((event) => Effect.sync(() => void events.push(event))),
      Effect.either,
      on(storage)
    )
    return { events, failure: Either.isLeft(end) ? end.left : undefined }
  })

/** Each event with the name of its chunk, sorted. */
export const tags = (events: ReadonlyArray<ModelChunks.Event>) =>
  events.map(({ _tag, name }) => `${_tag} ${name}`).sort()

/** The content of `chunk_<i>`. */
export const bytesOf = (i: number, size = 1000) => new Uint8Array(size).fill(i)

/** A storage in memory with a model of `chunk_0`, `chunk_1` and so on, and its manifest. */
export const withChunks = (count: number, storage: Effect.Effect<Storage.Service> = MemoryStorage.make()) =>
  Effect.gen(function*() {
    const made = yield* storage
    for (let i = 0; i < count; i++) yield* made.save(`model/chunk_${i}`, bytesOf(i))
    yield* on(made)(ModelChunks.writeManifest("model"))
    return made
  })

/** Small tensors of these names, all different, of 24 bytes each. */
export const tensorsOf = (names: ReadonlyArray<string>): ReadonlyArray<Safetensors.TensorSource> =>
  names.map((name, i) => ({
    name,
    dtype: "F32",
    shape: [2, 3],
    data: Float32Array.from({ length: 6 }, (_, j) => i + j / 8)
  }))

/** A storage in memory with a model `source.safetensors` of these tensors. */
export const withSource = (
  tensors: ReadonlyArray<Safetensors.TensorSource>,
  metadata: Readonly<Record<string, string>> = { format: "pt" }
) =>
  Effect.tap(
    MemoryStorage.make(),
    (storage) => on(storage)(Safetensors.save("source.safetensors", tensors, { metadata }))
  )

export const splitOn = (storage: Storage.Service, options: Partial<ModelChunks.SplitOptions> = {}) =>
  on(storage)(ModelChunks.split({ source: "source.safetensors", target: "model", ...options }))
