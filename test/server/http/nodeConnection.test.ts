/**
 * The connection behind a request.
 */
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import * as http from "node:http"
import * as net from "node:net"
import { sentCheck } from "../../../src/server/http/nodeConnection.js"
import { eventually } from "../../support/weightServer.js"

/** A response of a real server, and the socket of a client that does not read yet. */
const exchange = Effect.gen(function*() {
  const server = yield* Effect.acquireRelease(
    Effect.sync(() => http.createServer()),
    (server) => Effect.sync(() => server.close().closeAllConnections())
  )
  return yield* Effect.promise(async () => {
    await once(server.listen(0, "127.0.0.1"), "listening")
    const requested = once(server, "request") as Promise<[http.IncomingMessage, http.ServerResponse]>
    const client = net.connect((server.address() as net.AddressInfo).port, "127.0.0.1").pause()
    client.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    const [, response] = await requested
    return { client, response }
  })
})

const requestOf = (shown: object) => shown as HttpServerRequest.HttpServerRequest

describe("sentCheck", () => {
  it.scopedLive("is true for the array written last, once all of it is sent", () =>
    Effect.gen(function*() {
      const { client, response } = yield* exchange
      const taken = sentCheck(requestOf({ response }))
      // More than fits into the buffers of the system.
      const first = new Uint8Array(32 * 1024 * 1024)
      expect(taken(first)).toBe(false)
      response.write(first)
      yield* Effect.sleep("50 millis")
      expect(taken(first)).toBe(false)
      client.resume()
      yield* eventually("the end of it", () => taken(first))

      const second = new Uint8Array(10)
      expect(taken(second)).toBe(false)
      response.write(second)
      yield* eventually("the end of the second", () => taken(second))
      expect(taken(first)).toBe(false)
    }))

  it("is false where the server does not show its response", () => {
    const bytes = new Uint8Array(1)
    for (const shown of [{}, { response: () => {} }, { response: { write: () => true } }]) {
      expect(sentCheck(requestOf(shown))(bytes)).toBe(false)
    }
  })
})
