/**
 * The protocol of the first Surfing Weights: over a WebSocket a client asks for a component by name and number, and gets
 * all of it as JSON with the bytes in hexadecimal.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Socket from "@effect/platform/Socket"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Storage from "../../Storage.js"
import { type StorageError, UnsupportedOperation } from "../../StorageError.js"
import { wrong } from "./respond.js"
import type { Transfers } from "./transfers.js"

export interface Settings {
  readonly transfers: Transfers
  readonly toKey: (component: string, id: number) => string
  /** The largest object that is sent, in bytes. */
  readonly maxObject: number
}

/** `layer`, `block` and whatever has an underscore are there once for each number; other components once. */
export const nameOf = (component: string, id: number): string =>
  component === "layer" || component === "block" || component.includes("_") ? `${component}_${id}` : component

/** A longer message cannot be a command. */
const maxCommand = 1024

/** So many commands wait for the one before; a client with more does not read its answers. */
const maxWaiting = 64

interface Command {
  readonly component: string
  readonly id: number
}

const parse = (message: string): Option.Option<Command> => {
  const [, component, id] = /^GET\s+([\w.-]+)\s+(\d{1,9})$/i.exec(message.trim()) ?? []
  return component === undefined ? Option.none() : Option.some({ component, id: Number(id) })
}

const success = (component: string, bytes: Uint8Array): Effect.Effect<string> =>
  Effect.map(toHex(bytes), (hex) => `{"success": true, "component": ${JSON.stringify(component)}, "weights": "${hex}"}`)

const failed = (error: string): string => JSON.stringify({ success: false, error })

const digits = new TextEncoder().encode("0123456789abcdef")

/** In pieces, so that others have their turn. */
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

export const make = (storage: Storage.Service, { maxObject, toKey, transfers }: Settings) => {
  const load = (request: HttpServerRequest.HttpServerRequest, { component, id }: Command) => {
    const key = toKey(component, id)
    return Effect.gen(function*() {
      const info = yield* storage.head(key)
      if (info.size > maxObject) {
        return yield* new UnsupportedOperation({
          backend: storage.backend.name,
          operation: "load",
          key,
          reason: `its ${info.size} bytes are too many for one message; load it over HTTP, from /objects/`
        })
      }
      yield* transfers.begin(request, "load")
      return yield* success(nameOf(component, id), yield* storage.load(key, { ifMatch: info.etag }))
    })
  }

  const answer = (request: HttpServerRequest.HttpServerRequest, message: string) =>
    Option.match(parse(message), {
      onNone: () => Effect.succeed(failed("a command is GET <component> <id>, for instance GET layer 0")),
      onSome: (command) =>
        Effect.catchAll(load(request, command), (error: StorageError) => Effect.succeed(failed(error.message)))
    })

  return (
    request: HttpServerRequest.HttpServerRequest
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope> =>
    Effect.gen(function*() {
      const socket = yield* request.upgrade
      const write = yield* socket.writer
      const oneByOne = yield* Effect.makeSemaphore(1)
      let waiting = 0
      yield* socket.runRaw((data) => {
        if (data.length > maxCommand) return write(new Socket.CloseEvent(1009, "too long for a command"))
        if (waiting >= maxWaiting) return write(new Socket.CloseEvent(1008, "too many commands at once"))
        waiting++
        const message = typeof data === "string" ? data : new TextDecoder().decode(data)
        return Effect.scoped(Effect.flatMap(answer(request, message), (text) => Effect.zipRight(write(text), sent)))
          .pipe(
            oneByOne.withPermits(1),
            Effect.ensuring(Effect.sync(() => waiting--))
          )
      })
      return HttpServerResponse.empty()
    }).pipe(
      Effect.catchTags({
        RequestError: () =>
          Effect.succeed(wrong(426, "here is a WebSocket, and nothing else", { upgrade: "websocket" })),
        // It closed, or broke.
        SocketError: () => Effect.succeed(HttpServerResponse.empty())
      })
    )
}

/** Waits until the client has taken what was sent, so that answers do not pile up here. */
const sent = Effect.flatMap(Effect.serviceOption(Socket.WebSocket), (socket) => {
  const left = Effect.sync(() => Option.isSome(socket) ? socket.value.bufferedAmount : 0)
  return Effect.repeat(left, { until: (bytes) => bytes === 0, schedule: Schedule.spaced("10 millis") })
})
