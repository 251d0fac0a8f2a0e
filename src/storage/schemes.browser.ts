/**
 * The schemes of storage URLs in browsers, where there is no file system; see `schemes.ts`.
 */
import { http, memory } from "./portableSchemes.js"
import { invalid, type Scheme } from "./url.js"

const unsupported: Scheme = () => invalid("url", "must begin with http:, https: or memory: in a browser")

export const schemes = { file: unsupported, s3: unsupported, http, https: http, memory } as const
