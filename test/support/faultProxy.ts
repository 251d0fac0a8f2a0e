/**
 * A proxy between an S3 client and a real server, on loopback and without TLS, that breaks what it is told to break.
 * Where no rule matches, a request passes unchanged, `Host` included, as that is signed. Time is real time.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as http from "node:http"
import type { Socket } from "node:net"
import { finished, pipeline } from "node:stream/promises"
import { setTimeout } from "node:timers/promises"
import { listen } from "./loopback.js"

/** What happens to a request. A body that has not as many bytes as a fault comes `after` passes unharmed. */
export type Fault = Data.TaggedEnum<{
  /**
   * Resets the connection after so many bytes of the answer's body. The client may get fewer, as a reset overtakes what
   * it has not read. Without `after`, the whole request is taken, nothing is passed on, and the connection is reset.
   */
  ResetAnswer: { readonly after?: number }
  /** Resets the connection after so many bytes of the request's body. */
  ResetRequest: { readonly after: number }
  /** Sends no more after so many bytes of the answer's body; without `after`, nothing, and nothing is passed on. */
  StallAnswer: { readonly after?: number }
  /**
   * Reads no more after so many bytes of the request's body, until `clear`. That the client has gone shows only then.
   */
  StallRequest: { readonly after: number }
  /** Closes the connection in an orderly way after so many bytes of the answer's body. */
  TruncateAnswer: { readonly after: number }
  /** Gives so many bytes of the answer's body at a time, and waits so many milliseconds after each time. */
  SlowAnswer: { readonly bytes: number; readonly interval: number }
  /** Gives this answer to the whole request, or to its headers if it waits for a 100, and passes nothing on. */
  Answer: { readonly status: number; readonly headers?: http.OutgoingHttpHeaders; readonly body?: string }
  /** Passes the request on, takes the whole answer, and resets the connection. */
  DropAnswer: object
  /** Passes the request on twice, one after the other, and gives the second answer. */
  Repeat: object
  /** Runs this before it passes the request on. */
  Before: { readonly effect: Effect.Effect<unknown> }
  /** Replaces headers of the answer, by their names in lower case, or removes them. */
  RewriteHeaders: { readonly headers: Readonly<Record<string, string | undefined>> }
}>
export const Fault = Data.taggedEnum<Fault>()

interface Request {
  readonly method: string
  /** As it was sent, percent-encoded and without the query. */
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
}

/** The start of the range that a request asks for, or 0. */
export const startOf = ({ headers }: Request): number => Number(/^bytes=(\d+)-/.exec(headers.range ?? "")?.[1] ?? 0)

interface SeenRequest extends Request {
  /** Of the server's answer or of the one in its place; undefined where there is none yet. */
  status: number | undefined
  readonly fault: Fault["_tag"] | undefined
}

interface Rule {
  readonly match: (request: Request) => boolean
  /** How many requests it is for: 1 by default. */
  readonly times?: number
  readonly fault: Fault
}

export interface FaultProxy {
  readonly endpoint: string
  /** The first rule that matches a request, and is not used up, is the one for it. */
  readonly add: (rule: Rule) => void
  /** Forgets all rules, and reads the rest of the requests that are not read any more, to no purpose. */
  readonly clear: () => void
  /** Every request so far, in the order of arrival. */
  readonly requests: ReadonlyArray<Readonly<SeenRequest>>
  /** How many connections of clients are open. */
  readonly openSockets: () => number
  /** How many requests have neither been answered in full nor been given up. */
  readonly activeRequests: () => number
}

/** A proxy to the server at this URL for as long as the scope is open. */
export const make = (target: string): Effect.Effect<FaultProxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const agent = yield* Effect.acquireRelease(
      Effect.sync(() => new http.Agent({ keepAlive: true })),
      (agent) => Effect.sync(() => agent.destroy())
    )
    const requests: Array<SeenRequest> = []
    let rules: ReadonlyArray<Rule & { left: number }> = []
    let active = 0
    const stalled = new Set<() => void>()
    const stall = () => new Promise<void>((resolve) => stalled.add(resolve))

    const take = (request: Request): Fault | undefined => {
      const rule = rules.find(({ left, match }) => left > 0 && match(request))
      if (rule !== undefined) rule.left--
      return rule?.fault
    }

    const serve = (incoming: http.IncomingMessage, response: http.ServerResponse) => {
      const request = requestOf(incoming)
      const fault = take(request)
      const seen: SeenRequest = { ...request, status: undefined, fault: fault?._tag }
      requests.push(seen)
      active++
      response.once("close", () => active--)
      void handle({ target, agent, incoming, response, socket: incoming.socket, fault, seen, stall })
    }

    // Connections stay open until a client closes them, however long a test takes.
    const server = http.createServer({ keepAliveTimeout: 0, requestTimeout: 0 })
    const { endpoint, sockets } = yield* listen(server.on("request", serve).on("checkContinue", serve))

    return {
      endpoint,
      add: (rule) => {
        rules = [...rules, { ...rule, left: rule.times ?? 1 }]
      },
      clear: () => {
        rules = []
        for (const resume of stalled) resume()
        stalled.clear()
      },
      requests,
      openSockets: () => sockets.size,
      activeRequests: () => active
    }
  })

const requestOf = ({ headers, method = "", url = "" }: http.IncomingMessage): Request => {
  const end = url.includes("?") ? url.indexOf("?") : url.length
  return { method, path: url.slice(0, end), query: new URLSearchParams(url.slice(end)), headers }
}

interface Exchange {
  readonly target: string
  readonly agent: http.Agent
  readonly incoming: http.IncomingMessage
  readonly response: http.ServerResponse
  readonly socket: Socket
  readonly fault: Fault | undefined
  readonly seen: SeenRequest
  /** Ends with the next `clear`. */
  readonly stall: () => Promise<void>
}

const handle = async (exchange: Exchange): Promise<void> => {
  const { fault, incoming, response, seen, socket } = exchange
  switch (fault?._tag) {
    case "Answer": {
      const { body = "", headers = {}, status } = fault
      const waits = incoming.headers.expect !== undefined
      if (!waits) await takeBody(exchange)
      // What a client that waited for a 100 sends next may be its body or another request.
      if (waits) response.shouldKeepAlive = false
      seen.status = status
      response.writeHead(status, { "content-length": Buffer.byteLength(body), ...headers }).end(body)
      return
    }
    case "ResetAnswer":
    case "StallAnswer": {
      if (fault.after !== undefined) return passOn(exchange)
      await takeBody(exchange)
      if (fault._tag === "ResetAnswer") socket.resetAndDestroy()
      return
    }
    case "Repeat":
      return repeat(exchange).catch(() => void exchange.socket.destroy())
    case "Before":
      await Effect.runPromise(fault.effect)
      return passOn(exchange)
    default:
      return passOn(exchange)
  }
}

const takeBody = async ({ incoming, response }: Exchange): Promise<void> => {
  if (incoming.headers.expect !== undefined) response.writeContinue()
  await finished(incoming.resume()).catch(ignore)
}

const repeat = async ({ agent, incoming, response, seen, target }: Exchange): Promise<void> => {
  if (incoming.headers.expect !== undefined) response.writeContinue()
  const body = Buffer.concat(await incoming.toArray() as ReadonlyArray<Buffer>)
  const send = async () => {
    const { method, rawHeaders, url } = incoming
    const request = http.request(target, { agent, method, path: url, headers: rawHeaders })
    const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
      request.once("response", resolve).on("error", reject)
    })
    request.end(body)
    return await answered
  }
  await finished((await send()).resume())
  const answer = await send()
  seen.status = answer.statusCode
  response.sendDate = false
  response.writeHead(answer.statusCode ?? 0, answer.statusMessage, answer.rawHeaders)
  return pipeline(answer, response)
}

// Whatever goes wrong between here and the server breaks the connection to the client.
const passOn = (exchange: Exchange): Promise<void> => relay(exchange).catch(() => void exchange.socket.destroy())

const relay = async (exchange: Exchange): Promise<void> => {
  const { agent, fault, incoming, response, seen, socket, stall, target } = exchange
  const { method, rawHeaders, url } = incoming
  const request = http.request(target, { agent, method, path: url, headers: rawHeaders })
  const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.once("response", resolve).on("error", reject)
  })
  response.once("close", () => request.destroy())
  request.once("continue", () => response.writeContinue())
  request.flushHeaders()

  // What was written before has gone to the system by then.
  const flushed = () => new Promise((resolve) => socket.write("", resolve))
  const reset = async () => {
    await flushed()
    // A client that finds both at once may take the reset for an orderly end.
    await setTimeout(20)
    socket.resetAndDestroy()
    await forever
  }
  const close = async () => {
    await flushed()
    socket.end()
    await forever
  }

  switch (fault?._tag) {
    case "ResetRequest":
      pipeline(incoming, cut(fault.after, reset), request).catch(ignore)
      break
    case "StallRequest":
      pipeline(incoming, cut(fault.after, stall), request).catch(ignore)
      break
    default:
      incoming.pipe(request)
  }

  const answer = await answered
  seen.status = answer.statusCode
  if (fault?._tag === "DropAnswer") {
    await finished(answer.resume())
    socket.resetAndDestroy()
    return
  }
  const headers = fault?._tag === "RewriteHeaders" ? rewrite(answer.rawHeaders, fault.headers) : answer.rawHeaders
  response.sendDate = false
  response.writeHead(answer.statusCode ?? 0, answer.statusMessage, headers)
  switch (fault?._tag) {
    case "ResetAnswer":
      return pipeline(answer, cut(fault.after ?? 0, reset), response)
    case "StallAnswer":
      return pipeline(answer, cut(fault.after ?? 0, () => forever), response)
    case "TruncateAnswer":
      return pipeline(answer, cut(fault.after, close), response)
    case "SlowAnswer":
      return pipeline(answer, slow(fault.bytes, fault.interval), response)
    default:
      return pipeline(answer, response)
  }
}

const rewrite = (raw: ReadonlyArray<string>, headers: Readonly<Record<string, string | undefined>>): Array<string> => {
  const kept = raw.filter((_, i) => !((raw[i - i % 2] ?? "").toLowerCase() in headers))
  const added = Object.entries(headers).flatMap(([name, value]) => value === undefined ? [] : [name, value])
  return [...kept, ...added]
}

const forever = new Promise<void>(() => {})
const ignore = () => {}

/** Passes on so many bytes, then does something else, and drops the rest. */
const cut = (count: number, then: () => Promise<void>) =>
  async function*(source: AsyncIterable<Buffer>) {
    let left = count
    let isCut = false
    for await (const chunk of source) {
      if (isCut) continue
      yield chunk.subarray(0, left)
      isCut = chunk.length >= left
      left -= chunk.length
      if (isCut) await then()
    }
  }

const slow = (bytes: number, interval: number) =>
  async function*(source: AsyncIterable<Buffer>) {
    let left = bytes
    for await (const chunk of source) {
      for (let start = 0; start < chunk.length;) {
        const piece = chunk.subarray(start, start + left)
        yield piece
        start += piece.length
        left -= piece.length
        if (left > 0) continue
        await setTimeout(interval)
        left = bytes
      }
    }
  }
