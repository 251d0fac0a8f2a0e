/**
 * Refusing a request that has a body: a client that is still sending when the connection ends sees a reset instead of the
 * response, so most of the body is read first.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Request, Response } from "./server.js"

/** How much is read of a body that is refused, in bytes. */
const maxSize = 16 * 1024 * 1024

const timeout = "5 seconds"

export const hasBody = ({ headers }: Request): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0"

/** Reads the rest of the body, and closes the connection after the response. */
export const afterBody = (request: Request, response: Response): Effect.Effect<Response, never, Scope.Scope> =>
  // Not run as a stream: its end would close the connection, before the response.
  Effect.flatMap(Stream.toPull(request.stream), (pull) => {
    let left = maxSize
    const read = Effect.map(pull, (chunk) => {
      for (const { byteLength } of chunk) left -= byteLength
    })
    return Effect.repeat(read, { while: () => left > 0 })
  }).pipe(
    Effect.timeoutOption(timeout),
    Effect.ignore,
    Effect.as(HttpServerResponse.setHeader(response, "connection", "close"))
  )
