/**
 * SHA-256 in plain JavaScript, for where the platform has none that takes bytes in pieces (FIPS 180-4, section 6.2).
 */

export interface Hash {
  readonly update: (bytes: Uint8Array) => void
  /** In lower-case hexadecimal; to be asked for once. */
  readonly digest: () => string
}

/** The first 32 bits of the fractional part of a number. */
const fraction = (value: number): number => ((value - Math.floor(value)) * 2 ** 32) | 0

const primes: Array<number> = []
for (let n = 2; primes.length < 64; n++) {
  if (primes.every((prime) => n % prime !== 0)) primes.push(n)
}

const constants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)))
const initial = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)))

const blockSize = 64

/** Puts a block of 64 bytes into the state. `w` is room for the schedule. */
const compress = (state: Int32Array, w: Int32Array, block: DataView, offset: number): void => {
  for (let t = 0; t < 16; t++) w[t] = block.getInt32(offset + 4 * t)
  for (let t = 16; t < 64; t++) {
    const x = w[t - 15] ?? 0
    const y = w[t - 2] ?? 0
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
    w[t] = (w[t - 16] ?? 0) + s0 + (w[t - 7] ?? 0) + s1
  }
  // Not destructured, and added below without an array: both would double the time.
  let a = state[0] ?? 0
  let b = state[1] ?? 0
  let c = state[2] ?? 0
  let d = state[3] ?? 0
  let e = state[4] ?? 0
  let f = state[5] ?? 0
  let g = state[6] ?? 0
  let h = state[7] ?? 0
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
    const one = (h + s1 + ((e & f) ^ (~e & g)) + (constants[t] ?? 0) + (w[t] ?? 0)) | 0
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
    const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
    h = g
    g = f
    f = e
    e = (d + one) | 0
    d = c
    c = b
    b = a
    a = (one + two) | 0
  }
  state[0] = (state[0] ?? 0) + a
  state[1] = (state[1] ?? 0) + b
  state[2] = (state[2] ?? 0) + c
  state[3] = (state[3] ?? 0) + d
  state[4] = (state[4] ?? 0) + e
  state[5] = (state[5] ?? 0) + f
  state[6] = (state[6] ?? 0) + g
  state[7] = (state[7] ?? 0) + h
}

export const make = (): Hash => {
  const state = initial.slice()
  const w = new Int32Array(64)
  /** What has come since the last whole block. */
  const rest = new Uint8Array(2 * blockSize)
  const restView = new DataView(rest.buffer)
  let kept = 0
  let length = 0

  const update = (bytes: Uint8Array): void => {
    length += bytes.byteLength
    let at = 0
    if (kept > 0) {
      at = Math.min(blockSize - kept, bytes.byteLength)
      rest.set(bytes.subarray(0, at), kept)
      kept += at
      if (kept < blockSize) return
      compress(state, w, restView, 0)
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (; at + blockSize <= bytes.byteLength; at += blockSize) compress(state, w, view, at)
    rest.set(bytes.subarray(at))
    kept = bytes.byteLength - at
  }

  const digest = (): string => {
    const end = kept < blockSize - 8 ? blockSize : 2 * blockSize
    rest.fill(0, kept)
    rest[kept] = 0x80
    restView.setBigUint64(end - 8, BigInt(length) * 8n)
    for (let at = 0; at < end; at += blockSize) compress(state, w, restView, at)
    return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("")
  }

  return { update, digest }
}
