/**
 * Keys as paths. The file of a key has the key's own name in the key's own folders. Escaped is only what a file system cannot
 * hold: the hidden folder's name, segments longer than 255 bytes, and on Windows device names, forbidden characters, and a dot
 * or space at the end.
 *
 * Each file name decodes to one key, and each key encodes to one name: a name that is the escape of a key means that key, any
 * other name means itself. So files of other programs, such as `100%.bin` or `a%20b.bin`, keep their names as keys, and in a
 * key that itself looks like an escape the `%` is escaped.
 */

/** The hidden folder in the base directory, for what is not an object. Listings skip it. */
export const reserved = ".surfing-weights"

/**
 * Whether a file system could take a name for that of the hidden folder: one that ignores case, or dots and spaces at the end, or
 * knows each file by a short name, too.
 */
export const isReserved = (name: string): boolean => reservedNames.test(name)

const reservedNames = /^(?:\.surfing-weights[. ]*|surfin~\d+)$/iu
const reservedStart = /surfin/iu

/** The names that the file system allows. */
export type Flavor = "posix" | "windows"

/** The path of a key's file relative to the base directory, with `/` between its folders. */
export const encodeKey = (key: string, flavor: Flavor): string =>
  flavor === "posix" && key.length * 3 <= maxBytes && !key.includes("%") && !reservedStart.test(key)
    ? key
    : key.split("/").flatMap((segment) => split(encodeSegment(segment, flavor))).join("/")

/** The segment of a key that a name on disk encodes; of a long segment, the joined pieces. */
export const decodeSegment = (name: string, flavor: Flavor): string => {
  if (!name.includes("%")) return name
  const unescaped = unescape(name)
  return unescaped !== name && encodeSegment(unescaped, flavor) === name ? unescaped : name
}

/** Whether a folder of this name holds the rest of a long segment, and is not a segment itself. */
export const isPiece = (name: string): boolean => name.endsWith(mark) && byteLength(name) > maxBytes - maxCharacter

/** The text of a name in such a folder, or `undefined` if the name does not continue a segment. */
export const continuedText = (name: string): string | undefined =>
  name.startsWith(continued) ? name.slice(continued.length) : undefined

/** The text of the name of such a folder. */
export const pieceText = (name: string): string => name.slice(0, -mark.length)

const encodeSegment = (segment: string, flavor: Flavor): string => {
  if (isReserved(segment)) {
    const escaped = escapeFirst(segment)
    return flavor === "windows" ? escaped.replace(forbidden, escapeFirst) : escaped
  }
  if (flavor === "windows" && segment.search(forbidden) !== -1) {
    return escapePercent(segment).replace(forbidden, escapeFirst)
  }
  return segment.includes("%") && decodeSegment(segment, flavor) !== segment ? escapePercent(segment) : segment
}

// What Windows forbids: some characters anywhere, some at the end, and the names of devices.
const forbidden = /[<>:"\\|?*]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)/gi

const escapePercent = (text: string): string => text.replace(/%/g, "%25")

const escapeFirst = (text: string): string =>
  `%${text.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}${text.slice(1)}`

const unescape = (name: string): string =>
  name.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))

// The longest name that file systems take, and the longest character, in bytes of UTF-8.
const maxBytes = 255
const maxCharacter = 4

const mark = "%+"
const continued = "+"

const encoder = new TextEncoder()

const byteLength = (text: string): number => encoder.encode(text).byteLength

/**
 * Splits a long name into the names of nested folders and a file: all but the last are as long as possible and end in a mark;
 * all but the first begin with `+`, so that none can be a name with a meaning, such as the hidden folder's.
 */
const split = (text: string, before = ""): ReadonlyArray<string> => {
  const name = before + text
  // A UTF-16 unit is at most three bytes of UTF-8.
  if (name.length * 3 <= maxBytes || (byteLength(name) <= maxBytes && !isPiece(name))) return [name]
  const room = maxBytes - before.length - mark.length
  let piece = ""
  let bytes = 0
  for (const character of text) {
    bytes += byteLength(character)
    if (bytes > room) break
    piece += character
  }
  return [before + piece + mark, ...split(text.slice(piece.length), continued)]
}
