/**
 * The definition of the server: its routes, parameters, statuses and schemas. The routes, the OpenAPI document and the page
 * at `/docs` are made from it.
 */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiMiddleware from "@effect/platform/HttpApiMiddleware"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as HttpApiSecurity from "@effect/platform/HttpApiSecurity"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Schema from "effect/Schema"
import { checksumHeader, Entry, errorHeader, Health, ObjectInfo, Page } from "../../internal/protocol.js"
import * as E from "../../StorageError.js"
import * as Guide from "./guide.js"

// Responses

const empty = (status: number, description: string) =>
  Schema.Void.annotations(HttpApiSchema.annotations({ status, description }))

const bytes = (status: number, description: string) =>
  HttpApiSchema.Uint8Array().annotations(HttpApiSchema.annotations({ status, description }))

/** A `StorageError` as the server sends it, without its cause. */
const storageError = Schema.Union(
  ...E.StorageError.members.map(({ fields }) => {
    const { cause: _, ...sent }: Schema.Struct.Fields = fields
    return Schema.encodedSchema(Schema.Struct(sent))
  })
  // A filter keeps the union together, which would otherwise be listed member by member.
).pipe(Schema.filter(() => true))

const failure = (status: number, description: string) =>
  storageError.annotations(HttpApiSchema.annotations({ identifier: "StorageError", status, description }))

const invalidKey = failure(400, "The key is invalid.")
const forbidden = failure(403, "The token, or the storage, does not allow the operation.")
const notFound = failure(404, "There is no object with this key.")
const preconditionFailed = failure(412, "A precondition does not hold; nothing was changed.")
const unavailable = failure(503, "The storage or the server is unavailable; retry-after may say for how long.")

/** Documents header fields of responses, for which `HttpApiEndpoint` has no schema. */
const withHeaders = (names: Readonly<Record<string, string>>, statuses: ReadonlyArray<number>) => {
  const described = Object.entries(names).map(([name, description]) =>
    [name, { description, schema: { type: "string" } }] as const
  )
  const headers = Object.fromEntries(described)
  const transform = (operation: { responses?: Record<string, object> }) => {
    for (const status of statuses) Object.assign(operation.responses?.[status] ?? {}, { headers })
    return operation
  }
  return OpenApi.annotations({ transform })
}

// Parameters

const text = (description: string) => Schema.optional(Schema.String.annotations({ description }))

const keyPath = Schema.Struct({
  key: Schema.String.annotations({ description: "The key, each segment percent-encoded. It may contain slashes." })
})

const encoding = Schema.Struct({
  encoding: Schema.optional(
    Schema.Literal("identity").annotations({
      description: "With identity, as with accept-encoding: identity, the content encoding of the object is sent as " +
        "x-object-content-encoding, so that the client does not decode it."
    })
  )
})

const preconditions = {
  "if-match": text("Only if the object has one of these etags."),
  "if-none-match": text("Only if the object has none of these etags."),
  "if-unmodified-since": text("Only if the object was not saved after this time."),
  "if-modified-since": text("Only if the object was saved after this time.")
}

const attributes = {
  "content-type": "The media type of the object.",
  "content-encoding": "The encoding of the object; the server neither encodes nor decodes.",
  "content-language": "The language of the object.",
  "content-disposition": "How browsers save the object.",
  "cache-control": "How caches keep the object.",
  "x-object-meta-*": "Metadata: values under names of your own, encoded as in RFC 2047 where they are not ASCII."
}

const objectHeaders = {
  etag: "Changes whenever the object does.",
  "last-modified": "When the object was saved.",
  "accept-ranges": "bytes",
  "content-range": "In a response with a range: which bytes, and the size of the object.",
  [checksumHeader]: "A checksum of the whole object, where the storage keeps one (RFC 9530).",
  ...attributes,
  "x-object-attributes": "Which of content-type and cache-control were saved with the object, and are not defaults."
}

/** The query of a listing. */
export const ListQuery = Schema.Struct({
  prefix: Schema.optionalWith(Schema.String.annotations({ description: "Only keys that start with this string." }), {
    default: () => ""
  }),
  startAfter: Schema.optionalWith(Schema.String.annotations({ description: "Only keys after this string." }), {
    default: () => ""
  }),
  delimiter: Schema.optionalWith(
    Schema.Literal("", "/").annotations({
      description: "With /, deeper objects are listed as their common prefixes.",
      message: () => "delimiter must be /"
    }),
    { default: () => "" as const }
  ),
  limit: Schema.optional(
    Schema.NumberFromString.pipe(Schema.int(), Schema.positive()).annotations({
      description: "The most objects and prefixes to list; a page holds at most 1000.",
      message: () => ({ message: "limit must be a whole number of at least 1", override: true })
    })
  )
})

export type ListQuery = typeof ListQuery.Type

// Endpoints

const get = HttpApiEndpoint.get("get", "/objects/:key")
  .setPath(keyPath)
  .setUrlParams(encoding)
  .setHeaders(Schema.Struct({
    range: text("One range, for instance bytes=0-7 or bytes=-16. For several ranges the whole object is sent."),
    "if-range": text("The etag to which the range applies; for any other, the whole object is sent."),
    ...preconditions
  }))
  .addSuccess(bytes(200, "The whole object."))
  .addSuccess(bytes(206, "The range."))
  .addError(empty(304, "The object has not changed."))
  .addError(empty(307, "With redirects: the object is at the URL in location for a limited time."))
  .addError(invalidKey)
  .addError(notFound)
  .addError(preconditionFailed)
  .addError(failure(416, "The range is not satisfiable; content-range has the size of the object."))
  .annotateContext(withHeaders(objectHeaders, [200, 206]))
  .annotate(OpenApi.Summary, "Load an object, or a range of it")

const head = HttpApiEndpoint.head("head", "/objects/:key")
  .setPath(keyPath)
  .setUrlParams(encoding)
  .setHeaders(Schema.Struct(preconditions))
  .addSuccess(empty(200, "There is an object with this key."))
  .addError(empty(304, "The object has not changed."))
  .addError(empty(404, "There is no object with this key."))
  .addError(empty(412, "A precondition does not hold."))
  .annotateContext(withHeaders(objectHeaders, [200]))
  .annotate(OpenApi.Summary, "Object metadata, without the body")
  .annotate(OpenApi.Description, `A failure is in the header ${errorHeader}, as percent-encoded JSON.`)

const idempotencyKey = text(
  "An id of this request, the same when it is repeated: where the precondition does not hold because the request was carried " +
    "out before, the response is that of then."
)

const put = HttpApiEndpoint.put("put", "/objects/:key")
  .setPath(keyPath)
  .setHeaders(Schema.Struct({
    "if-none-match": text("With *, only if there is no object with this key."),
    "if-match": text("Only if there is an object with this key and one of these etags."),
    "idempotency-key": idempotencyKey,
    "content-digest": text("Digests of the body (RFC 9530): sha-512, sha-256, sha, md5. A wrong one is a 400."),
    "repr-digest": text("The same as content-digest."),
    "content-md5": text("The MD5 of the body in base64. A wrong one is a 400."),
    "content-type": text(attributes["content-type"]),
    "content-encoding": text(attributes["content-encoding"]),
    "content-language": text(attributes["content-language"]),
    "content-disposition": text(attributes["content-disposition"]),
    "cache-control": text(attributes["cache-control"]),
    "x-object-meta-*": text(attributes["x-object-meta-*"]),
    "x-object-attributes": text("Which of content-type and cache-control are the object's; without this header, both.")
  }))
  .setPayload(HttpApiSchema.Uint8Array())
  .addSuccess(ObjectInfo.annotations(HttpApiSchema.annotations({ status: 200, description: "The object is saved." })))
  .addSuccess(
    ObjectInfo.annotations(HttpApiSchema.annotations({ status: 201, description: "The object is saved, and is new." }))
  )
  .addError(invalidKey)
  .addError(failure(411, "Neither content-length nor transfer-encoding was sent."))
  .addError(preconditionFailed)
  .addError(failure(413, "The object is larger than the server accepts."))
  .addError(failure(507, "The storage is full."))
  .annotate(OpenApi.Summary, "Save an object, all or nothing")

const remove = HttpApiEndpoint.del("delete", "/objects/:key")
  .setPath(keyPath)
  .setHeaders(Schema.Struct({
    "if-match": text("Only if there is an object with this key and one of these etags."),
    "idempotency-key": idempotencyKey
  }))
  .addSuccess(empty(204, "There is no object with this key any more."))
  .addError(invalidKey)
  .addError(preconditionFailed)
  .annotate(OpenApi.Summary, "Remove an object")

const list = HttpApiEndpoint.get("list", "/objects")
  .setUrlParams(ListQuery)
  .addSuccess(
    Page.annotations({
      description:
        "A page; with accept: application/x-ndjson every Entry, one a line; with ; end=count a last line {\"end\": lines}."
    })
  )
  .annotate(OpenApi.Summary, "List objects in the byte order of their keys")

const metrics = HttpApiEndpoint.get("metrics", "/metrics")
  .addSuccess(HttpApiSchema.Text().annotations({ description: "In the text format of Prometheus." }))
  .annotate(OpenApi.Summary, "Metrics of the process")

const health = HttpApiEndpoint.get("health", "/health")
  .addSuccess(Health.annotations({ description: "The storage can be reached." }))
  .addError(unavailable)
  .annotate(OpenApi.Summary, "Whether the storage can be reached, and what the server supports")

const webSocket = HttpApiEndpoint.get("webSocket", "/").annotate(OpenApi.Exclude, true)
const openApi = HttpApiEndpoint.get("openApi", "/openapi.json").annotate(OpenApi.Exclude, true)
const docs = HttpApiEndpoint.get("docs", "/docs").annotate(OpenApi.Exclude, true)

// Groups: by the scope that they need

const read = HttpApiGroup.make("read", { topLevel: true })
  .add(get)
  .add(head)
  .add(list)
  .add(metrics)
  .add(webSocket)
  .addError(forbidden)
  .addError(unavailable)

const write = HttpApiGroup.make("write", { topLevel: true }).add(put).add(remove).addError(forbidden).addError(
  unavailable
)

const open = HttpApiGroup.make("public", { topLevel: true }).add(health).add(openApi).add(docs)

// The routes of a model hub

const hubModelPath = {
  organization: Schema.String.annotations({ description: "The first segment of the keys." }),
  name: Schema.String.annotations({ description: "The second segment of the keys." })
}

const hubRevisionPath = {
  ...hubModelPath,
  revision: Schema.String.annotations({ description: "main, or the current commit." })
}

const hubFilePath = {
  ...hubRevisionPath,
  path: Schema.String.annotations({ description: "What follows in the keys, each segment percent-encoded." })
}

const hubMissing = empty(404, "There is no such model, revision or file, as x-error-code says.")

const hubJson = (description: string) =>
  HttpApiSchema.Text({ contentType: "application/json" }).annotations({ description })

const isTrue = text("true, True or 1 for yes.")

const hubModel = HttpApiEndpoint.get("hubModel", "/api/models/:organization/:name")
  .setPath(Schema.Struct(hubModelPath))
  .addSuccess(hubJson("The model, its files (siblings) and its commit (sha)."))
  .addError(hubMissing)
  .annotate(OpenApi.Summary, "A model")

const hubRevision = HttpApiEndpoint.get("hubRevision", "/api/models/:organization/:name/revision/:revision")
  .setPath(Schema.Struct(hubRevisionPath))
  .setUrlParams(Schema.Struct({ blobs: isTrue }))
  .addSuccess(hubJson("The same; with blobs also the sizes and hashes of the files."))
  .addError(hubMissing)
  .annotate(OpenApi.Summary, "A model at a revision")

const hubTree = HttpApiEndpoint.get("hubTree", "/api/models/:organization/:name/tree/:revision/:path")
  .setPath(Schema.Struct(hubFilePath))
  .setUrlParams(Schema.Struct({
    recursive: isTrue,
    expand: isTrue,
    limit: text("The most entries; a page holds at most 1000."),
    cursor: text("As in the Link of the page before.")
  }))
  .addSuccess(hubJson("Files and folders, with sizes and SHA-256. The header link has the next page."))
  .addError(hubMissing)
  .annotate(OpenApi.Summary, "The files of a model, or of a folder of it")

const hubPaths = HttpApiEndpoint.post("hubPaths", "/api/models/:organization/:name/paths-info/:revision")
  .setPath(Schema.Struct(hubRevisionPath))
  .setPayload(Schema.Struct({ paths: Schema.Array(Schema.String), expand: Schema.optional(Schema.Boolean) }))
  .addSuccess(hubJson("Those of the files and folders that there are."))
  .addError(hubMissing)
  .annotate(OpenApi.Summary, "Some files and folders of a model")

const hubFile = HttpApiEndpoint.get("hubFile", "/:organization/:name/resolve/:revision/:path")
  .setPath(Schema.Struct(hubFilePath))
  .setHeaders(Schema.Struct({ range: text("As for an object."), ...preconditions }))
  .addSuccess(bytes(200, "The whole file."))
  .addSuccess(bytes(206, "The range."))
  .addError(hubMissing)
  .annotateContext(withHeaders({
    ...objectHeaders,
    "x-repo-commit": "The current commit of the model.",
    "x-linked-etag": "The SHA-256 of the whole file.",
    "x-linked-size": "The size of the whole file."
  }, [200, 206]))
  .annotate(OpenApi.Summary, "Load a file of a model, or a range of it; also HEAD")

class Authorization extends HttpApiMiddleware.Tag<Authorization>()("surfing-weights/WeightServer/Authorization", {
  failure: failure(401, "A bearer token is required, or the one given is unknown."),
  security: { token: HttpApiSecurity.bearer }
}) {}

const hub = HttpApiGroup.make("hub", { topLevel: true })
  .add(hubModel)
  .add(hubRevision)
  .add(hubTree)
  .add(hubPaths)
  .add(hubFile)
  .addError(forbidden)
  .addError(unavailable)

type Groups = typeof read | typeof write | typeof open | typeof hub

/** The scope that an endpoint needs: read, write, or none. */
export type Access = Groups["identifier"]

export type EndpointName = HttpApiGroup.HttpApiGroup.Endpoints<Groups>["name"]

/** The definition of a server of this name, which is a model hub or not. */
export const makeApi = (name: string, access: Guide.Access, isHub: boolean) => {
  const { writable } = access
  const requiresTokens = access.authorization === "tokens"
  const readOnly = HttpApi.make("weights")
    .add(requiresTokens ? read.middleware(Authorization) : read)
    .add(open)
    .annotate(HttpApi.AdditionalSchemas, [Schema.encodedSchema(Entry).annotations({ identifier: "Entry" })])
    .annotateContext(OpenApi.annotations({
      title: "Weight server",
      version: "1",
      description: Guide.guide(name, access),
      servers: [{ url: "." }]
    }))
  const api = writable ? readOnly.add(requiresTokens ? write.middleware(Authorization) : write) : readOnly
  return isHub ? api.add(requiresTokens ? hub.middleware(Authorization) : hub) : api
}
