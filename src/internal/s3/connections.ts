/**
 * Connections of our own, each of which reads into one array over and over.
 *
 * Node makes a new array for each 64 KiB that it reads, and its parser of HTTP another for what of it is body. For every
 * 32 MiB of those V8 collects, and where the object itself fills a large array, it collects the whole heap: most of the
 * time of a load. `undici` hands out what it reads as it is, and `node:net` can read into an array that it is given.
 */
import type { Socket } from "node:net"
import { Agent, buildConnector, type Dispatcher } from "undici"
import { originOf, targetOf, type Transport } from "./transport.js"

/** What is read at once, in bytes. */
const readSize = 128 * 1024

/** As many connections as there are requests at once, each kept for a while. */
export const make = (): { readonly transport: Transport; readonly close: () => void } => {
  const agent = new Agent({
    connect: readingIntoOneArray,
    // Idle limits are kept by whoever sends.
    headersTimeout: 0,
    bodyTimeout: 0
  })
  return {
    transport: (request, receiver) => {
      let controller: Dispatcher.DispatchController | undefined
      let isAborted = false
      const { body, headers, method } = request
      agent.dispatch({
        origin: originOf(request),
        path: targetOf(request),
        method,
        headers,
        body: body ?? null
      }, {
        onRequestStart: (started) => {
          controller = started
          if (isAborted) started.abort(aborted())
        },
        onResponseStart: (controller, status, headers) => {
          if (status < 200) return
          controller.pause()
          receiver.onAnswer({ status, headers: joined(headers) })
        },
        onResponseData: (_, bytes) => receiver.onBytes(bytes),
        // Its connection can be used again from the next immediate on, which is set once this has returned.
        onResponseEnd: () => queueMicrotask(() => setImmediate(receiver.onEnd)),
        // Also of what cannot be sent at all.
        onResponseError: (_, error) => receiver.onBroken(error)
      })
      return {
        pause: () => controller?.pause(),
        resume: () => controller?.resume(),
        abort: () => {
          isAborted = true
          controller?.abort(aborted())
        }
      }
    },
    close: () => void agent.destroy()
  }
}

const aborted = () => new Error("the request was given up")

/** Header fields, each with one value. */
const joined = (headers: Readonly<Record<string, string | Array<string> | undefined>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value = ""]) => [
      name,
      typeof value === "string" ? value : value.join(", ")
    ])
  )

/**
 * Connects as `undici` does, but has the socket read into an array of its own, which is handed out as it is. What is not
 * taken at once is copied, and the socket waits: the array never holds anything but what has just come.
 */
export const readingIntoOneArray: buildConnector.connector = (options, callback) => {
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
    // Only the type asks for it here.
    port: Number(options.port),
    onread: { buffer: Buffer.allocUnsafeSlow(readSize), callback: receive }
  })
  connect(options, (...result) => {
    const [error, connected] = result
    if (error === null) {
      socket = connected
      // Lets the socket read on.
      const read = connected.read.bind(connected)
      connected.read = (size) => {
        if (waiting === undefined) return read(size) as unknown
        if (size === 0) return null
        const bytes = waiting
        waiting = undefined
        return bytes
      }
      // What is left of what was just read, where whoever reads wants no more.
      connected.unshift = (bytes) => {
        waiting = Buffer.from(bytes)
      }
    }
    callback(...result)
  })
}
