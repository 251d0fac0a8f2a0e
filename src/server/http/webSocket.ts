/**
 * The protocol of the first Surfing Weights: a client asks over a WebSocket for a component by name and number, and receives
 * all of it as JSON, with the bytes in hexadecimal.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Socket from "@effect/platform/Socket"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { parseError } from "../../internal/protocol.js"
import { type StorageError, UnsupportedOperation } from "../../StorageError.js"
import { publicJson, refusal, serverName } from "./responses.js"
import type { Request, Response, Server } from "./server.js"

/** A longer message cannot be a command. */
const maxCommandLength = 1024

/** How many commands may wait for the responses to those before; a client that sends more does not read its responses. */
const maxWaiting = 64

interface Command {
  readonly component: string
  readonly id: number
}

/** `layer`, `block` and each name with an underscore exist once for each number, the other components once. */
export const nameOf = ({ component, id }: Command): string =>
  component === "layer" || component === "block" || component.includes("_") ? `${component}_${id}` : component

const parse = (message: string): Option.Option<Command> => {
  const [, component, id] = /^GET\s+([\w.-]+)\s+(\d{1,9})$/i.exec(message.trim()) ?? []
  return component === undefined ? Option.none() : Option.some({ component, id: Number(id) })
}

/** Answers the commands of a client one by one, until it closes the socket. */
export const serveWebSocket = (server: Server, request: Request): Effect.Effect<Response, never, Scope.Scope> =>
  Effect.gen(function*() {
    const socket = yield* request.upgrade
    const write = yield* socket.writer
    const oneByOne = yield* Effect.makeSemaphore(1)
    let waiting = 0
    yield* socket.runRaw((data) => {
      if (data.length > maxCommandLength) return write(new Socket.CloseEvent(1009, "the command is too long"))
      if (waiting >= maxWaiting) return write(new Socket.CloseEvent(1008, "too many commands at once"))
      waiting++
      const message = typeof data === "string" ? data : new TextDecoder().decode(data)
      return Effect.scoped(
        Effect.flatMap(answer(server, request, message), (text) => Effect.zipRight(write(text), sent))
      )
        .pipe(
          oneByOne.withPermits(1),
          Effect.ensuring(Effect.sync(() => waiting--))
        )
    })
    return HttpServerResponse.empty()
  }).pipe(
    Effect.catchTags({
      RequestError: () => Effect.succeed(refusal(426, "only WebSockets are served here", { upgrade: "websocket" })),
      // It was closed, or broke.
      SocketError: () => Effect.succeed(HttpServerResponse.empty())
    })
  )

const answer = (server: Server, request: Request, message: string): Effect.Effect<string, never, Scope.Scope> =>
  Option.match(parse(message), {
    onNone: () => Effect.succeed(failed("a command must be GET <component> <id>, for instance GET layer 0")),
    onSome: (command) =>
      Effect.catchAll(load(server, request, command), (error) => Effect.succeed(failed(publicMessage(error))))
  })

const publicMessage = (error: StorageError): string =>
  Option.match(parseError(publicJson(error)), { onNone: () => "", onSome: ({ message }) => message })

const failed = (error: string): string => JSON.stringify({ success: false, error })

const load = (
  { settings: { webSocket: { maxObjectSize, toKey } }, storage, transfers }: Server,
  request: Request,
  command: Command
): Effect.Effect<string, StorageError, Scope.Scope> => {
  const key = toKey(command.component, command.id)
  return Effect.gen(function*() {
    const info = yield* storage.head(key)
    if (info.size > maxObjectSize) {
      return yield* new UnsupportedOperation({
        backend: serverName,
        key,
        reason: `the object is too large for a message (${info.size} bytes); load it over HTTP, from /objects/`
      })
    }
    yield* transfers.begin(request)
    const hex = yield* toHex(yield* storage.load(key, { ifMatch: info.etag }))
    return `{"success": true, "component": ${JSON.stringify(nameOf(command))}, "weights": "${hex}"}`
  })
}

const digits = new TextEncoder().encode("0123456789abcdef")

/** In steps, so that other fibers run in between. */
const toHex = (bytes: Uint8Array): Effect.Effect<string> =>
  Effect.gen(function*() {
    const decoder = new TextDecoder("latin1")
    const step = 1024 * 1024
    const parts: Array<string> = []
    for (let start = 0; start < bytes.byteLength; start += step) {
      const piece = bytes.subarray(start, start + step)
      const hex = new Uint8Array(piece.byteLength * 2)
      for (let i = 0; i < piece.byteLength; i++) {
        const byte = piece[i] ?? 0
        hex[2 * i] = digits[byte >> 4] ?? 0
        hex[2 * i + 1] = digits[byte & 15] ?? 0
      }
      parts.push(decoder.decode(hex))
      yield* Effect.yieldNow()
    }
    return parts.join("")
  })

/** Waits until the client has taken what was sent, so that responses do not pile up here. */
const sent = Effect.flatMap(Effect.serviceOption(Socket.WebSocket), (socket) => {
  const buffered = Effect.sync(() => Option.isSome(socket) ? socket.value.bufferedAmount : 0)
  return Effect.repeat(buffered, { until: (bytes) => bytes === 0, schedule: Schedule.spaced("10 millis") })
})
