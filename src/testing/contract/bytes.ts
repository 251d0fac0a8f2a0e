/**
 * Test data: bytes in which a shift, a gap or a mixture shows, streams of them, and how they are compared.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { concat } from "../../internal/bytes.js"

export const KiB = 1024
export const MiB = 1024 * KiB

export const none = new Uint8Array(0)

/** Sizes at which parts and chunks begin and end. */
export const boundarySizes = [0, 1, MiB - 1, MiB, MiB + 1, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1]

/** A prime, so that no shift by whole chunks or parts equals it. */
const period = 1_000_003

/** Bytes that depend on the seed and on their position. */
export const pattern = (seed: number, size: number): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(size)
  const start = Math.imul(seed + 1, 0x85ebca6b)
  const computed = Math.min(size, period)
  for (let i = 0; i < computed; i++) bytes[i] = Math.imul(start + i, 0x9e3779b1) >>> 24
  for (let filled = computed; filled < size; filled *= 2) bytes.copyWithin(filled, 0, filled)
  return bytes
}

/** A stream of the bytes in chunks whose sizes repeat those given; 0 is an empty chunk. */
export const inChunks = (
  bytes: Uint8Array,
  sizes: ReadonlyArray<number> = [1, 0, 65_537, 4095, 300_001]
): Stream.Stream<Uint8Array> =>
  Stream.unfold({ at: 0, turn: 0 }, ({ at, turn }) => {
    if (at >= bytes.byteLength) return Option.none()
    const end = at + (sizes[turn % sizes.length] ?? 1)
    return Option.some([bytes.subarray(at, end), { at: end, turn: turn + 1 }])
  })

/** `count` chunks of `size` bytes, and then the outcome of `end`. */
export const chunksThen = <A, E, R>(
  count: number,
  size: number,
  end: Effect.Effect<A, E, R>
): Stream.Stream<Uint8Array, E, R> =>
  Stream.concat(inChunks(pattern(60, count * size), [size]), Stream.drain(Stream.fromEffect(end)))

/** All bytes of a stream, in one array. */
export const gather = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Effect.Effect<Uint8Array, E, R> =>
  Effect.map(Stream.runCollect(stream), (chunks) => concat([...chunks]))

const encoder = new TextEncoder()

export const encode = (text: string): Uint8Array => encoder.encode(text)

/** Keys as a listing must return them: each once, in byte order. */
export const inOrder = (keys: Iterable<string>): ReadonlyArray<string> =>
  [...new Set(keys)]
    .map((key) => ({ key, bytes: encode(key) }))
    .sort((a, b) => compareBytes(a.bytes, b.bytes))
    .map(({ key }) => key)

/** Whether `a` comes after `b` in a listing. */
export const isAfter = (a: string, b: string): boolean => compareBytes(encode(a), encode(b)) > 0

const compareBytes = (a: Uint8Array, b: Uint8Array): number => {
  const at = firstDifference(a, b)
  return at === undefined ? 0 : (a[at] ?? -1) - (b[at] ?? -1)
}

/** The first position at which two arrays differ, if they do. */
export const firstDifference = (a: Uint8Array, b: Uint8Array): number | undefined => {
  // Most arrays that are compared are equal and large.
  if (typeof Buffer !== "undefined" && Buffer.compare(a, b) === 0) return undefined
  const length = Math.min(a.byteLength, b.byteLength)
  let at = 0
  while (at < length && a[at] === b[at]) at++
  return at === length && a.byteLength === b.byteLength ? undefined : at
}

export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => firstDifference(a, b) === undefined

/** A string as messages show it: quoted, escaped and of limited length. */
export const show = (text: string): string =>
  text.length > 80 ? `${JSON.stringify(text.slice(0, 80))}… (${text.length} characters)` : JSON.stringify(text)
