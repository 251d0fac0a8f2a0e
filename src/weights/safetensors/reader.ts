/**
 * Reads tensors of an opened model. Every read is conditional on the etag that was opened, so it never returns bytes of
 * another version of the file.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { withPlace } from "../../internal/errors.js"
import { coalesce } from "../../internal/ranges.js"
import { readAhead } from "../../internal/readAhead.js"
import type { LoadError } from "../../StorageError.js"
import type * as ByteReader from "./compressed/byteReader.js"
import type { Decoder } from "./compressed/decoder.js"
import type { StoredTensor } from "./compressed/reader.js"
import { invalid, type SafetensorsError } from "./errors.js"
import * as Header from "./header.js"
import { type Model, type ReadError, shardConcurrency } from "./model.js"
import * as Tensor from "./tensor.js"

export const load = (model: Model, name: string): Effect.Effect<Tensor.Tensor, ReadError> =>
  Effect.flatMap(find(model, name), (tensor) => loadTensor(model, tensor))

export const loadSlice = (
  model: Model,
  name: string,
  start: number,
  endExclusive: number
): Effect.Effect<Tensor.Tensor, ReadError> =>
  Effect.gen(function*() {
    const tensor = yield* find(model, name)
    const stored = storedTensor(model, tensor)
    if (stored === undefined) return yield* loadTensor(model, yield* Header.slice(tensor, start, endExclusive))
    const elements = { ...tensor, range: { start: 0, endExclusive: stored.length } }
    const slice = yield* Header.slice(elements, start, endExclusive)
    return Tensor.make({ ...slice, range: tensor.range }, yield* loadElements(model, tensor.key, stored, slice.range))
  })

/** Several tensors, in the order of the names. */
export const loadMany = (
  model: Model,
  names: Iterable<string>
): Effect.Effect<ReadonlyArray<Tensor.Tensor>, ReadError> =>
  Effect.gen(function*() {
    const tensors = yield* Effect.forEach(names, (name) => find(model, name))
    const slots = tensors.map((tensor): Slot => ({ tensor, bytes: new Uint8Array(0) }))
    const byKey = groupByKey(slots.filter(({ tensor }) => !isEmpty(tensor.range)), ({ tensor }) => tensor.key)
    yield* Effect.forEach(
      byKey,
      ([key, slots]) =>
        Effect.flatMap(
          model.storage.loadRanges(key, slots.map(({ tensor }) => toByteRange(tensor.range)), ifMatch(model, key)),
          Effect.forEach((bytes, i) => {
            const slot = slots[i]
            return slot === undefined ? Effect.void : Effect.map(elementsIn(model, slot.tensor, bytes), (elements) => {
              slot.bytes = elements
            })
          }, { discard: true })
        ),
      { concurrency: shardConcurrency, discard: true }
    )
    return slots.map(({ bytes, tensor }) => Tensor.make(tensor, bytes))
  })

/** A requested tensor, and where its bytes go. */
interface Slot {
  readonly tensor: Header.TensorInfo
  bytes: Uint8Array
}

/** The bytes of tensors one after the other. Neighbours of one file are read together. */
export const bytesOf = (
  model: Model,
  tensors: ReadonlyArray<Header.TensorInfo>
): Stream.Stream<Uint8Array, LoadError> =>
  Stream.flatMap(Stream.fromIterable(runsOf(tensors)), ({ endExclusive, key, start, tensors: [first, ...others] }) => {
    const { decoder } = model
    if (first?.codec === undefined || decoder === undefined) {
      return model.storage.stream(key, { range: ByteRange.make(start, endExclusive), ...ifMatch(model, key) })
    }
    return Stream.mapError(
      decoder.stream([first, ...others], reading(model, decoder, key)),
      (error) => withFile(model, key, error)
    )
  })

/** Tensors whose bytes are adjacent in a file. */
interface Run extends ByteRange.ResolvedRange {
  readonly key: string
  readonly tensors: ReadonlyArray<Header.TensorInfo>
}

const runsOf = (tensors: ReadonlyArray<Header.TensorInfo>): ReadonlyArray<Run> => {
  const runs: Array<Run> = []
  for (const tensor of tensors) {
    const { codec, key, range: { endExclusive, start } } = tensor
    const last = runs.at(-1)
    if (start === endExclusive) continue
    const isCoded = codec !== undefined
    const wasCoded = last?.tensors[0]?.codec !== undefined
    if (last?.key === key && last.endExclusive === start && isCoded === wasCoded) {
      runs[runs.length - 1] = { ...last, endExclusive, tensors: [...last.tensors, tensor] }
    } else {
      runs.push({ key, start, endExclusive, tensors: [tensor] })
    }
  }
  return runs
}

/** The tensors of these names, or all, in the order of their bytes, with `prefetch` reads ahead of the consumer. */
export const stream = (
  model: Model,
  names: Iterable<string> | undefined,
  prefetch: number
): Stream.Stream<Tensor.Tensor, ReadError> =>
  Stream.unwrap(Effect.gen(function*() {
    const tensors = [...model.tensors.values()]
    const selected = names === undefined
      ? undefined
      : new Set(yield* Effect.forEach(names, (name) => find(model, name)))
    const reads = planReads(selected === undefined ? tensors : tensors.filter((tensor) => selected.has(tensor)))
    return readAhead(reads, (read) => loadRead(model, read), prefetch)
  }))

/** One read with the bytes of several tensors. */
interface Read {
  readonly key: string
  readonly range: ByteRange.ResolvedRange
  readonly tensors: ReadonlyArray<Header.TensorInfo>
}

/**
 * The size up to which neighbours are read together. Larger arrays cost more than they save, since V8 collects the whole
 * heap for them (benchmark rows `tensors` and `small-tensors`).
 */
const maxReadSize = 4 * 1024 * 1024

/** The reads of a stream of tensors that are in the order of their bytes. */
const planReads = (tensors: ReadonlyArray<Header.TensorInfo>): ReadonlyArray<Read> =>
  [...groupByKey(tensors, ({ key }) => key)].flatMap(([key, tensors]) => {
    let next = 0
    return coalesce(tensors.map(({ range }) => range), { maxLength: maxReadSize }).map((range) => {
      const first = next
      while ((tensors[next]?.range.endExclusive ?? Infinity) <= range.endExclusive) next++
      return { key, range, tensors: tensors.slice(first, next) }
    })
  })

const loadRead = (
  model: Model,
  { key, range, tensors }: Read
): Effect.Effect<Chunk.Chunk<Tensor.Tensor>, LoadError> => {
  const [first] = tensors
  if (first?.codec !== undefined && tensors.length === 1) return Effect.map(loadTensor(model, first), Chunk.of)
  return Effect.flatMap(loadBytes(model, key, range), (bytes) =>
    Effect.map(
      Effect.forEach(tensors, (tensor) => {
        const { endExclusive, start } = tensor.range
        const stored = bytes.subarray(start - range.start, endExclusive - range.start)
        return Effect.map(elementsIn(model, tensor, stored), (elements) => Tensor.make(tensor, elements))
      }),
      Chunk.unsafeFromArray
    ))
}

const loadTensor = (model: Model, tensor: Header.TensorInfo): Effect.Effect<Tensor.Tensor, LoadError> => {
  const stored = storedTensor(model, tensor)
  const bytes = stored === undefined
    ? loadBytes(model, tensor.key, tensor.range)
    : loadElements(model, tensor.key, stored, { start: 0, endExclusive: stored.length })
  return Effect.map(bytes, (bytes) => Tensor.make(tensor, bytes))
}

/** The elements of a tensor from the bytes in which it is stored: the same where it is not compressed. */
const elementsIn = (
  model: Model,
  tensor: Header.TensorInfo,
  bytes: Uint8Array
): Effect.Effect<Uint8Array, LoadError> => {
  const stored = storedTensor(
    model,
    tensor,
    (decoder) => ({ endExclusive, start }) =>
      decoder.makeReader(Stream.make(bytes.subarray(start - tensor.range.start, endExclusive - tensor.range.start)))
  )
  return stored === undefined
    ? Effect.succeed(bytes)
    : loadElements(model, tensor.key, stored, { start: 0, endExclusive: stored.length })
}

/** A tensor that is compressed, with what decodes it. */
interface Compressed {
  readonly decoder: Decoder
  readonly tensor: StoredTensor<LoadError>
  /** Of its elements, in bytes. */
  readonly length: number
}

/** A tensor that is compressed; `undefined` if it is not. */
const storedTensor = (
  model: Model,
  tensor: Header.TensorInfo,
  read = (decoder: Decoder) => reading(model, decoder, tensor.key)
): Compressed | undefined => {
  const { decoder } = model
  const stored = decoder?.storedTensor(tensor, read(decoder))
  return decoder && stored && { decoder, tensor: stored, length: stored.length }
}

const loadElements = (
  model: Model,
  key: string,
  { decoder, tensor }: Compressed,
  range: ByteRange.ResolvedRange
): Effect.Effect<Uint8Array, LoadError> =>
  Effect.mapError(decoder.load(tensor, range), (error) => withFile(model, key, error))

/** A failure of decoding, which does not know where the bytes are from. */
const withFile = ({ storage }: Model, key: string, error: LoadError): LoadError =>
  error.backend === "" ? withPlace(error, { backend: storage.backend.name, operation: "load", key }) : error

/** Reads a range of an object: larger ones as a stream, so that blocks are decoded while others are on their way. */
const reading = (model: Model, decoder: Decoder, key: string): ByteReader.Read<LoadError> => (range) =>
  decoder.makeReader(
    range.endExclusive - range.start <= maxReadSize
      ? Stream.fromEffect(loadBytes(model, key, range))
      : model.storage.stream(key, { range: toByteRange(range), ...ifMatch(model, key) })
  )

const loadBytes = (model: Model, key: string, range: ByteRange.ResolvedRange): Effect.Effect<Uint8Array, LoadError> =>
  isEmpty(range)
    ? Effect.sync(() => new Uint8Array(0))
    : model.storage.load(key, { range: toByteRange(range), ...ifMatch(model, key) })

const ifMatch = ({ files }: Model, key: string): { readonly ifMatch?: string } => {
  const file = files.get(key)
  return file === undefined ? {} : { ifMatch: file.info.etag }
}

const find = ({ info, tensors }: Model, name: string): Effect.Effect<Header.TensorInfo, SafetensorsError> => {
  const tensor = tensors.get(name)
  return tensor === undefined
    ? Effect.fail(invalid(info.key, "name", "there is no tensor with this name", name))
    : Effect.succeed(tensor)
}

const isEmpty = ({ endExclusive, start }: ByteRange.ResolvedRange): boolean => start === endExclusive

const toByteRange = ({ endExclusive, start }: ByteRange.ResolvedRange): ByteRange.ByteRange =>
  ByteRange.make(start, endExclusive)

const groupByKey = <A>(items: Iterable<A>, keyOf: (item: A) => string): ReadonlyMap<string, ReadonlyArray<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const item of items) {
    const group = groups.get(keyOf(item))
    if (group === undefined) groups.set(keyOf(item), [item])
    else group.push(item)
  }
  return groups
}
