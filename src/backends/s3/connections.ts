/**
 * Connections of the S3 storage, each of which reads into one array that it writes again for each read.
 *
 * Why: Node makes a new array for each 64 KiB that it reads, and its HTTP parser another for the part that is body. V8
 * collects those every 32 MiB, and with them the whole heap where the object itself fills a large array: most of the time of
 * a load (rows `s3-load` and `s3-ranges` of the benchmark). `undici` passes on what it reads without a copy, and `node:net`
 * can read into a given array.
 *
 * What it reaches below Node's public interface: it replaces `read` and `unshift` of a connected socket, which `undici` calls
 * (its version is pinned exactly). `S3Storage.layerFromClient` does without, and so do Bun and Deno. It goes as soon as
 * `undici` or `fetch` can read into an array of the caller.
 */
import * as Either from "effect/Either"
import type { Socket } from "node:net"
import { buildConnector, type Dispatcher, Pool } from "undici"
import { connectionFailed, type Flow, type Receiver, type Send } from "../../internal/httpCall.js"
import { proxied } from "../../internal/proxy.js"
import type { InvalidOptions } from "../../StorageError.js"
import { outgoing } from "./outgoing.js"
import { type HttpRequest, originOf, targetOf, type Transport } from "./transport.js"

/** The size of one read, in bytes. */
const readSize = 128 * 1024

export interface Connections {
  readonly transport: Transport
  readonly close: () => void
}

// Idle timeouts are those of `HttpCall`.
const options = { connect: connectLending, headersTimeout: 0, bodyTimeout: 0 }

/** As many connections as there are requests at once, each kept open for a while. Fails where the proxy is not one. */
export const make = (): Either.Either<Connections, InvalidOptions> =>
  Either.map(proxied("S3Storage", options), (proxy) => proxy === undefined ? direct() : through(proxy))

const direct = (): Connections => {
  // One pool, as there is one server. An `Agent` would close the pool of a server whenever one of its connections goes.
  const pools = new Map<string, Pool>()
  const poolOf = (origin: string): Pool => {
    const pool = pools.get(origin) ?? new Pool(origin, options)
    pools.set(origin, pool)
    return pool
  }
  return {
    transport: (request, receiver) => dispatch(poolOf(originOf(request)), request, receiver),
    close: () => {
      for (const pool of pools.values()) void pool.destroy()
    }
  }
}

const through = (proxy: Dispatcher): Connections => ({
  transport: (request, receiver) => holding((receiver) => dispatch(proxy, request, receiver), receiver),
  close: () => void proxy.destroy()
})

/** Holds the first bytes of a body until it is read: where `undici` forwards a request, it does not pause at the head. */
const holding = (send: Send, receiver: Receiver): Flow => {
  let isPaused = false
  let held: Uint8Array | undefined
  const flow = send({
    ...receiver,
    onResponse: (response) => {
      isPaused = true
      receiver.onResponse(response)
    },
    onBytes: (bytes) => {
      if (isPaused) held = Buffer.concat(held === undefined ? [bytes] : [held, bytes])
      else receiver.onBytes(bytes)
    }
  })
  return {
    ...flow,
    pause: () => {
      isPaused = true
      flow.pause()
    },
    resume: () => {
      isPaused = false
      const bytes = held
      held = undefined
      if (bytes !== undefined) receiver.onBytes(bytes)
      // The receiver may have had enough.
      if (!isPaused) flow.resume()
    }
  }
}

const dispatch = (dispatcher: Dispatcher, request: HttpRequest, receiver: Receiver): Flow => {
  let controller: Dispatcher.DispatchController | undefined
  let isAborted = false
  const { headers, method } = request
  dispatcher.dispatch({
    origin: originOf(request),
    path: targetOf(request),
    method,
    headers,
    body: outgoing(request.body, receiver) ?? null,
    // It would close the connection after a HEAD.
    reset: false
  }, {
    onRequestStart: (started) => {
      controller = started
      if (isAborted) started.abort(aborted())
    },
    onResponseStart: (controller, status, headers) => {
      if (status < 200) return
      controller.pause()
      receiver.onResponse({ status, headers: joined(headers) })
    },
    onResponseData: (_, bytes) => receiver.onBytes(bytes),
    // The connection can be used again from the next immediate on, which is set once this has returned.
    onResponseEnd: () => queueMicrotask(() => setImmediate(receiver.onEnd)),
    // Also for a request that cannot be sent at all.
    onResponseError: (_, error) => receiver.onFailure(connectionFailed(error))
  })
  return {
    lendsBytes: true,
    pause: () => controller?.pause(),
    resume: () => controller?.resume(),
    abort: () => {
      isAborted = true
      controller?.abort(aborted())
    }
  }
}

const aborted = () => new Error("the request was aborted")

/** Header fields, each with one value. */
const joined = (headers: Readonly<Record<string, string | Array<string> | undefined>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value = ""]) => [
      name,
      typeof value === "string" ? value : value.join(", ")
    ])
  )

/**
 * Connects as `undici` does, but has the socket read into one array, which is passed on without a copy. What is not consumed
 * at once is copied, and the socket waits: the array holds only what has just arrived.
 */
export function connectLending(options: buildConnector.Options, callback: buildConnector.Callback): void {
  let socket: Socket | undefined
  let waiting: Uint8Array | undefined
  const receive = (count: number, array: Uint8Array): boolean => {
    const bytes = array.subarray(0, count)
    waiting = waiting === undefined ? bytes : Buffer.concat([waiting, bytes])
    socket?.emit("readable")
    if (waiting === bytes) waiting = Buffer.from(bytes)
    return waiting === undefined
  }
  const connect = buildConnector({
    // Only the type requires it here.
    port: Number(options.port),
    onread: { buffer: Buffer.allocUnsafeSlow(readSize), callback: receive }
  })
  connect(options, (...result) => {
    const [error, connected] = result
    if (error === null) {
      socket = connected
      const read = connected.read.bind(connected)
      // Reading on starts the socket again.
      connected.read = (size) => {
        if (waiting === undefined) return read(size) as unknown
        if (size === 0) return null
        const bytes = waiting
        waiting = undefined
        return bytes
      }
      // The rest of what was just read, where the parser was paused.
      connected.unshift = (bytes) => {
        waiting = Buffer.from(bytes)
      }
    }
    callback(...result)
  })
}
