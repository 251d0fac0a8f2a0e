/**
 * The options of storages over HTTP.
 */
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { hidden, must, redacted } from "../../internal/options.js"

const isUrl = (text: string): boolean => {
  const url = URL.canParse(text) && !/[?#]/.test(text) ? new URL(text) : undefined
  const isHttp = url?.protocol === "http:" || url?.protocol === "https:"
  return isHttp && url.username === "" && url.password === ""
}

const isToken = (token: Redacted.Redacted): boolean => /^[\x21-\x7e]+$/.test(Redacted.value(token))

/** The URL of a server. One that is not allowed may contain a secret. */
export const serverUrl = must(
  Schema.String.pipe(Schema.filter(isUrl)),
  "an http:// or https:// URL without credentials, query and fragment; give a token as token",
  hidden
)

export const bearerToken = must(
  redacted.pipe(Schema.filter(isToken)),
  "printable ASCII characters without spaces, Redacted",
  hidden
)
