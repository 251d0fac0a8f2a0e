/**
 * Whether the bytes of a response can be the file that was asked for. Portals, logins and servers in trouble answer with
 * pages and messages, also with status 200.
 */
import { concat } from "../../internal/bytes.js"
import { isHtmlType, isStandIn, recognize, sentence, sniffLength } from "../internal/fileKind.js"

/** The extension of a key, in lower case, without the query. */
export const extensionOf = (key: string): string => /\.(\w+)(?:\?.*)?$/.exec(key)?.[1]?.toLowerCase() ?? ""

/** Files that may be pages. */
const markup = new Set(["htm", "html", "svg", "xhtml", "xml"])

/** Files that are not text. */
const isBinary = (extension: string): boolean =>
  /^(?:onnx|onnx_data\w*|safetensors|bin|wasm|gguf|pt|pth|npy|npz|h5|msgpack|tflite)$/.test(extension)

/** Larger JSON is not parsed. */
const maxJsonSize = 128 * 1024 * 1024

/** What is wrong with a response by its headers, or `undefined`. */
export const problemOfHeaders = (key: string, headers: Headers): string | undefined => {
  const type = headers.get("content-type") ?? ""
  return isHtmlType(type) && !markup.has(extensionOf(key))
    ? `it is an HTML page (Content-Type: ${type}), such as a login; download the file again`
    : undefined
}

/** What is wrong with a file by its first bytes, or `undefined`. */
export const problemOfBeginning = (key: string, beginning: Uint8Array): string | undefined => {
  const extension = extensionOf(key)
  const found = recognize(beginning)
  if (found === undefined || markup.has(extension)) return undefined
  const isWrong = isStandIn(found) ||
    (extension === "json" && (found.kind === "weights" || found.kind === "packed")) ||
    (isBinary(extension) && (found.kind === "json" || found.kind === "text"))
  return isWrong ? sentence(found, extension === "json" ? "JSON" : "the file") : undefined
}

/** Checks a file piece by piece. Each step returns what is wrong, or `undefined`. */
export interface Check {
  readonly add: (bytes: Uint8Array) => string | undefined
  readonly end: () => string | undefined
}

/** A check of the first bytes, and of JSON as a whole. */
export const check = (key: string): Check => {
  let pieces: Array<Uint8Array> | undefined = []
  let size = 0
  const isJson = extensionOf(key) === "json"
  return {
    add: (bytes) => {
      if (pieces === undefined) return undefined
      const isFirst = size < sniffLength
      // A copy, since the bytes may belong to a buffer that is used again.
      pieces.push(new Uint8Array(isJson ? bytes : bytes.subarray(0, sniffLength)))
      size += bytes.byteLength
      const problem = isFirst && size >= sniffLength ? problemOfBeginning(key, concat(pieces)) : undefined
      if (size > (isJson ? maxJsonSize : sniffLength)) pieces = undefined
      return problem
    },
    end: () => {
      if (pieces === undefined) return undefined
      const whole = concat(pieces)
      return problemOfBeginning(key, whole) ?? (isJson ? problemOfJson(whole) : undefined)
    }
  }
}

const problemOfJson = (bytes: Uint8Array): string | undefined => {
  try {
    JSON.parse(new TextDecoder().decode(bytes))
    return undefined
  } catch (error) {
    return `it is not valid JSON (${error instanceof Error ? error.message : String(error)}); download it again`
  }
}
