/**
 * Refusing a request that has a body: the answer goes out only once most of the body is in. A client that is still sending
 * when the connection ends sees no answer but a reset.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** What is read of a body that nobody wants, at most: so many bytes, and for so long. */
const most = 16 * 1024 * 1024
const longest = "5 seconds"

const hasBody = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0"

/** Reads on in what is left of the body; with that the connection has no further use. */
export const afterBody = (
  request: HttpServerRequest.HttpServerRequest,
  response: HttpServerResponse.HttpServerResponse
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope> => {
  if (response.status < 400 || !hasBody(request)) return Effect.succeed(response)
  let left = most
  // Not as a stream that is run: the server ends the connection with the last who reads, before the answer.
  return Effect.flatMap(Stream.toPull(request.stream), (pull) =>
    Effect.repeat(
      Effect.map(pull, (chunk) => {
        for (const { byteLength } of chunk) left -= byteLength
      }),
      { while: () => left > 0 }
    )).pipe(
      Effect.timeoutOption(longest),
      Effect.ignore,
      Effect.as(HttpServerResponse.setHeader(response, "connection", "close"))
    )
}
