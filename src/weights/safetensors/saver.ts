/**
 * Encodes tensors as a file, to be saved.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { exactly } from "../../internal/bytes.js"
import * as Deflate from "./compressed/deflate.js"
import type { Dtype } from "./dtypes.js"
import { bytesOf, type TypedArray } from "./elements.js"
import { invalid, type SafetensorsError } from "./errors.js"
import * as Layout from "./layout.js"

/**
 * A tensor to save. `data` is one of:
 *
 * - its bytes, little-endian
 * - its elements in the typed array of their type, or for F16 and BF16 a `Uint16Array` of their bits
 * - a stream of its bytes, which is run when its turn comes
 *
 * @since 0.1.0
 * @category models
 */
export interface TensorSource<Err = never, R = never> {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: ReadonlyArray<number>
  readonly data: TypedArray | Stream.Stream<Uint8Array, Err, R>
}

/** The bytes of a file with these tensors, and their number. */
export const encode = <Err, R>(
  key: string,
  tensors: Iterable<TensorSource<Err, R>>,
  { compress = false, metadata = {} }: {
    readonly compress?: boolean | undefined
    readonly metadata?: Readonly<Record<string, string>> | undefined
  }
): Effect.Effect<
  { readonly size: number; readonly bytes: Stream.Stream<Uint8Array, Err | SafetensorsError, R> },
  Err | SafetensorsError,
  R
> =>
  Effect.gen(function*() {
    const { header, size, tensors: ordered } = yield* Layout.make(key, tensors, metadata)
    const data = yield* Effect.forEach(ordered, ({ length, tensor }) => dataOf(key, tensor, length))
    const plain = { size, bytes: concatAll([header, ...data]) }
    if (!compress) return plain
    const { encode } = yield* Effect.promise(() => import("./compressed/encoder.js"))
    const encoded = yield* encode(yield* Deflate.load, key, {
      size,
      header,
      tensors: ordered.map(({ length, tensor: { dtype, name, shape } }) => ({ name, dtype, shape, length })),
      metadata,
      read: (tensor) => concatAll(data.slice(tensor))
    })
    return encoded.size < size ? encoded : plain
  })

type Data<Err, R> = Uint8Array | Stream.Stream<Uint8Array, Err, R>

/** The bytes of a tensor, checked to be `length`. */
const dataOf = <Err, R>(
  key: string,
  { data, dtype, name }: TensorSource<Err, R>,
  length: number
): Effect.Effect<Data<Err | SafetensorsError, R>, SafetensorsError> => {
  const fail = (reason: string) => invalid(key, "data", reason, name)
  const wrongLength = (actual: number) => fail(`the data has ${actual} bytes, but dtype and shape take ${length}`)
  if (Stream.StreamTypeId in data) return Effect.succeed(exactly(data, length, wrongLength))
  const bytes = bytesOf(dtype, data)
  if (bytes === undefined) return Effect.fail(fail(`the data of ${dtype} cannot be a ${data.constructor.name}`))
  return bytes.byteLength === length ? Effect.succeed(bytes) : Effect.fail(wrongLength(bytes.byteLength))
}

/** One after another. Arrays between two streams are one chunk of the stream. */
const concatAll = <Err, R>(pieces: ReadonlyArray<Data<Err, R>>): Stream.Stream<Uint8Array, Err, R> => {
  const runs: Array<Array<Uint8Array> | Stream.Stream<Uint8Array, Err, R>> = []
  for (const piece of pieces) {
    const last = runs.at(-1)
    if (!(piece instanceof Uint8Array)) runs.push(piece)
    else if (Array.isArray(last)) last.push(piece)
    else runs.push([piece])
  }
  return Stream.flatMap(
    Stream.fromIterable(runs),
    (run) => Array.isArray(run) ? Stream.fromChunk(Chunk.unsafeFromArray(run)) : run
  )
}
