/**
 * The memory behind byte arrays.
 */

/** The same bytes over an `ArrayBuffer`: a copy only if they are over a `SharedArrayBuffer`. */
export const unshared = (bytes: Uint8Array): Uint8Array<ArrayBuffer> =>
  isUnshared(bytes) ? bytes : new Uint8Array(bytes)

const isUnshared = (bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> => bytes.buffer instanceof ArrayBuffer
