/**
 * What an object may be called. A key is 1 to 1,024 bytes of UTF-8 in segments joined by `/`; no segment is empty, `.`
 * or `..`, and there is no control character and no lone surrogate. Every other key works on every backend, byte for
 * byte.
 *
 * @module ObjectKey
 * @since 0.1.0
 */

/**
 * The longest key, in bytes of UTF-8.
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
 * Why a string cannot be a key, or `undefined` where it can.
 *
 * @since 0.1.0
 * @category utils
 * @example
 * ```ts
 * import { ObjectKey } from "surfing-weights"
 *
 * ObjectKey.problem("models/bert/layer_0.bin") // undefined
 * ObjectKey.problem("models/../secrets") // 'it has a segment ".."'
 * ```
 */
export const problem = (key: string): string | undefined => {
  if (key === "") return "it is empty"
  // A UTF-16 unit is at most three bytes of UTF-8, so a short key needs no counting.
  if (key.length > maxBytes || (key.length * 3 > maxBytes && byteLength(key) > maxBytes)) {
    return `it is longer than ${maxBytes} bytes`
  }
  if (control.test(key)) return "it holds a control character"
  if (loneSurrogate.test(key)) return "it holds half of a surrogate pair"
  if (badSegment.test(key)) {
    const segment = key.split("/").find((part) => part === "" || part === "." || part === "..")
    return segment === ""
      ? "it has an empty segment (a slash at an end, or two together)"
      : `it has a segment "${segment}"`
  }
  return undefined
}

/**
 * Whether any key can start with `prefix`. A prefix is a plain string, so it may end within a segment.
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
  // What goes on goes on with some character; only a key of the greatest length does not.
  problem(`${prefix}x`) === undefined || problem(prefix) === undefined

/**
 * The order of listings: by bytes of UTF-8. It differs from JavaScript's own comparison where a character beyond
 * U+FFFF meets one of U+E000 to U+FFFF.
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

// Half of a surrogate pair stands for a character beyond U+FFFF, so it ranks above every unit that is a character.
const rank = (unit: number): number => unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
