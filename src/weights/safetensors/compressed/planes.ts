/**
 * Floats as two planes of bytes. Each element is rotated left by one bit, so that its highest byte starts with the exponent and the
 * sign comes last. The highest bytes are the plane `top`, in which few values are frequent; the others, element by element, are
 * `rest`, which looks random.
 *
 * Elements are little-endian, as in a file. Those of 2 and 4 bytes are handled four at once, in words of 32 bits, on machines of
 * the same order, which is about twice as fast (bench rows `compressed-save` and `compressed-decode`).
 */

/** The planes of some elements. `rest` has `width - 1` bytes for each byte of `top`. */
export interface Planes {
  readonly top: Uint8Array
  readonly rest: Uint8Array
}

/** The planes of elements of `width` bytes, at least 2. */
export const split = (elements: Uint8Array, width: number): Planes => {
  const count = elements.byteLength / width
  const top = new Uint8Array(count)
  const rest = new Uint8Array(count * (width - 1))
  const inWords = isLittleEndian && (width === 2 || width === 4) ? count >> 2 : 0
  if (inWords > 0) {
    const splitWords = width === 2 ? splitWords2 : splitWords4
    splitWords(wordsOf(elements, inWords * width), wordsOf(top, inWords), wordsOf(rest, inWords * (width - 1)))
  }
  splitBytes(elements, width, top, rest, inWords * 4)
  return { top, rest }
}

/** Writes the elements with these planes to `target`, which has their length. */
export const join = ({ rest, top }: Planes, width: number, target: Uint8Array): void => {
  const isFast = isLittleEndian && (width === 2 || width === 4) && target.byteOffset % 4 === 0
  const inWords = isFast ? top.byteLength >> 2 : 0
  if (inWords > 0) {
    const joinWords = width === 2 ? joinWords2 : joinWords4
    joinWords(wordsOf(top, inWords), wordsOf(rest, inWords * (width - 1)), wordsOf(target, inWords * width))
  }
  joinBytes(top, rest, width, target, inWords * 4)
}

const isLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1

/** The first bytes as words: a view of them where they are aligned, else a copy. */
const wordsOf = (bytes: Uint8Array, count: number): Uint32Array =>
  bytes.byteOffset % 4 === 0
    ? new Uint32Array(bytes.buffer, bytes.byteOffset, count)
    : new Uint32Array(bytes.slice(0, 4 * count).buffer)

/** The item at a position, which is within the array. */
const at = (array: Uint8Array | Uint32Array, index: number): number => array[index] ?? 0

/** Two elements, each rotated left by one bit. */
const rotated2 = (word: number): number => word << 1 & 0xfffefffe | word >>> 15 & 0x00010001

const rotatedBack2 = (word: number): number => word >>> 1 & 0x7fff7fff | word << 15 & 0x80008000

const splitWords2 = (elements: Uint32Array, top: Uint32Array, rest: Uint32Array): void => {
  for (let i = 0, from = 0; i < top.length; i++, from += 2) {
    const a = rotated2(at(elements, from))
    const b = rotated2(at(elements, from + 1))
    top[i] = a >>> 8 & 0xff | a >>> 16 & 0xff00 | b << 8 & 0xff0000 | b & 0xff000000
    rest[i] = a & 0xff | a >>> 8 & 0xff00 | b << 16 & 0xff0000 | b << 8 & 0xff000000
  }
}

const joinWords2 = (top: Uint32Array, rest: Uint32Array, target: Uint32Array): void => {
  for (let i = 0, to = 0; i < top.length; i++, to += 2) {
    const high = at(top, i)
    const low = at(rest, i)
    target[to] = rotatedBack2(low & 0xff | high << 8 & 0xff00 | low << 8 & 0xff0000 | high << 16 & 0xff000000)
    target[to + 1] = rotatedBack2(low >>> 16 & 0xff | high >>> 8 & 0xff00 | low >>> 8 & 0xff0000 | high & 0xff000000)
  }
}

const rotated4 = (word: number): number => word << 1 | word >>> 31

const rotatedBack4 = (word: number): number => word >>> 1 | word << 31

const splitWords4 = (elements: Uint32Array, top: Uint32Array, rest: Uint32Array): void => {
  for (let i = 0, from = 0, to = 0; i < top.length; i++, from += 4, to += 3) {
    const a = rotated4(at(elements, from))
    const b = rotated4(at(elements, from + 1))
    const c = rotated4(at(elements, from + 2))
    const d = rotated4(at(elements, from + 3))
    top[i] = a >>> 24 | b >>> 16 & 0xff00 | c >>> 8 & 0xff0000 | d & 0xff000000
    rest[to] = a & 0xffffff | b << 24
    rest[to + 1] = b >>> 8 & 0xffff | c << 16
    rest[to + 2] = c >>> 16 & 0xff | d << 8
  }
}

const joinWords4 = (top: Uint32Array, rest: Uint32Array, target: Uint32Array): void => {
  for (let i = 0, from = 0, to = 0; i < top.length; i++, from += 3, to += 4) {
    const high = at(top, i)
    const a = at(rest, from)
    const b = at(rest, from + 1)
    const c = at(rest, from + 2)
    target[to] = rotatedBack4(a & 0xffffff | high << 24)
    target[to + 1] = rotatedBack4(a >>> 24 | b << 8 & 0xffff00 | high << 16 & 0xff000000)
    target[to + 2] = rotatedBack4(b >>> 16 | c << 16 & 0xff0000 | high << 8 & 0xff000000)
    target[to + 3] = rotatedBack4(c >>> 8 | high & 0xff000000)
  }
}

/** The same for elements of any width, from one of them on. */
const splitBytes = (elements: Uint8Array, width: number, top: Uint8Array, rest: Uint8Array, first: number): void => {
  for (
    let i = first, from = first * width, to = first * (width - 1);
    i < top.length;
    i++, from += width, to += width - 1
  ) {
    let lower = at(elements, from + width - 1)
    for (let byte = 0; byte < width - 1; byte++) {
      const current = at(elements, from + byte)
      rest[to + byte] = current << 1 | lower >> 7
      lower = current
    }
    top[i] = at(elements, from + width - 1) << 1 | lower >> 7
  }
}

const joinBytes = (top: Uint8Array, rest: Uint8Array, width: number, target: Uint8Array, first: number): void => {
  for (
    let i = first, from = first * (width - 1), to = first * width;
    i < top.length;
    i++, from += width - 1, to += width
  ) {
    let higher = at(rest, from)
    let upper = at(top, i)
    target[to + width - 1] = upper >> 1 | higher << 7
    for (let byte = width - 2; byte >= 0; byte--) {
      higher = at(rest, from + byte)
      target[to + byte] = higher >> 1 | upper << 7
      upper = higher
    }
  }
}
