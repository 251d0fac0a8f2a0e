/**
 * Keys as names of files. All objects are in one folder, so that there can be `foo` beside `foo/bar`, and no folder has to be
 * removed while others save into it.
 *
 * Browsers differ in the names that they allow, in whether they ignore case (where files are those of macOS), and in whether they
 * normalize what is not ASCII. So a name consists of lower-case letters, digits, `.`, `_` and `-`; a `/` is written as `+`, each
 * other byte of UTF-8 as `%` and two digits. What would be too long goes on in a folder, which stays when it is empty.
 */

/** The longest piece of an encoded key. With its end it is shorter than the 255 bytes that file systems allow. */
const maxLength = 200

/** The ends of the names of files, and of folders in which a name goes on. */
const fileEnd = "-"
const folderEnd = "~"

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Where the file of a key is. */
export interface Path {
  readonly folders: ReadonlyArray<string>
  readonly file: string
}

export const pathOf = (key: string): Path => {
  const text = encode(key)
  const folders: Array<string> = []
  let at = 0
  for (; text.length - at > maxLength; at += maxLength) folders.push(text.slice(at, at + maxLength) + folderEnd)
  return { folders, file: text.slice(at) + fileEnd }
}

/** The encoded part of a key in the name of a folder, or `undefined` where it is none of ours. */
export const folderText = (name: string): string | undefined =>
  name.endsWith(folderEnd) ? name.slice(0, -folderEnd.length) : undefined

/** The key of a file, after the encoded part in the names of its folders; `undefined` where it is none of ours. */
export const keyOf = (before: string, name: string): string | undefined => {
  if (!name.endsWith(fileEnd)) return undefined
  const text = before + name.slice(0, -fileEnd.length)
  const key = decode(text)
  return key !== undefined && encode(key) === text ? key : undefined
}

const encode = (key: string): string =>
  key.replace(/[^a-z0-9._-]+/g, (part) => Array.from(encoder.encode(part), encodeByte).join(""))

const encodeByte = (byte: number): string => byte === 0x2f ? "+" : `%${byte.toString(16).padStart(2, "0")}`

const decode = (text: string): string | undefined => {
  const escaped = text.replaceAll("+", "/")
  try {
    return escaped.replace(
      /(?:%[0-9a-f]{2})+/g,
      (part) => decoder.decode(Uint8Array.from(part.slice(1).split("%"), (hex) => Number.parseInt(hex, 16)))
    )
  } catch {
    // It is no UTF-8.
    return undefined
  }
}
