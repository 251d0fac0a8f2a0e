/**
 * A web server of the tests' own that serves what it is given, as plain web servers do: with ranges, etags and dates, or
 * without. On loopback, at a port that was free.
 */
import { Effect, type Scope } from "effect"
import * as http from "node:http"
import { listen } from "./loopback.js"

interface File {
  readonly bytes: Uint8Array
  /** As the header has it. */
  readonly etag?: string
  readonly lastModified?: Date
}

export interface StaticServer {
  readonly url: string
  /** By path, as it is sent. */
  readonly files: Map<string, File>
  /** Every request so far. */
  readonly requests: Array<Pick<http.IncomingMessage, "method" | "url" | "headers">>
  /** What happens to a request, instead of the file that it asks for. */
  readonly answers: Array<(request: http.IncomingMessage, response: http.ServerResponse) => void>
  readonly openSockets: () => number
}

/** `ranges: false` is a server that knows none, and no conditions either. */
export const make = (
  { ranges = true }: { readonly ranges?: boolean } = {}
): Effect.Effect<StaticServer, never, Scope.Scope> =>
  Effect.gen(function*() {
    const files: StaticServer["files"] = new Map()
    const requests: StaticServer["requests"] = []
    const answers: StaticServer["answers"] = []
    const server = http.createServer((request, response) => {
      const { headers, method, url } = request
      requests.push({ method, url, headers })
      const answer = answers.shift()
      if (answer !== undefined) return answer(request, response)
      const file = files.get(url ?? "")
      if (file === undefined) {
        return response.writeHead(404, { "content-type": "text/html" }).end("<h1>Not found</h1>")
      }
      const { bytes, etag, lastModified } = file
      const about = {
        ...(etag !== undefined && { etag }),
        ...(lastModified !== undefined && { "last-modified": lastModified.toUTCString() })
      }
      if (ranges && headers["if-match"] !== undefined && headers["if-match"] !== etag) {
        return response.writeHead(412).end()
      }
      if (ranges && headers["if-none-match"] !== undefined && headers["if-none-match"] === etag) {
        return response.writeHead(304, about).end()
      }
      const [, first = "", last = ""] = ranges ? /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? "") ?? [] : []
      if (first === "" && last === "") {
        response.writeHead(200, { ...about, "content-length": bytes.byteLength })
        return response.end(method === "HEAD" ? undefined : bytes)
      }
      const start = first === "" ? Math.max(0, bytes.byteLength - Number(last)) : Number(first)
      const end = first === "" || last === "" ? bytes.byteLength : Math.min(Number(last) + 1, bytes.byteLength)
      if (start >= end) {
        return response.writeHead(416, { "content-range": `bytes */${bytes.byteLength}` }).end()
      }
      response.writeHead(206, {
        ...about,
        "content-length": end - start,
        "content-range": `bytes ${start}-${end - 1}/${bytes.byteLength}`
      })
      response.end(bytes.subarray(start, end))
    })
    const { endpoint, sockets } = yield* listen(server)
    return { url: endpoint, files, requests, answers, openSockets: () => sockets.size }
  })

/** Gives the beginning of a body that is announced as longer, and closes the connection. */
export const truncated =
  (status: number, headers: http.OutgoingHttpHeaders, body: Uint8Array) =>
  (_: http.IncomingMessage, response: http.ServerResponse): void => {
    response.writeHead(status, headers)
    response.write(body, () => response.socket?.end())
  }
