/**
 * The names that keys have on disk. A key's file stands under its own name in its own folders. Only what a file system
 * cannot hold is escaped: the folder of temporary files, segments longer than 255 bytes, and on Windows the device
 * names, the characters that it forbids, and a dot or space at the end.
 *
 * Every name of every file stands for exactly one key, and every key for one name: a name that is the escape of some
 * key means that key, every other name means itself. So other people's files, `100%.bin` or `a%20b.bin`, keep their
 * names as keys; of keys that look like an escape themselves the `%` is escaped.
 */

/** The folder in the base directory where temporary files are written. No listing shows a folder of this name. */
export const reserved = ".surfing-weights"

/** What kind of names the file system takes. */
export type Flavor = "posix" | "windows"

/** The path of a key's file relative to the base directory, with `/` between its folders. */
export const encodeKey = (key: string, flavor: Flavor): string =>
  flavor === "posix" && key.length * 3 <= maxBytes && !key.includes("%") && !key.includes(reserved)
    ? key
    : key.split("/").flatMap((segment) => split(encodeSegment(segment, flavor))).join("/")

/** The segment of a key that a name on disk stands for: the whole of the pieces where it is a long one. */
export const decodeSegment = (name: string, flavor: Flavor): string => {
  if (!name.includes("%")) return name
  const unescaped = unescape(name)
  return unescaped !== name && encodeSegment(unescaped, flavor) === name ? unescaped : name
}

/** Whether a folder of this name holds the rest of a long segment, and not a segment of its own. */
export const isPiece = (name: string): boolean => name.endsWith(mark) && byteLength(name) > maxBytes - maxCharacter

/** The text of a name in such a folder, or `undefined` if it is not one that goes on. */
export const continuedText = (name: string): string | undefined =>
  name.startsWith(continued) ? name.slice(continued.length) : undefined

/** The text of such a folder's name without the mark. */
export const pieceText = (name: string): string => name.slice(0, -mark.length)

const encodeSegment = (segment: string, flavor: Flavor): string => {
  if (segment === reserved) return `%2E${reserved.slice(1)}`
  if (flavor === "windows" && segment.search(forbidden) !== -1) {
    return escapePercent(segment).replace(forbidden, escapeFirst)
  }
  return segment.includes("%") && decodeSegment(segment, flavor) !== segment ? escapePercent(segment) : segment
}

// What Windows forbids: characters anywhere, some at the end, and names of devices.
const forbidden = /[<>:"\\|?*]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)/gi

const escapePercent = (text: string): string => text.replace(/%/g, "%25")

const escapeFirst = (text: string): string =>
  `%${text.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}${text.slice(1)}`

const unescape = (name: string): string =>
  name.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))

// The longest name that a file system takes, in bytes of UTF-8, and the longest character.
const maxBytes = 255
const maxCharacter = 4

const mark = "%+"
const continued = "+"

const encoder = new TextEncoder()

const byteLength = (text: string): number => encoder.encode(text).byteLength

/**
 * A name as the names of nested folders, each but the last as long as it can be and marked as going on. Those that go on
 * begin with a `+`, so that none of them can be a name of its own, such as the reserved one.
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
