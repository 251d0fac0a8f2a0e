/**
 * Refusing a request that has a body: a client that is still sending when the connection ends sees a reset instead of the
 * response, and Node's waits until all is sent, so the body is read first.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { isWaiting } from "./nodeContinue.js"
import type { Request, Response } from "./server.js"

/** How long a body that is refused is read, and waited for. */
const timeout = "30 seconds"
const idleTimeout = "5 seconds"

export const hasBody = ({ headers }: Request): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0"

/** Reads the rest of the body, and closes the connection after the response. */
export const afterBody = (request: Request, response: Response): Effect.Effect<Response, never, Scope.Scope> =>
  Effect.as(
    // A client that waits sends nothing.
    isWaiting(request) ? Effect.void : readBody(request),
    HttpServerResponse.setHeader(response, "connection", "close")
  )

const readBody = (request: Request): Effect.Effect<void, never, Scope.Scope> =>
  // Not run as a stream: its end would close the connection, before the response.
  Effect.flatMap(Stream.toPull(request.stream), (pull) => Effect.forever(Effect.timeout(pull, idleTimeout))).pipe(
    Effect.timeoutOption(timeout),
    Effect.ignore
  )
