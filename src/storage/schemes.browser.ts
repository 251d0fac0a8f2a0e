/**
 * The schemes of storage URLs in browsers, where there is no file system; see `schemes.ts`.
 */
import { invalid, type Scheme } from "./place.js"
import { hf, http, memory } from "./portableSchemes.js"

const unsupported: Scheme = () => invalid("url", "must begin with http:, https:, hf: or memory: in a browser")

export const schemes = { file: unsupported, s3: unsupported, http, https: http, hf, memory } as const
