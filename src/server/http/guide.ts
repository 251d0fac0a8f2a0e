/**
 * How to use a server from a command line: what stands above the routes in the OpenAPI document and on the page at `/docs`,
 * in Markdown.
 */
import { errorJson } from "../../internal/protocol.js"
import { ObjectNotFound } from "../../StorageError.js"

/** Who decides whether a request is allowed: nobody, the bearer tokens of the server, or a middleware of the app. */
type Authorization = "none" | "tokens" | "own"

/** What a server allows, as its documentation tells it. */
export interface Access {
  readonly authorization: Authorization
  readonly writable: boolean
}

const authorizations: { readonly [Kind in Authorization]: string } = {
  none: "None is required: requests need no token.",
  tokens:
    "Send `authorization: Bearer <token>` with each request, except for `/health`, `/openapi.json` and `/docs`. " +
    "Without a token that the server knows the response is a 401; a token that only allows reading is refused a write " +
    "with a 403. On this page, press *Authorize* and enter the token.",
  own: "The app that serves these objects decides which requests are allowed: ask its operators what to send."
}

const fence = (language: string, lines: ReadonlyArray<string>): string => ["```" + language, ...lines, "```"].join("\n")

/** What `curl` is called with for each of the main routes. */
const commands = ({ authorization, writable }: Access): string => {
  const curl = authorization === "tokens" ? "curl -H \"authorization: Bearer $TOKEN\"" : "curl"
  const object = "\"$SERVER/objects/bert/model.safetensors\""
  const saving = [
    "# Save a file; the second line only if there is no such object yet",
    `${curl} -T model.safetensors ${object}`,
    `${curl} -T model.safetensors -H "if-none-match: *" ${object}`,
    ""
  ]
  const removing = ["", "# Remove it", `${curl} -X DELETE ${object}`]
  return fence("sh", [
    "# The address of this page, without /docs",
    "SERVER=http://127.0.0.1:8765",
    ...(authorization === "tokens" ? ["TOKEN=\"...\""] : []),
    "",
    ...(writable ? saving : []),
    "# Load an object",
    `${curl} -f -o copy.safetensors ${object}`,
    "",
    "# Its first 8 bytes; its size, etag and metadata",
    `${curl} -r 0-7 -o first.bin ${object}`,
    `${curl} -I ${object}`,
    "",
    "# A page of the listing; all of it, one entry a line",
    `${curl} "$SERVER/objects?prefix=bert/&delimiter=/"`,
    `${curl} -H "accept: application/x-ndjson" "$SERVER/objects"`,
    "",
    "# Whether the storage can be reached",
    "curl \"$SERVER/health\"",
    ...(writable ? removing : [])
  ])
}

/** A guide to a server, whose failures bear its public name. */
export const guide = (name: string, access: Access): string => {
  const failure = new ObjectNotFound({ backend: name, operation: "open", key: "bert/none" })
  return [
    "Objects of any size under keys, with ranges and preconditions as in RFC 9110.",
    "## With curl",
    commands(access),
    "## Authorization",
    authorizations[access.authorization],
    "## Errors",
    "A failure has a status that fits and a JSON body, here of a 404:",
    fence("json", [errorJson(failure)]),
    "`_tag` says what failed, as in the schema `StorageError` below; `reason`, where there is one, says why. The response to " +
    "a `HEAD` has the same JSON in the header `storage-error`, percent-encoded. A request that is not about an object, " +
    "such as one to an unknown path, is refused with `{\"error\": \"...\"}`. A 503 and a 504 may pass: try again, " +
    "after the seconds in `retry-after` if it is there."
  ].join("\n\n")
}
