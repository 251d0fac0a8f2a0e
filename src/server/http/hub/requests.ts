/**
 * What clients of a model hub ask for, by path, query and body.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { decodeKey } from "../../../internal/protocol.js"
import { has } from "../nodeConnection.js"
import type { Request } from "../server.js"
import { targetOf } from "../server.js"
import type { Transfer } from "../transfers.js"

/** A model, and a place in one of its revisions. */
export interface Target {
  /** `<org>/<name>`. */
  readonly id: string
  readonly revision: string
  /** Below the model, without slashes at its ends; empty for all of it. */
  readonly path: string
}

/** What is asked of `/api/models/`. */
export type ApiTarget = Target & { readonly what: "info" | "tree" | "paths-info" }

const decoded = (...texts: ReadonlyArray<string>): Option.Option<ReadonlyArray<string>> =>
  Option.all(texts.map((text) => decodeKey(text)))

const apiPath = /^([^/]+)\/([^/]+)(?:\/(revision|tree|paths-info)\/([^/]+)(\/.*)?)?$/

/** What follows `/api/models/` in a path. */
export const parseApiPath = (rest: string): Option.Option<ApiTarget> => {
  const [, org, name, what = "revision", rev = "main", below = ""] = apiPath.exec(rest) ?? []
  if (org === undefined || name === undefined || (what !== "tree" && below !== "")) return Option.none()
  return Option.map(decoded(org, name, rev, below), ([org, name, revision = "", path = ""]) => ({
    id: `${org}/${name}`,
    revision,
    path: path.replace(/^\/+|\/+$/g, ""),
    what: what === "tree" || what === "paths-info" ? what : "info"
  }))
}

// A file is the same as it is in Git, which clients ask for to know whether it exists.
const filePath = /^([^/]+)\/([^/]+)\/(?:resolve|raw)\/([^/]+)\/(.+)$/

/** What follows `/` in the path of a file. */
export const parseFilePath = (rest: string): Option.Option<Target> => {
  const [, org, name, rev, path] = filePath.exec(rest) ?? []
  return org === undefined || name === undefined || rev === undefined || path === undefined
    ? Option.none()
    : Option.map(decoded(org, name, rev, path), ([org, name, revision = "", path = ""]) => ({
      id: `${org}/${name}`,
      revision,
      path
    }))
}

/** Whether a path is that of a file of something else than a model with an organization. */
export const isOtherFile = (rest: string): boolean => /^([^/]+\/){1,3}(resolve|raw)\/[^/]+\/.+$/.test(rest)

/** The most entries of a page of a tree, as of huggingface.co. */
const maxPage = 1000

export interface TreeQuery {
  readonly isRecursive: boolean
  readonly isExpanded: boolean
  readonly limit: number
  readonly after: string
}

// Python writes True.
const isTrue = (value: string | null): boolean => /^(true|1)$/i.test(value ?? "")

export const parseTreeQuery = (query: string): TreeQuery => {
  const params = new URLSearchParams(query)
  const limit = Number(params.get("limit") ?? maxPage)
  return {
    isRecursive: isTrue(params.get("recursive")),
    isExpanded: isTrue(params.get("expand")),
    limit: Number.isInteger(limit) && limit > 0 ? Math.min(limit, maxPage) : maxPage,
    after: Either.getOrElse(Encoding.decodeBase64UrlString(params.get("cursor") ?? ""), () => "")
  }
}

export const wantsBlobs = (query: string): boolean => isTrue(new URLSearchParams(query).get("blobs"))

/** The `Link` to the next page. Clients only follow an absolute URL. */
export const nextLink = (request: Request, place: string): string => {
  const target = targetOf({ url: request.originalUrl })
  const params = new URLSearchParams(target.query)
  params.set("cursor", Encoding.encodeBase64Url(place))
  return `<${originOf(request)}${target.path}?${params.toString()}>; rel="next"`
}

/** The origin under which the client asked, also behind a proxy that says so. */
const originOf = (request: Request): string => {
  const { headers, originalUrl, source } = request
  const first = (name: string) => headers[name]?.split(",")[0]?.trim()
  const isEncrypted = originalUrl.startsWith("https:") ||
    (has(source, "socket") && has(source.socket, "encrypted") && source.socket.encrypted === true)
  const protocol = first("x-forwarded-proto") ?? (isEncrypted ? "https" : "http")
  const host = first("x-forwarded-host") ?? headers["host"] ?? ""
  // Nothing that could end the URL, or begin another header.
  return /^https?$/.test(protocol) && /^[\w.:[\]-]+$/.test(host) ? `${protocol}://${host}` : ""
}

/** The most bytes of a request for paths, and the most paths. */
const maxBody = 1024 * 1024
const maxPaths = 1000

export interface PathsQuery {
  readonly paths: ReadonlyArray<string>
  readonly isExpanded: boolean
}

const PathsJson = Schema.parseJson(Schema.Struct({
  paths: Schema.Union(Schema.String, Schema.Array(Schema.String)),
  expand: Schema.optionalWith(Schema.Boolean, { nullable: true })
}))

/** The body of a request for paths, as JSON or as a form; `None` where it is neither, or too large. */
export const receivePaths = (
  request: Request,
  transfer: Transfer
): Effect.Effect<Option.Option<PathsQuery>, never, Scope.Scope> =>
  // In the scope of the request: the connection closes with a body that is abandoned.
  Effect.flatMap(Stream.toPull(request.stream), (pull) => {
    const decoder = new TextDecoder()
    let size = 0
    let text = ""
    const receive: Effect.Effect<Option.Option<PathsQuery>> = Effect.suspend(() => {
      transfer.waitForClient()
      return Effect.matchEffect(pull, {
        onFailure: (end) => Effect.succeed(Option.isSome(end) ? Option.none() : parsePaths(request, text)),
        onSuccess: (chunk) => {
          for (const bytes of chunk) {
            size += bytes.byteLength
            text += decoder.decode(bytes, { stream: true })
          }
          return size > maxBody ? Effect.succeedNone : receive
        }
      })
    })
    return Effect.tap(receive, () => Effect.sync(() => transfer.waitForStorage()))
  })

const parsePaths = ({ headers }: Request, text: string): Option.Option<PathsQuery> => {
  const isForm = headers["content-type"]?.startsWith("application/x-www-form-urlencoded") === true
  const form = new URLSearchParams(text)
  const query = isForm
    ? Option.some({ paths: form.getAll("paths"), isExpanded: isTrue(form.get("expand")) })
    : Option.map(Schema.decodeOption(PathsJson)(text), ({ expand, paths }) => ({
      paths: typeof paths === "string" ? [paths] : paths,
      isExpanded: expand === true
    }))
  return Option.filter(query, ({ paths }) => paths.length <= maxPaths)
}
