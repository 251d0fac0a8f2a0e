/**
 * A model hub of the tests' own: it lists the tree in pages, redirects large files to addresses of another origin that are
 * signed and expire, and does what else it is told.
 */
import { Effect, type Scope } from "effect"
import { createHash } from "node:crypto"
import * as http from "node:http"
import { listen } from "./loopback.js"

type Answer = (request: http.IncomingMessage, response: http.ServerResponse) => unknown

interface Site {
  readonly url: string
  readonly requests: Array<Pick<http.IncomingMessage, "url" | "headers">>
  /** What happens to requests, instead of what they ask for, one after another. */
  readonly answers: Array<Answer>
}

export interface HubServer {
  readonly hub: Site
  /** Where large files are. */
  readonly host: Site
  readonly files: Map<string, Uint8Array>
  /** As the hub lists them, where that is not so. */
  readonly sizes: Map<string, number>
  /** How often an address may be used. */
  uses: number
  pageSize: number
  /** Changes the commit. */
  version: number
  readonly commit: () => string
}

const hash = (algorithm: string, ...parts: ReadonlyArray<string | Uint8Array>) =>
  parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest("hex")

const site = (answer: Answer): Effect.Effect<Site, never, Scope.Scope> =>
  Effect.gen(function*() {
    const requests: Site["requests"] = []
    const answers: Array<Answer> = []
    const server = http.createServer((request, response) => {
      requests.push({ url: request.url, headers: request.headers })
      const next = answers.shift() ?? answer
      next(request, response)
    })
    return { url: (yield* listen(server)).endpoint, requests, answers }
  })

/** A file, or a range of it. */
const send = (bytes: Uint8Array): Answer => ({ headers }, response) => {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? []
  if (first === undefined) return response.writeHead(200, { "content-length": bytes.byteLength }).end(bytes)
  const end = Math.min(Number(last) + 1, bytes.byteLength)
  return response.writeHead(206, {
    "content-length": end - Number(first),
    "content-range": `bytes ${first}-${end - 1}/${bytes.byteLength}`
  }).end(bytes.subarray(Number(first), end))
}

const json = (response: http.ServerResponse, value: unknown, headers: http.OutgoingHttpHeaders = {}) =>
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value))

const missing = (response: http.ServerResponse, code: string, status = 404) =>
  response.writeHead(status, { "x-error-code": code, "content-type": "application/json" }).end(
    "{\"error\":\"missing\"}"
  )

/** Files with over this many bytes are in Git LFS. */
const largeSize = 100

/** With a token, the hub answers to no request without it. */
export const make = (token?: string): Effect.Effect<HubServer, never, Scope.Scope> =>
  Effect.gen(function*() {
    const uses = new Map<string, number>()
    const host = yield* site((request, response) => {
      const url = new URL(request.url ?? "", "http://host")
      const signature = url.searchParams.get("signature") ?? ""
      const left = uses.get(signature) ?? 0
      uses.set(signature, left - 1)
      const bytes = state.files.get(decodeURIComponent(url.pathname.slice(1)))
      if (left <= 0 || bytes === undefined) return response.writeHead(403).end("expired")
      return send(bytes)(request, response)
    })
    const tree = () =>
      [...state.files].map(([path, bytes]) => {
        const size = state.sizes.get(path) ?? bytes.byteLength
        const oid = hash("sha1", `blob ${size}\0`, bytes)
        const lfs = { oid: hash("sha256", bytes), size, pointerSize: 130 }
        return { type: "file", path, size, oid, ...(bytes.byteLength > largeSize && { lfs }) }
      })
    const hub: Site = yield* site((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? "", "http://hub")
      if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
        return missing(response, "RepoNotFound", 401)
      }
      const commit = state.commit()
      const [, revision] = /^\/api\/models\/acme\/tiny\/revision\/(.+)$/.exec(pathname) ?? []
      if (revision !== undefined) {
        return ["main", "v1%2F0", commit].includes(revision)
          ? json(response, { id: "acme/tiny", sha: commit, lastModified: "2026-01-02T03:04:05.000Z" })
          : missing(response, "RevisionNotFound")
      }
      if (pathname === `/api/models/acme/tiny/tree/${commit}`) {
        const from = Number(searchParams.get("cursor") ?? 0)
        const to = from + state.pageSize
        const all = tree()
        const next = `<${hub.url}${pathname}?recursive=true&cursor=${to}>; rel="next"`
        return json(response, all.slice(from, to), to < all.length ? { link: next } : {})
      }
      const [, path] = new RegExp(`^/acme/tiny/resolve/${commit}/(.+)$`).exec(pathname) ?? []
      if (path === undefined) return missing(response, "RepoNotFound")
      const name = path.split("/").map(decodeURIComponent).join("/")
      const bytes = state.files.get(name)
      if (bytes === undefined) return missing(response, "EntryNotFound")
      if (bytes.byteLength <= largeSize) return send(bytes)(request, response)
      const signature = `s3cret-${uses.size}`
      uses.set(signature, state.uses)
      return response.writeHead(302, { location: `${host.url}/${encodeURIComponent(name)}?signature=${signature}` })
        .end()
    })
    const state: HubServer = {
      hub,
      host,
      files: new Map(),
      sizes: new Map(),
      uses: Infinity,
      pageSize: 1000,
      version: 1,
      commit: () => hash("sha1", String(state.version))
    }
    return state
  })
