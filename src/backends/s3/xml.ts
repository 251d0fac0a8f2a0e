/**
 * The part of XML that the responses of S3 use: elements by name, and text; attributes are ignored. A listing of a thousand
 * keys is parsed in a millisecond.
 */

/** The raw content of the first element with this name, or `undefined` where there is none. */
export const element = (xml: string, name: string): string | undefined => {
  const found = next(xml, name, 0)
  return found === undefined ? undefined : xml.slice(found.start, found.end)
}

/** The raw content of each element with this name. */
export const elements = (xml: string, name: string): ReadonlyArray<string> => {
  const all: Array<string> = []
  for (let found = next(xml, name, 0); found !== undefined; found = next(xml, name, found.end)) {
    all.push(xml.slice(found.start, found.end))
  }
  return all
}

/** The text of the first element of this name. */
export const text = (xml: string, name: string): string | undefined => {
  const inner = element(xml, name)
  return inner === undefined ? undefined : unescape(inner)
}

/**
 * Whether a document has this root element: the whole of it, only its beginning, which includes none of it, or neither.
 */
export const rootIs = (xml: string, name: string): "whole" | "cut" | "other" => {
  const start = /^\ufeff?(?:\s|<\?[^>]*\?>|<!--[^]*?-->)*/.exec(xml)?.[0].length ?? 0
  const beginning = `<${name}`
  const found = xml.slice(start, start + beginning.length)
  if (found.length < beginning.length) return beginning.startsWith(found) ? "cut" : "other"
  if (found !== beginning || !/^[\s>/]?$/.test(xml.charAt(start + beginning.length))) return "other"
  const end = xml.trimEnd()
  const isEmpty = end.endsWith("/>") && xml.indexOf(">", start) === end.length - 1
  return isEmpty || end.endsWith(`</${name}>`) ? "whole" : "cut"
}

const next = (
  xml: string,
  name: string,
  from: number
): { readonly start: number; readonly end: number } | undefined => {
  for (let at = xml.indexOf(`<${name}`, from); at !== -1; at = xml.indexOf(`<${name}`, at + 1)) {
    // `<KeyCount>` is not a `<Key>`.
    if (!/[\s>/]/.test(xml.charAt(at + name.length + 1))) continue
    const start = xml.indexOf(">", at) + 1
    if (start === 0) return undefined
    if (xml.charAt(start - 2) === "/") return { start, end: start }
    const end = xml.indexOf(`</${name}>`, start)
    return end === -1 ? undefined : { start, end }
  }
  return undefined
}

const entities = new Map([["lt", "<"], ["gt", ">"], ["amp", "&"], ["quot", "\""], ["apos", "'"]])

const unescape = (text: string): string =>
  text.includes("&")
    ? text.replaceAll(
      /&(?:#x([0-9a-f]+)|#([0-9]+)|(\w+));/gi,
      (whole, hex?: string, decimal?: string, name?: string) => {
        if (name !== undefined) return entities.get(name) ?? whole
        const code = hex !== undefined ? parseInt(hex, 16) : Number(decimal)
        return code <= 0x10ffff ? String.fromCodePoint(code) : whole
      }
    )
    : text

/** Text escaped for an element. */
export const escape = (text: string): string => text.replaceAll(/[&<>"'\r\n]/g, (char) => escapes[char] ?? char)

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\"": "&quot;",
  "'": "&apos;",
  "\r": "&#13;",
  "\n": "&#10;"
}

/** Whether XML can hold this text at all: it has no place for some characters, not even escaped. */
export const canHold = (text: string): boolean => !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(text)

/** Of the elements in requests. */
export const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
