/**
 * The protocol of the first Surfing Weights (PyPI `streaming-weights`): a client asks over a WebSocket for a component by name
 * and number, and receives all of it as JSON, with the bytes in hexadecimal.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Socket from "@effect/platform/Socket"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { parseError } from "../../internal/protocol.js"
import { IdleTimer } from "../../internal/timeouts.js"
import { isStorageError, type StorageError, UnsupportedOperation } from "../../StorageError.js"
import { destroyConnection, destroyConnectionAfter } from "./nodeConnection.js"
import { NodeWebSocket } from "./nodeWebSocket.js"
import { causeOf, logFailure, publicJson, refusal, serverName } from "./responses.js"
import type { Request, Response, Server } from "./server.js"

/** A longer message, in bytes, cannot be a command. */
const maxCommandLength = 1024

/** How many commands may wait for the responses to those before, until no more are read. */
const maxWaiting = 64

/** How much of an object is read, held and sent at once, in bytes. */
const pieceSize = 256 * 1024

/** How long a client may take to close its side, in milliseconds, until the connection is cut. */
const closeTimeout = 5000

interface Command {
  readonly component: string
  readonly id: string
}

/** Components with an underscore that exist only once. */
const once = new Set([
  "ln_f",
  "shared_embeddings",
  "encoder_embeddings",
  "decoder_embeddings",
  "encoder_final_layer_norm",
  "decoder_final_layer_norm",
  "embed_tokens"
])

/** `layer`, `block` and most names with an underscore exist once for each id, the other components once. */
export const nameOf = ({ component, id }: Command): string =>
  component === "layer" || component === "block" || (component.includes("_") && !once.has(component))
    ? `${component}_${id}`
    : component

const parse = (message: string): Option.Option<Command> => {
  const [, component, id] = /^GET\s+(\S+)\s+(\S+)$/i.exec(message.trim()) ?? []
  return component === undefined || id === undefined
    ? Option.none()
    : Option.some({ component: component.toLowerCase(), id })
}

/** Answers the commands of a client one by one, until it closes the WebSocket or is idle. */
export const serveWebSocket = (server: Server, request: Request): Effect.Effect<Response, never, Scope.Scope> =>
  Effect.suspend(() => {
    NodeWebSocket.hold(request)
    return Effect.tapError(request.upgrade, () => Effect.sync(() => NodeWebSocket.release(request)))
  }).pipe(
    Effect.flatMap((socket) => converse(server, request, socket)),
    Effect.as(HttpServerResponse.empty()),
    Effect.catchTags({
      RequestError: () => Effect.succeed(refusal(426, "only WebSockets are served here", { upgrade: "websocket" })),
      // It was closed, or broke.
      SocketError: () => Effect.succeed(HttpServerResponse.empty())
    })
  )

const converse = (
  server: Server,
  request: Request,
  socket: Socket.Socket
): Effect.Effect<void, Socket.SocketError, Scope.Scope> =>
  Effect.gen(function*() {
    const { settings: { idleTimeout } } = server
    yield* Effect.addFinalizer(() => Effect.sync(() => destroyConnectionAfter(request, closeTimeout)))
    // Runs while nothing is to be answered. A client shows that it is there by a command, or a pong.
    const timer = new IdleTimer(yield* Effect.clock, idleTimeout, () => destroyConnection(request))
    yield* Effect.addFinalizer(() => Effect.sync(() => timer.stop()))

    const write = yield* socket.writer
    const commands = yield* Queue.unbounded<string>()
    const hasManyCommands = () => Option.exists(commands.unsafeSize(), (size) => size >= maxWaiting)
    let node: NodeWebSocket | undefined
    let isAnswering = false
    const onSign = () => {
      // Whether a client takes its answer is for the timer of the transfer.
      if (!isAnswering) timer.restart()
    }
    const receive = socket.runRaw((data) => {
      if (data.length > maxCommandLength) return write(new Socket.CloseEvent(1009, "the command is too long"))
      commands.unsafeOffer(typeof data === "string" ? data : new TextDecoder().decode(data))
      if (node === undefined && hasManyCommands()) {
        return write(new Socket.CloseEvent(1008, "too many commands at once"))
      }
      if (hasManyCommands()) node?.pause()
      return undefined
    }, {
      onOpen: Effect.sync(() => {
        node = NodeWebSocket.open(request, { maxMessage: maxCommandLength, onSign })
      })
    })
    const ping = Effect.forever(Effect.delay(Effect.sync(() => node?.ping()), idleTimeout / 2))

    const whole = sendWhole(write)
    const send: Send = (part, isLast) => node === undefined ? whole(part, isLast) : node.send(part, isLast)
    const answerNext = Effect.gen(function*() {
      isAnswering = false
      timer.restart()
      const command = yield* Queue.take(commands)
      isAnswering = true
      timer.pause()
      if (!hasManyCommands()) node?.resume()
      const isComplete = yield* Effect.scoped(answer(server, request, command, send))
      if (!isComplete) yield* Effect.zipRight(write(brokeOff), Effect.never)
    })
    yield* Effect.forkScoped(ping)
    yield* Effect.raceFirst(receive, Effect.forever(answerNext))
  })

const brokeOff = new Socket.CloseEvent(1011, "the answer broke off")

/** Sends a part of a message. */
type Send = (part: Uint8Array, isLast: boolean) => Effect.Effect<void, Socket.SocketError>

/** Sends the parts of a message together, where the platform is not Node. */
const sendWhole = (write: Effect.Effect.Success<Socket.Socket["writer"]>): Send => {
  const decoder = new TextDecoder()
  let parts: Array<string> = []
  return (part, isLast) => {
    parts.push(decoder.decode(part))
    if (!isLast) return Effect.void
    const message = parts.join("")
    parts = []
    return write(message)
  }
}

const encoder = new TextEncoder()

/** Answers a command. Returns whether the answer is complete: the storage may fail in the middle of it. */
const answer = (
  server: Server,
  request: Request,
  message: string,
  send: Send
): Effect.Effect<boolean, Socket.SocketError, Scope.Scope> => {
  const refuse = (error: string) =>
    Effect.as(send(encoder.encode(JSON.stringify({ success: false, error })), true), true)
  const command = parse(message)
  if (Option.isNone(command)) return refuse("a command must be GET <component> <id>, for instance GET layer 0")
  let hasBegun = false
  const sending = sendObject(server, request, command.value, (part, isLast) => {
    hasBegun = true
    return send(part, isLast)
  })
  return Effect.catchIf(Effect.as(sending, true), isStorageError, (error) =>
    Effect.zipRight(
      hasBegun
        ? Effect.logError(`the answer to ${JSON.stringify(message)} broke off: ${error.message}`, ...causeOf(error))
        : logFailure(request, error),
      hasBegun ? Effect.succeed(false) : refuse(publicMessage(server, error))
    ))
}

const publicMessage = (server: Server, error: StorageError): string =>
  Option.match(parseError(publicJson(server, error)), { onNone: () => "", onSome: ({ message }) => message })

/** Sends an object as it is read; nothing before its first bytes are there. */
const sendObject = (
  { settings: { webSocket: { maxObjectSize, toKey } }, storage, transfers }: Server,
  request: Request,
  { component, id }: Command,
  send: Send
): Effect.Effect<void, StorageError | Socket.SocketError, Scope.Scope> =>
  Effect.gen(function*() {
    const key = toKey(component, id)
    // Begun before the object is opened, so that it ends after the object is closed.
    const transfer = yield* transfers.begin(request)
    const { info, stream } = yield* storage.open(key, { chunkSize: pieceSize })
    if (info.size > maxObjectSize) {
      return yield* new UnsupportedOperation({
        backend: serverName,
        key,
        reason: `the object is too large for a message (${info.size} bytes); load it over HTTP, from /objects/`
      })
    }
    const sendPart = (part: Uint8Array, isLast = false) =>
      Effect.suspend(() => {
        transfer.waitForClient()
        return Effect.map(send(part, isLast), () => transfer.waitForStorage())
      })
    const head = encoder.encode(`{"success": true, "component": ${JSON.stringify(`${component}_${id}`)}, "weights": "`)
    let hasBegun = false
    const begin = Effect.suspend(() => {
      if (hasBegun) return Effect.void
      hasBegun = true
      return sendPart(head)
    })
    yield* Stream.runForEach(stream, (bytes) =>
      Effect.zipRight(
        begin,
        Effect.forEach(piecesOf(bytes), (piece) => sendPart(toHex(piece)), { discard: true })
      ))
    yield* Effect.zipRight(begin, sendPart(encoder.encode(`"}`), true))
  })

const piecesOf = function*(bytes: Uint8Array): Generator<Uint8Array> {
  for (let start = 0; start < bytes.byteLength; start += pieceSize) yield bytes.subarray(start, start + pieceSize)
}

/** The two digits of each byte, as they lie in memory. */
const digits = new Uint16Array(
  Uint8Array.from({ length: 512 }, (_, i) => "0123456789abcdef".charCodeAt(i % 2 === 0 ? i >> 5 : (i >> 1) & 15)).buffer
)

const toHex = (bytes: Uint8Array): Uint8Array => {
  const hex = new Uint16Array(bytes.byteLength)
  for (let i = 0; i < bytes.byteLength; i++) hex[i] = digits[bytes[i] ?? 0] ?? 0
  return new Uint8Array(hex.buffer)
}
