/**
 * What the server can do, as an OpenAPI document, and as a page to read.
 */
import * as JSONSchema from "effect/JSONSchema"
import * as Schema from "effect/Schema"
import { StorageError } from "../../StorageError.js"
import { checksumHeader, Entry, errorHeader, Health, ObjectInfo, Page } from "../wire.js"

interface Parameter {
  readonly name: string
  readonly in: "path" | "query" | "header"
  readonly description: string
  readonly required?: boolean
  readonly schema: object
}

interface Answer {
  readonly description: string
  readonly headers?: Readonly<Record<string, { readonly description: string; readonly schema: object }>>
  readonly content?: Readonly<Record<string, { readonly schema: object }>>
}

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly description?: string
  readonly parameters?: ReadonlyArray<Parameter>
  readonly requestBody?: object
  readonly responses: Readonly<Record<string, Answer>>
  readonly security?: ReadonlyArray<object>
}

export interface Document {
  readonly openapi: string
  readonly info: { readonly title: string; readonly version: string; readonly description: string }
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly [more: string]: unknown
}

const text = { type: "string" }

const header = (name: string, description: string): Parameter => ({ name, in: "header", description, schema: text })

const query = (name: string, description: string, schema: object = text): Parameter => ({
  name,
  in: "query",
  description,
  schema
})

const key: Parameter = {
  name: "key",
  in: "path",
  required: true,
  description: "The key, each of its segments percent-encoded. It may have several, separated by /.",
  schema: text
}

const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` })

const answer = (description: string, schema: object, type = "application/json"): Answer => ({
  description,
  content: { [type]: { schema } }
})

const failure = (description: string): Answer => answer(description, ref("StorageError"))

const failures = {
  400: failure("The key cannot be one, or the request cannot be read."),
  401: failure("A token is needed, or not known."),
  403: failure("The token, or the storage, does not allow it."),
  404: failure("There is no object of this key."),
  503: failure("The storage, or the server, cannot answer now; retry-after may tell when.")
}

const shown = (name: string, description: string) => ({ [name]: { description, schema: text } })

const ofObject = {
  ...shown("etag", "Changes whenever the object does."),
  ...shown("last-modified", "When it was saved."),
  ...shown("accept-ranges", "bytes"),
  ...shown(checksumHeader, "A checksum of the whole object, where the storage has one (RFC 9530).")
}

const conditions = [
  header("if-match", "Only if the object has one of these etags."),
  header("if-none-match", "Only if it has none of these."),
  header("if-unmodified-since", "Only if it was not saved since."),
  header("if-modified-since", "Only if it was.")
]

const bytes = { "application/octet-stream": { schema: { type: "string", format: "binary" } } }

const unchanged = { description: "The object still has the etag of if-none-match." }

export const document = (
  { hasTokens, redirects, writable }: {
    readonly hasTokens: boolean
    readonly redirects: boolean
    readonly writable: boolean
  }
): Document => ({
  openapi: "3.1.0",
  info: {
    title: "Weight server",
    version: "1",
    description: "Objects of any size under keys, with ranges and conditions as in RFC 9110."
  },
  servers: [{ url: "." }],
  ...(hasTokens && { security: [{ token: [] }] }),
  paths: {
    "/objects/{key}": {
      get: {
        operationId: "get",
        summary: "The bytes of an object, or of a range of it",
        parameters: [
          key,
          header(
            "range",
            "One range of bytes, for instance bytes=0-7 or bytes=-16. Of several the whole object comes."
          ),
          header("if-range", "The etag with which the range is wanted; with another the whole object comes."),
          ...conditions
        ],
        responses: {
          200: { description: "All of it.", headers: ofObject, content: bytes },
          206: {
            description: "The range.",
            headers: { ...ofObject, ...shown("content-range", "Which bytes, of how many.") },
            content: bytes
          },
          304: unchanged,
          ...(redirects && {
            307: { description: "The bytes are at this URL for a while.", headers: shown("location", "The URL.") }
          }),
          412: failure("A condition does not hold."),
          416: failure("The range names no byte of the object."),
          ...failures
        }
      },
      head: {
        operationId: "head",
        summary: "What is known of an object",
        description: `A failure is in the header ${errorHeader}, as percent-encoded JSON.`,
        parameters: [key, ...conditions],
        responses: {
          200: { description: "It is there.", headers: ofObject },
          304: unchanged,
          404: { description: "None." }
        }
      },
      ...(writable && {
        put: {
          operationId: "put",
          summary: "Save an object, all of it or nothing",
          parameters: [
            key,
            header("if-none-match", "* for: only if there is none of this key."),
            header("if-match", "Only if there is one with this etag.")
          ],
          requestBody: { required: true, content: bytes },
          responses: {
            200: answer("It is saved.", ref("ObjectInfo")),
            201: answer("It is saved, and there was none before.", ref("ObjectInfo")),
            412: failure("A condition does not hold, and nothing has changed."),
            413: failure("It is larger than the server takes."),
            507: failure("There is no room for it."),
            ...failures
          }
        },
        delete: {
          operationId: "delete",
          summary: "Remove an object",
          parameters: [key],
          responses: { 204: { description: "There is none of this key now." }, ...failures }
        }
      })
    },
    "/objects": {
      get: {
        operationId: "list",
        summary: "The objects, in the order of the bytes of their keys",
        description: "With accept: application/x-ndjson all of them, a line each; a last line with _tag is a failure.",
        parameters: [
          query("prefix", "Only keys that start with this."),
          query("startAfter", "Only keys after this."),
          query("delimiter", "/ shows what is deeper than the prefix as prefixes.", { type: "string", enum: ["/"] }),
          query("limit", "The most objects and prefixes of a page, up to 1000.", { type: "integer", minimum: 1 })
        ],
        responses: {
          200: {
            description: "A page of them, or all.",
            content: {
              "application/json": { schema: ref("Page") },
              "application/x-ndjson": { schema: ref("Entry") }
            }
          },
          ...failures
        }
      }
    },
    "/health": {
      get: {
        operationId: "health",
        summary: "Whether the storage can be reached",
        security: [],
        responses: { 200: answer("It can.", ref("Health")), 503: failure("It cannot.") }
      }
    },
    "/metrics": {
      get: {
        operationId: "metrics",
        summary: "Metrics of the process, for Prometheus",
        responses: { 200: answer("All of them.", text, "text/plain"), 401: failures[401] }
      }
    }
  },
  components: {
    schemas: schemas({ ObjectInfo, Page, Entry, Health, StorageError }),
    ...(hasTokens && { securitySchemes: { token: { type: "http", scheme: "bearer" } } })
  }
})

/** As they are on the wire, where no failure has a cause. */
const schemas = (named: Readonly<Record<string, Schema.Schema.AnyNoContext>>): Record<string, unknown> => {
  const definitions: Record<string, JSONSchema.JsonSchema7> = {}
  const own = Object.entries(named).map(([name, schema]) => [
    name,
    JSONSchema.fromAST(Schema.encodedSchema(schema).ast, {
      definitions,
      definitionPath: "#/components/schemas/",
      target: "jsonSchema2020-12"
    })
  ])
  const text = JSON.stringify(
    { ...definitions, ...Object.fromEntries(own) },
    (name, value: unknown) => name === "cause" ? undefined : value
  )
  return JSON.parse(text) as Record<string, unknown>
}

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")

/** The document as a page that needs nothing from elsewhere. */
export const page = ({ info, paths }: Document): string => {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const rows = (operation.parameters ?? []).map((parameter) =>
        `<tr><td><code>${escape(parameter.name)}</code></td><td>${parameter.in}</td><td>${
          escape(parameter.description)
        }</td></tr>`
      )
      const answers = Object.entries(operation.responses).map(([status, { description, headers = {} }]) =>
        `<tr><td><code>${status}</code></td><td>${escape(description)}</td><td>${
          Object.keys(headers).map((name) => `<code>${escape(name)}</code>`).join(", ")
        }</td></tr>`
      )
      return `<section id="${escape(operation.operationId)}"><h2><code>${method.toUpperCase()} ${
        escape(path)
      }</code></h2>
<p>${escape(operation.summary)}. ${escape(operation.description ?? "")}</p>
${rows.length === 0 ? "" : `<table><tr><th>parameter</th><th>in</th><th></th></tr>${rows.join("")}</table>`}
<table><tr><th>status</th><th></th><th>headers</th></tr>${answers.join("")}</table></section>`
    })
  )
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escape(info.title)}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0;width:100%}td,th{border:1px solid #8884;padding:.2rem .6rem;text-align:left}
h2{margin-top:2rem;font-size:1.1rem}</style></head>
<body><h1>${escape(info.title)}</h1><p>${escape(info.description)} <a href="openapi.json">openapi.json</a></p>
${operations.join("\n")}
</body></html>
`
}
