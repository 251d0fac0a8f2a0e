/**
 * A forward proxy: `GET http://…` is forwarded, `CONNECT` opens a tunnel. It resolves every name that ends in `.invalid` as
 * loopback, so that only those who use it reach such a name.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as http from "node:http"
import * as net from "node:net"
import { listen } from "./loopback.js"

export interface ForwardProxy {
  /** `host:port` of it. */
  readonly at: string
  /** Each request as the proxy received it, such as `CONNECT weights.invalid:443`. */
  readonly requests: Array<string>
}

const resolve = (host: string) => host.endsWith(".invalid") ? "127.0.0.1" : host

/** With `password`, requests without the user `user` and this password are refused. */
export const forwardProxy = (password?: string): Effect.Effect<ForwardProxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const requests: Array<string> = []
    const expected = password && `Basic ${Buffer.from(`user:${password}`).toString("base64")}`
    const isAllowed = ({ headers, method = "", url = "" }: http.IncomingMessage) => {
      requests.push(`${method} ${url}`)
      return expected === undefined || headers["proxy-authorization"] === expected
    }
    const server = http.createServer((request, response) => {
      if (!isAllowed(request)) return void response.writeHead(407, { "proxy-authenticate": "Basic" }).end()
      const { hostname, pathname, port, search } = new URL(request.url ?? "")
      const { headers, method } = request
      const to = { host: resolve(hostname), port, path: pathname + search, method, headers, agent: false }
      const forwarded = http.request(to, (from) => {
        response.writeHead(from.statusCode ?? 502, from.headers)
        from.pipe(response)
      })
      forwarded.on("error", () => response.destroy())
      request.pipe(forwarded)
    })
    server.on("connect", (request, socket, head) => {
      socket.on("error", () => {})
      if (!isAllowed(request)) return void socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
      const [host = "", port] = (request.url ?? "").split(":")
      const upstream = net.connect(Number(port), resolve(host), () => {
        socket.write("HTTP/1.1 200 Connection established\r\n\r\n")
        upstream.write(head)
        upstream.pipe(socket).pipe(upstream)
      })
      upstream.on("error", () => socket.destroy())
      socket.on("close", () => upstream.destroy())
    })
    const { endpoint } = yield* listen(server)
    return { at: new URL(endpoint).host, requests }
  })
