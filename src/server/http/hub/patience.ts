/**
 * JSON that may take minutes, since objects are read for their hashes. Clients wait for it as long as something arrives, so
 * that after a while the response begins with white space, which JSON allows.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { StorageError } from "../../../StorageError.js"
import { json, logFailure, noSniff } from "../responses.js"
import type { Request, Response, Server } from "../server.js"
import type { Transfer } from "../transfers.js"

/** Clients give up after ten seconds in which nothing arrives. */
const patience = "3 seconds"

const encoder = new TextEncoder()

export const patientJson = (
  { transfers: { requests } }: Server,
  request: Request,
  transfer: Transfer,
  headers: Readonly<Record<string, string>>,
  value: Effect.Effect<unknown, StorageError>
): Effect.Effect<Response, StorageError, Scope.Scope> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkScoped(Effect.map(value, (value) => JSON.stringify(value)))
    const outcome = Effect.timeoutOption(Fiber.await(fiber), patience)
    const early = yield* outcome
    if (Option.isSome(early)) return json(yield* early.value, 200, headers)

    /** After a status that promised an answer, the connection has to break. */
    const breakOff = (error: StorageError) =>
      Effect.zipRight(
        logFailure(request, error),
        Effect.suspend(() => requests.cut(request, "storage") ? Effect.never : Effect.fail(error))
      )
    let isEnded = false
    const next = Effect.flatMap(
      outcome,
      Option.match({
        onNone: () => Effect.succeed(" "),
        onSome: (exit) => {
          isEnded = true
          return Effect.catchAll(exit, breakOff)
        }
      })
    )
    const rest = Stream.repeatEffectOption(
      Effect.suspend(() => isEnded ? Effect.fail(Option.none()) : Effect.mapError(next, Option.some))
    )
    const body = transfer.download(Stream.map(rest, (text) => encoder.encode(text)))
    return HttpServerResponse.stream(body, { contentType: "application/json", headers: { ...noSniff, ...headers } })
  })
