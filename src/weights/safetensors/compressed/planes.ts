/**
 * Floats as two planes of bytes. Each element is rotated left by one bit, so that its highest byte starts with the exponent and the
 * sign comes last. The highest bytes are the plane `top`, in which few values are frequent; the others, element by element, are
 * `rest`, which looks random.
 *
 * Elements are little-endian, as in a file, so this works in bytes: the order of the machine does not matter, nor does the
 * alignment.
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
  if (width === 2) split2(elements, top, rest)
  else if (width === 4) split4(elements, top, rest)
  else splitAny(elements, width, top, rest)
  return { top, rest }
}

/** Writes the elements with these planes to `target`, which has their length. */
export const join = ({ rest, top }: Planes, width: number, target: Uint8Array): void => {
  if (width === 2) join2(top, rest, target)
  else if (width === 4) join4(top, rest, target)
  else joinAny(top, rest, width, target)
}

/** The byte at a position, which is within the array. */
const at = (bytes: Uint8Array, index: number): number => bytes[index] ?? 0

const split2 = (elements: Uint8Array, top: Uint8Array, rest: Uint8Array): void => {
  for (let i = 0, from = 0; i < top.length; i++, from += 2) {
    const low = at(elements, from)
    const high = at(elements, from + 1)
    top[i] = high << 1 | low >> 7
    rest[i] = low << 1 | high >> 7
  }
}

const join2 = (top: Uint8Array, rest: Uint8Array, target: Uint8Array): void => {
  for (let i = 0, to = 0; i < top.length; i++, to += 2) {
    const high = at(top, i)
    const low = at(rest, i)
    target[to] = low >> 1 | high << 7
    target[to + 1] = high >> 1 | low << 7
  }
}

const split4 = (elements: Uint8Array, top: Uint8Array, rest: Uint8Array): void => {
  for (let i = 0, from = 0, to = 0; i < top.length; i++, from += 4, to += 3) {
    const a = at(elements, from)
    const b = at(elements, from + 1)
    const c = at(elements, from + 2)
    const d = at(elements, from + 3)
    rest[to] = a << 1 | d >> 7
    rest[to + 1] = b << 1 | a >> 7
    rest[to + 2] = c << 1 | b >> 7
    top[i] = d << 1 | c >> 7
  }
}

const join4 = (top: Uint8Array, rest: Uint8Array, target: Uint8Array): void => {
  for (let i = 0, from = 0, to = 0; i < top.length; i++, from += 3, to += 4) {
    const a = at(rest, from)
    const b = at(rest, from + 1)
    const c = at(rest, from + 2)
    const d = at(top, i)
    target[to] = a >> 1 | b << 7
    target[to + 1] = b >> 1 | c << 7
    target[to + 2] = c >> 1 | d << 7
    target[to + 3] = d >> 1 | a << 7
  }
}

const splitAny = (elements: Uint8Array, width: number, top: Uint8Array, rest: Uint8Array): void => {
  for (let i = 0, from = 0, to = 0; i < top.length; i++, from += width, to += width - 1) {
    let lower = at(elements, from + width - 1)
    for (let byte = 0; byte < width - 1; byte++) {
      const current = at(elements, from + byte)
      rest[to + byte] = current << 1 | lower >> 7
      lower = current
    }
    top[i] = at(elements, from + width - 1) << 1 | lower >> 7
  }
}

const joinAny = (top: Uint8Array, rest: Uint8Array, width: number, target: Uint8Array): void => {
  for (let i = 0, from = 0, to = 0; i < top.length; i++, from += width - 1, to += width) {
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
