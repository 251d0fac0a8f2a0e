/**
 * The connection on which a request came, where the server shows it, as Node's does.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"

type Request = HttpServerRequest.HttpServerRequest

interface Connection {
  readonly closed: boolean
  readonly destroyed: boolean
  readonly destroy: () => unknown
  readonly once: (event: "close", listener: () => void) => unknown
}

const has = <Key extends string>(value: unknown, ...keys: ReadonlyArray<Key>): value is Record<Key, unknown> =>
  typeof value === "object" && value !== null && keys.every((key) => key in value)

const connectionOf = ({ source }: Request): Connection | undefined =>
  has(source, "socket") && has(source.socket, "closed", "destroyed", "destroy", "once")
    ? source.socket as unknown as Connection
    : undefined

/**
 * Breaks it, and tells whether it did. An answer that has begun and cannot be completed must end so: a server that ends
 * it as any other lets the client take it for whole, or wait for the rest.
 */
export const breakOff = (request: Request): boolean => {
  const connection = connectionOf(request)
  if (connection === undefined || connection.destroyed) return false
  connection.destroy()
  return true
}

interface Response {
  end: (...args: ReadonlyArray<unknown>) => unknown
  readonly once: (event: "finish", listener: () => void) => unknown
}

/** Who waits on a connection: one listener for all, as Node warns of more than ten. */
const waiting = new WeakMap<Connection, Set<() => void>>()

const waitersOn = (connection: Connection): Set<() => void> => {
  const there = waiting.get(connection)
  if (there !== undefined) return there
  const waiters = new Set<() => void>()
  waiting.set(connection, waiters)
  connection.once("close", () => {
    for (const over of waiters) over()
  })
  return waiters
}

/**
 * Lets whoever waits until the answer is out wait no longer than there is a connection. Of an answer that was not sent
 * Node says nothing, and who waits for it has a place among the transfers.
 */
export const waitNoLonger = (request: Request): void => {
  const connection = connectionOf(request)
  if (connection === undefined || !has(request, "response") || !has(request.response, "end", "once")) return
  const response = request.response as unknown as Response
  const { end } = response
  response.end = (...args) => {
    const sent = args.at(-1)
    if (typeof sent === "function") {
      const over = sent as () => void
      if (connection.closed) queueMicrotask(over)
      else {
        const waiters = waitersOn(connection).add(over)
        response.once("finish", () => waiters.delete(over))
      }
    }
    return end.apply(response, args as Array<unknown>)
  }
}

/**
 * Tells of an array whether the connection has it all: it was the last to be written of the answer, and nothing of that
 * is left to be sent. Where the server does not show it, it tells of none.
 */
export const hasTaken = (request: Request): (bytes: Uint8Array) => boolean => {
  if (!has(request, "response") || !has(request.response, "write", "writableLength")) return () => false
  const response = request.response as { write: (...args: ReadonlyArray<unknown>) => unknown; writableLength: number }
  const { write } = response
  let last: unknown
  response.write = (...args) => {
    last = args[0]
    return write.apply(response, args as Array<unknown>)
  }
  return (bytes) => last === bytes && response.writableLength === 0
}
