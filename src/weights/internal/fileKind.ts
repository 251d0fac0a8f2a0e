/**
 * What a file is that is not in the format that it should have, by its first bytes: what downloads and conversions leave
 * in the place of weights.
 */
import { quoted } from "./text.js"

/** A file of another format. */
export interface FileKind {
  /**
   * `pointer`: of Git LFS; `page`: HTML or XML; `json` and `text`: other text; `weights`: another format of weights;
   * `packed`: an archive or compressed; `empty`: no bytes, or zeros only.
   */
  readonly kind: "pointer" | "page" | "json" | "text" | "weights" | "packed" | "empty"
  /** As in "it is …". */
  readonly what: string
  readonly advice: string
}

/** How many bytes at the start of a file are enough. */
export const sniffLength = 512

/** As in "it is a GGUF file, not a safetensors file; convert it …". */
export const sentence = ({ advice, what }: FileKind, wanted: string): string =>
  `it is ${what}, not ${wanted}; ${advice}`

/** Whether a file is a pointer or a page, which no weights are, whatever their format. */
export const isStandIn = ({ kind }: FileKind): boolean => kind === "pointer" || kind === "page"

/** The format of a file that starts with these bytes; `undefined` if it is unknown, as that of valid safetensors files. */
export const recognize = (bytes: Uint8Array): FileKind | undefined => {
  const beginning = bytes.subarray(0, sniffLength)
  return recognizeEmpty(beginning) ?? recognizeBinary(beginning) ?? recognizeText(beginning)
}

const again = "download it again"
const convert = "convert it, for example with safetensors.torch.save_file in Python"
const decompress = "decompress it first"

const recognizeEmpty = (bytes: Uint8Array): FileKind | undefined =>
  bytes.byteLength === 0
    ? { kind: "empty", what: "an empty file", advice: again }
    : bytes.byteLength >= 16 && bytes.every((byte) => byte === 0)
    ? { kind: "empty", what: "a file of zeros, as a download that was never finished", advice: again }
    : undefined

const signatures: ReadonlyArray<readonly [at: number, bytes: string, FileKind["kind"], what: string, advice: string]> =
  [
    [0, "GGUF", "weights", "a GGUF file, the format of llama.cpp", "use the safetensors files of the original model"],
    [0, "PK\x03\x04", "packed", "a ZIP archive, as torch.save and numpy.savez write", convert],
    [0, "PK\x05\x06", "packed", "an empty ZIP archive", again],
    [0, "\x93NUMPY", "weights", "a NumPy array", convert],
    [0, "\x89HDF\r\n\x1a\n", "weights", "an HDF5 file, as Keras writes", convert],
    [4, "TFL3", "weights", "a TensorFlow Lite model", "use the safetensors files of the original model"],
    [0, "PAR1", "weights", "a Parquet file", convert],
    [0, "ARROW1", "weights", "an Arrow file", convert],
    [0, "\x1f\x8b", "packed", "compressed by gzip", decompress],
    [0, "\x28\xb5\x2f\xfd", "packed", "compressed by Zstandard", decompress],
    [0, "\xfd7zXZ\x00", "packed", "compressed by xz", decompress],
    [0, "BZh", "packed", "compressed by bzip2", decompress],
    [0, "7z\xbc\xaf\x27\x1c", "packed", "a 7-Zip archive", "extract it first"],
    [257, "ustar", "packed", "a tar archive", "extract it first"],
    [
      0,
      "\xff\xfe",
      "text",
      "UTF-16 text, as PowerShell writes by >",
      "write the bytes by the program itself, such as curl -o"
    ]
  ]

const recognizeBinary = (bytes: Uint8Array): FileKind | undefined => {
  for (const [at, signature, kind, what, advice] of signatures) {
    if (startsWith(bytes.subarray(at), signature)) return { kind, what, advice }
  }
  const [first, second = 0, third] = bytes
  if (first === 0x80 && second >= 2 && second <= 5) {
    return { kind: "weights", what: "a pickle of Python, as torch.save writes", advice: convert }
  }
  return first === 0x08 && second > 0 && second < 0x20 && third === 0x12
    ? { kind: "weights", what: "an ONNX model", advice: convert }
    : undefined
}

const startsWith = (bytes: Uint8Array, signature: string): boolean => {
  for (let i = 0; i < signature.length; i++) if (bytes[i] !== signature.charCodeAt(i)) return false
  return true
}

/** Text is recognized from 8 characters on. */
const recognizeText = (bytes: Uint8Array): FileKind | undefined => {
  const text = textOf(bytes)?.trimStart()
  if (text === undefined || text.length < 8) return undefined
  if (/^version https:\/\/(?:git-lfs|hawser)\.github\.com\//.test(text)) {
    const size = /^size (\d+)$/m.exec(text)?.[1]
    return {
      kind: "pointer",
      what: `a Git LFS pointer${size === undefined ? "" : ` to a file of ${size} bytes`}`,
      advice: "run \"git lfs pull\", or download the file itself"
    }
  }
  if (isHtml(text)) {
    return { kind: "page", what: "an HTML page", advice: `${again}: a server answered with a page, such as a login` }
  }
  if (/^<(?:\?xml|Error>)/.test(text)) {
    return { kind: "page", what: "an XML document", advice: `${again}: a server answered with an error` }
  }
  if (/^(?:\{\s*(?:"|\})|\[)/.test(text)) {
    return /"(?:weight_map|total_size)"/.test(text)
      ? {
        kind: "json",
        what: "the index of a model in several files",
        advice: "open it with Safetensors.openSharded"
      }
      : { kind: "json", what: "a JSON document", advice: `${again}: a server may have answered with an error` }
  }
  return { kind: "text", what: `a text that starts with ${quoted(text.slice(0, 40))}`, advice: again }
}

/** Whether a `Content-Type` is that of a page. */
export const isHtmlType = (contentType: string): boolean =>
  /^\s*(?:text\/html|application\/xhtml\+xml)\b/i.test(contentType)

/** Whether a text is a page; vocabularies may start with `<s>` or the like. */
const isHtml = (text: string): boolean =>
  /^\s*(?:<!--|<!doctype html|<(?:html|head|body|title|meta|script|style|h1|p|div|center)\b[^|]*>)/i.test(text)

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** The text of bytes that are UTF-8 without control characters, but for a character that is cut off at the end. */
const textOf = (bytes: Uint8Array): string | undefined => {
  for (const byte of bytes) {
    if (byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d) return undefined
  }
  for (let cut = 0; cut < 4; cut++) {
    try {
      return utf8.decode(bytes.subarray(0, bytes.byteLength - cut))
    } catch {
      if (bytes.byteLength < sniffLength) return undefined
    }
  }
  return undefined
}
