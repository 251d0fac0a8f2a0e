/**
 * What the platform's `HttpServerRequest` does not offer: the connection of a request, and how far a response is sent. Read
 * from the `node:http` objects that `@effect/platform-node` shows as `source` and `response`; on a server that does not show
 * them, each function does nothing.
 *
 * - `destroyConnection`, `destroyConnectionAfter` and `endWithConnection` go once the platform breaks a connection whose
 *   response fails, and ends responses that cannot be sent any more.
 * - `sentCheck` is worth it in the benchmark row `http-large`: a chunk that has been sent is read into again, and the garbage
 *   collector has nothing to do.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"

type Request = HttpServerRequest.HttpServerRequest

interface Connection {
  readonly closed: boolean
  readonly destroyed: boolean
  readonly destroy: () => unknown
  readonly pause: () => unknown
  readonly resume: () => unknown
  readonly once: (event: "close", listener: () => void) => unknown
}

type Method = (...args: ReadonlyArray<unknown>) => unknown

interface EndableResponse {
  end: Method
  readonly once: (event: "finish" | "close", listener: () => void) => unknown
}

interface WritableResponse {
  write: Method
  readonly writableLength: number
}

export const has = <Key extends string>(value: unknown, ...keys: ReadonlyArray<Key>): value is Record<Key, unknown> =>
  typeof value === "object" && value !== null && keys.every((key) => key in value)

const isConnection = (value: unknown): value is Connection =>
  has(value, "closed", "destroyed", "destroy", "pause", "resume", "once")

const isEndable = (value: unknown): value is EndableResponse => has(value, "end", "once")

const isWritable = (value: unknown): value is WritableResponse => has(value, "write", "writableLength")

export const connectionOf = ({ source }: Request): Connection | undefined =>
  has(source, "socket") && isConnection(source.socket) ? source.socket : undefined

const responseOf = (request: Request): unknown => has(request, "response") ? request.response : undefined

/**
 * Breaks the connection, and returns whether it did. A response that has begun and cannot be completed must end so: ended in
 * any other way, the client takes it for complete, or waits for the rest.
 */
export const destroyConnection = (request: Request): boolean => {
  const connection = connectionOf(request)
  if (connection === undefined || connection.destroyed) return false
  connection.destroy()
  return true
}

/** Breaks the connection unless it closes by itself within this many milliseconds. */
export const destroyConnectionAfter = (request: Request, millis: number): void => {
  const connection = connectionOf(request)
  if (connection === undefined || connection.closed) return
  const timer = setTimeout(() => connection.destroy(), millis)
  connection.once("close", () => clearTimeout(timer))
}

/** Callbacks to run when a connection closes: one listener for all, as Node warns of more than ten. */
const callbacks = new WeakMap<Connection, Set<() => void>>()

const callbacksOf = (connection: Connection): Set<() => void> => {
  const known = callbacks.get(connection)
  if (known !== undefined) return known
  const added = new Set<() => void>()
  callbacks.set(connection, added)
  connection.once("close", () => {
    for (const callback of added) callback()
  })
  return added
}

/**
 * Calls the callback of `response.end` also where the connection closes before the response is sent. Node does not, and the
 * request's fiber, with its place among the transfers, would wait for ever.
 */
export const endWithConnection = (request: Request): void => {
  const response = responseOf(request)
  if (!isEndable(response)) return
  const { end } = response
  response.end = (...args) => {
    const callback = args.at(-1)
    if (isFunction(callback)) {
      const forget = onClose(request, callback)
      if (forget !== undefined) response.once("finish", forget)
    }
    return end.apply(response, [...args])
  }
}

/**
 * Calls the callback once the response is sent, or cannot be sent any more, and returns whether it will. The response is
 * complete when the system has all of it.
 */
export const onResponseEnd = (request: Request, callback: (isComplete: boolean) => void): boolean => {
  const response = responseOf(request)
  if (!isEndable(response)) return false
  let isComplete = false
  response.once("finish", () => isComplete = true)
  // Node closes no response that waits for one before it on the same connection.
  const forget = onClose(request, () => callback(isComplete))
  if (forget === undefined) return false
  response.once("close", () => {
    forget()
    callback(isComplete)
  })
  return true
}

/** Calls the callback once the connection is closed, and returns whether it will. */
export const onConnectionEnd = (request: Request, callback: () => void): boolean =>
  onClose(request, callback) !== undefined

/** Calls the callback once the connection is closed, unless the returned function is called first. */
const onClose = (request: Request, callback: () => void): (() => void) | undefined => {
  const connection = connectionOf(request)
  if (connection === undefined) return undefined
  if (connection.closed) {
    queueMicrotask(callback)
    return () => {}
  }
  const waiting = callbacksOf(connection).add(callback)
  return () => waiting.delete(callback)
}

const isFunction = (value: unknown): value is (...args: ReadonlyArray<unknown>) => unknown =>
  typeof value === "function"

/**
 * Returns a function that is true for an array that the system has taken as a whole: it was the last one written to the
 * response, and nothing is left to be sent.
 */
export const sentCheck = (request: Request): (bytes: Uint8Array) => boolean => {
  const response = responseOf(request)
  if (!isWritable(response)) return () => false
  const { write } = response
  let last: unknown
  response.write = (...args) => {
    last = args[0]
    return write.apply(response, [...args])
  }
  return (bytes) => last === bytes && response.writableLength === 0
}
