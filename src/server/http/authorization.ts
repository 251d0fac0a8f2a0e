/**
 * Which requests are refused before they reach the storage: by bearer tokens (RFC 6750), and those of web pages that may not
 * use the server.
 */
import * as Redacted from "effect/Redacted"
import { AccessDenied } from "../../StorageError.js"
import { failure, serverName } from "./responses.js"
import type { Request, Response, Server } from "./server.js"

export interface Token {
  readonly token: Redacted.Redacted
  readonly scope: "read" | "write"
}

/** The response to a request that is refused, or `undefined`. */
export type Authorize = (server: Server, request: Request, scope: Token["scope"]) => Response | undefined

export const isWrite = ({ method }: Request): boolean => method === "PUT" || method === "DELETE"

const deny = (
  server: Server,
  request: Request,
  reason: string,
  status = 403,
  headers: Readonly<Record<string, string>> = {}
) => failure(server, new AccessDenied({ backend: serverName, reason }), request.method, { status, headers })

/** Requires one of these tokens. */
export const byTokens = (tokens: ReadonlyArray<Token>): Authorize => {
  const encoder = new TextEncoder()
  const known = tokens.map(({ scope, token }) => ({ scope, secret: encoder.encode(Redacted.value(token)) }))
  return (server, request, scope) => {
    const challenge = (error: string) => ({ "www-authenticate": `Bearer realm="weights"${error}` })
    const [, given] = /^Bearer +([\x21-\x7e]+) *$/i.exec(request.headers["authorization"] ?? "") ?? []
    if (given === undefined) return deny(server, request, "a bearer token is required", 401, challenge(""))
    const bytes = encoder.encode(given)
    let granted: Token["scope"] | undefined
    // All of them are compared, so that the time does not depend on which matches.
    for (const token of known) {
      if (isEqual(token.secret, bytes) && granted !== "write") granted = token.scope
    }
    if (granted === undefined) {
      return deny(server, request, "the bearer token is unknown", 401, challenge(`, error="invalid_token"`))
    }
    return scope === "write" && granted === "read"
      ? deny(server, request, "the bearer token only allows reading", 403, challenge(`, error="insufficient_scope"`))
      : undefined
  }
}

/** Compares in a time that does not depend on where the two differ. */
const isEqual = (secret: Uint8Array, given: Uint8Array): boolean => {
  let difference = secret.byteLength ^ given.byteLength
  for (let i = 0; i < given.byteLength; i++) difference |= (secret[i % secret.byteLength] ?? 0) ^ (given[i] ?? 0)
  return difference === 0
}

/**
 * Without authorization, allows writes only under a name of the loopback interface. A web page can have its own name resolve
 * to it (DNS rebinding), and browsers then let the page send any request.
 */
export const byLoopbackName: Authorize = (server, request, scope) => {
  const { host } = request.headers
  const isLoopback = host === undefined || /^(([\w-]+\.)*localhost|127(\.\d+){3}|\[::1\])\.?(:\d*)?$/i.test(host)
  return scope === "read" || isLoopback
    ? undefined
    : deny(server, request, "without authorization, writes are allowed only under a loopback name, such as localhost")
}

/** Refuses WebSockets of pages of other origins. Browsers let any page open one, and only send its origin. */
export const byOrigin = (isAllowed: (origin: string) => boolean): Authorize => (server, request) => {
  const { host, origin, upgrade } = request.headers
  return upgrade === undefined || origin === undefined || isAllowed(origin) ||
      origin.replace(/^[a-z]+:\/\//i, "") === host
    ? undefined
    : deny(server, request, "web pages of this origin may not use the server")
}
