/**
 * Bearer tokens (RFC 6750): who may read, who may write.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Redacted from "effect/Redacted"
import { AccessDenied } from "../../StorageError.js"
import { failure } from "./respond.js"

export interface Token {
  readonly token: Redacted.Redacted
  readonly scope: "read" | "write"
}

const encoder = new TextEncoder()

/** Whether they are equal, in a time that tells nothing of where they differ: all of `given` is looked at. */
const isEqual = (secret: Uint8Array, given: Uint8Array): boolean => {
  let difference = secret.byteLength ^ given.byteLength
  for (let i = 0; i < given.byteLength; i++) difference |= (secret[i % secret.byteLength] ?? 0) ^ (given[i] ?? 0)
  return difference === 0
}

/** The answer to a request that is not allowed, or `undefined` to one that is. */
export const make = (tokens: ReadonlyArray<Token>, backend: string) => {
  const known = tokens.map(({ scope, token }) => ({ scope, secret: encoder.encode(Redacted.value(token)) }))

  return (
    { headers, method }: HttpServerRequest.HttpServerRequest,
    needed: "read" | "write"
  ): HttpServerResponse.HttpServerResponse | undefined => {
    const deny = (status: number, reason: string, challenge: string) =>
      failure(new AccessDenied({ backend, operation: needed, reason }), method, {
        status,
        headers: { "www-authenticate": `Bearer realm="weights"${challenge}` }
      })
    const [, given] = /^Bearer +([\x21-\x7e]+) *$/i.exec(headers["authorization"] ?? "") ?? []
    if (given === undefined) return deny(401, "it takes a bearer token", "")
    const bytes = encoder.encode(given)
    let scope: Token["scope"] | undefined
    // All of them, though one fits, so that the time tells not which.
    for (const token of known) {
      if (isEqual(token.secret, bytes) && scope !== "write") scope = token.scope
    }
    if (scope === undefined) return deny(401, "the token is not known", `, error="invalid_token"`)
    return needed === "write" && scope === "read"
      ? deny(403, "the token is for reading only", `, error="insufficient_scope"`)
      : undefined
  }
}
