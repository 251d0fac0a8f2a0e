/**
 * One request to a weight server or web server, over the `HttpClient` of the storage.
 */
import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import { constTrue } from "effect/Function"
import type * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { type HttpCall, make, type Peer as HttpPeer, type Response } from "../../internal/httpCall.js"
import { isTraced } from "../../internal/observability.js"
import * as protocol from "../../internal/protocol.js"
import * as E from "../../StorageError.js"
import { isBrowser, sendWith, type Upload } from "./transport.js"

/** The server. */
export interface Peer extends HttpPeer {
  readonly client: HttpClient.HttpClient
  /** Without a slash at its end. */
  readonly url: string
  /** Sent to the origin of `url` and to no other. */
  readonly authorization: string | undefined
  /** In milliseconds. */
  readonly idleTimeout: number
  /** Whether it is any web server, and not a weight server. */
  readonly isStatic: boolean
}

/** The path of an object. */
export const pathOf = ({ isStatic }: Peer, key: string): string =>
  isStatic ? `/${protocol.encodeKey(key)}` : protocol.pathOf(key)

/** The path of an object that is read: a browser decodes it unless the server hides its encoding. */
export const readPathOf = (peer: Peer, key: string): string =>
  isBrowser && !peer.isStatic ? pathOf(peer, key) + protocol.identityQuery : pathOf(peer, key)

export interface Request {
  readonly method: "GET" | "HEAD" | "PUT" | "DELETE"
  /** What follows the URL of the peer, or the whole URL of another server. */
  readonly path: string | URL
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly upload?: Upload | undefined
  /** Whether redirects of a `GET` or `HEAD` are followed. Default: true. */
  readonly isFollowed?: boolean
}

/** A response, and the call with which its body is read. */
export interface Exchange {
  /** From where it came, after redirects. */
  readonly url: URL
  readonly response: Response
  readonly call: HttpCall
}

/** A response and its body as text. */
export interface Reply extends Response {
  readonly text: string
}

/** How many redirects of a `GET` or `HEAD` are followed. */
const maxRedirects = 5

/** Sends a request, and returns the response to be read in the scope. */
export const send = (peer: Peer, request: Request): Effect.Effect<Exchange, E.CommonError, Scope.Scope> => {
  const hop = (url: URL, left: number): Effect.Effect<Exchange, E.CommonError, Scope.Scope> =>
    Effect.flatMap(sendTo(peer, url, request), (exchange) => {
      const { call, response } = exchange
      const { location } = response.headers
      const isRedirect = location !== undefined && redirects.has(response.status) && isRead(request) &&
        request.isFollowed !== false
      if (!isRedirect) return Effect.succeed(exchange)
      const next = redirectTo(location, url)
      if (typeof next === "string") return Effect.fail(new E.UnexpectedStorageError({ reason: next }))
      // From a folder to its index; no object has a slash at its end.
      if (peer.isStatic && next.pathname.startsWith(`${url.pathname}/`)) {
        return Effect.succeed({ url, call, response: { status: 404, headers: {} } })
      }
      if (left === 0) {
        const reason = `the server redirects more than ${maxRedirects} times`
        return Effect.fail(new E.UnexpectedStorageError({ reason }))
      }
      return call.text().pipe(Effect.zipRight(call.close), Effect.zipRight(hop(next, left - 1)))
    })
  const { path } = request
  return hop(typeof path === "string" ? new URL(peer.url + path) : path, maxRedirects)
}

const redirects = new Set([301, 302, 303, 307, 308])

const isRead = ({ method }: Request): boolean => method === "GET" || method === "HEAD"

/** The URL of a redirect, or why it is not followed. A URL may contain a signature, so none is shown. */
const redirectTo = (location: string, base: URL): URL | string => {
  const url = URL.canParse(location, base.href) ? new URL(location, base) : undefined
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
    return "the server redirects to something that is not an HTTP URL"
  }
  if (url.username !== "" || url.password !== "") return "the server redirects to a URL with credentials"
  return base.protocol === "https:" && url.protocol !== "https:"
    ? `the server redirects from https to ${url.origin}`
    : url
}

/** Whether a URL is of the origin that the token is for. */
export const isAtHome = (peer: Peer, url: URL): boolean => url.origin === new URL(peer.url).origin

const sendTo = (
  peer: Peer,
  url: URL,
  { headers, method, upload }: Request
): Effect.Effect<Exchange, E.CommonError, Scope.Scope> => {
  const isHome = isAtHome(peer, url)
  const request = HttpClientRequest.make(method)(url, {
    headers: {
      "accept-encoding": "identity",
      ...headers,
      ...(peer.authorization !== undefined && isHome && { authorization: peer.authorization })
    }
  })
  return Effect.gen(function*() {
    const runtime = yield* runtimeFor(peer, isHome)
    const call = yield* Effect.acquireRelease(
      make(sendWith(peer.client, runtime)(request, upload), { idleTimeout: idleTimeoutOf(peer, upload), peer }),
      (call) => call.close
    )
    return { url, call, response: yield* call.send() }
  })
}

/** A browser does not say how far it is with an upload, so there the timeout is for each MiB. */
const idleTimeoutOf = ({ idleTimeout }: Peer, upload: Upload | undefined): number =>
  isBrowser && upload?.body instanceof Uint8Array
    ? idleTimeout * (1 + Math.floor(upload.body.byteLength / (1024 * 1024)))
    : idleTimeout

/** Headers of responses whose URLs may be secrets. */
const withUrls = ["location", "content-location", "link", "refresh"]

/**
 * The runtime of the caller. A span costs as much as a small request, so there is none without a tracer; nor of a redirect,
 * whose URL may be a secret. A web server of others is sent no trace, which a browser would have to ask it for.
 */
const runtimeFor = ({ isStatic }: Peer, isHome: boolean): Effect.Effect<Runtime.Runtime<never>> =>
  Effect.flatMap(isTraced, (isTraced) => {
    const runtime = Effect.runtime<never>()
    if (!isTraced || !isHome) return Effect.locally(runtime, HttpClient.currentTracerDisabledWhen, constTrue)
    const traced = Effect.locallyWith(runtime, Headers.currentRedactedNames, Arr.appendAll(withUrls))
    return isStatic ? Effect.locally(traced, HttpClient.currentTracerPropagation, false) : traced
  })

/** The response with its body as text. */
export const toReply = ({ call, response }: Exchange): Effect.Effect<Reply, E.CommonError> =>
  Effect.map(call.text(), (text) => ({ ...response, text }))

/** Sends a request whose response is a short text. */
export const ask = (peer: Peer, request: Request): Effect.Effect<Reply, E.CommonError> =>
  Effect.scoped(Effect.flatMap(send(peer, request), toReply))

/**
 * The header by which a server recognises a write that it has carried out before: a proxy, or an attempt whose response was
 * lost, may have sent it. Only with a precondition, which does not hold the second time.
 */
export const makeIdempotencyKey = (
  { ifMatch, ifNoneMatch }: { readonly ifMatch?: string | undefined; readonly ifNoneMatch?: "*" | undefined }
): Record<string, string> =>
  ifMatch === undefined && ifNoneMatch === undefined
    ? {}
    // Browsers have `randomUUID` over HTTPS alone.
    : { "idempotency-key": `"${Encoding.encodeHex(crypto.getRandomValues(new Uint8Array(16)))}"` }
