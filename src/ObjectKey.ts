/**
 * The keys of objects. A key is 1 to 1,024 bytes of UTF-8: segments joined by `/`, none of them empty, `.` or `..`, without
 * control characters or lone surrogates. Every such key works on every backend, byte for byte.
 *
 * @module ObjectKey
 * @since 0.1.0
 */

/**
 * The maximum length of a key, in bytes of UTF-8.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxBytes = 1024

const control = /\p{Cc}/u
const loneSurrogate = /\p{Cs}/u
const badSegment = /(?:^|\/)\.{0,2}(?:\/|$)/

const encoder = new TextEncoder()

/**
 * The length of a string in bytes of UTF-8.
 *
 * @since 0.1.0
 * @category utils
 */
export const byteLength = (text: string): number => encoder.encode(text).byteLength

/**
 * What is wrong with a string as a key, or `undefined` for a valid key.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { ObjectKey } from "surfing-weights"
 *
 * ObjectKey.problem("models/bert/layer_0.bin") // undefined
 * ObjectKey.problem("models/../secrets") // 'it must not have a segment ".."'
 * ```
 */
export const problem = (key: string): string | undefined => {
  if (key === "") return "it must not be empty"
  // A UTF-16 unit is at most three bytes of UTF-8, so a short key needs no counting.
  if (key.length > maxBytes || (key.length * 3 > maxBytes && byteLength(key) > maxBytes)) {
    return `it must not exceed ${maxBytes} bytes (got ${byteLength(key)})`
  }
  if (control.test(key)) return "it must not contain control characters"
  if (loneSurrogate.test(key)) return "it must not contain lone surrogates"
  if (badSegment.test(key)) {
    const segment = key.split("/").find((part) => part === "" || part === "." || part === "..")
    return segment === ""
      ? "it must not have an empty segment (a slash at an end, or two in a row)"
      : `it must not have a segment "${segment}"`
  }
  return undefined
}

/**
 * Whether a valid key can start with `prefix`. A prefix is a plain string, so it may end within a segment.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { ObjectKey } from "surfing-weights"
 *
 * ObjectKey.isPrefix("models/lay") // true
 * ObjectKey.isPrefix("../") // false
 * ```
 */
export const isPrefix = (prefix: string): boolean =>
  // A prefix that is not a key of the maximum length can be continued by any character.
  problem(`${prefix}x`) === undefined || problem(prefix) === undefined

/**
 * The order of listings: by bytes of UTF-8. It differs from the order of JavaScript strings between characters beyond
 * U+FFFF and those from U+E000 to U+FFFF.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { ObjectKey } from "surfing-weights"
 *
 * const inOrder = ["\u{1f600}", "\ufffd"].sort(ObjectKey.compare) // [ "\ufffd", "\u{1f600}" ]
 * ```
 */
export const compare = (a: string, b: string): -1 | 0 | 1 => {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return rank(x) < rank(y) ? -1 : 1
  }
  return a.length < b.length ? -1 : a.length > b.length ? 1 : 0
}

// A surrogate is part of a character beyond U+FFFF, so it ranks above every other unit.
const rank = (unit: number): number => unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
