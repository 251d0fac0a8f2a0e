/**
 * Servers that the tests play themselves: on loopback, each at a port that was free, and gone with its scope.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import type { Server, Socket } from "node:net"

/** Has a server of `node:http` or `node:net` listen; gives where, and the connections that are open at the time. */
export const listen = (
  server: Server
): Effect.Effect<{ readonly endpoint: string; readonly sockets: ReadonlySet<Socket> }, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<Socket>()
      server.on("connection", (socket) => {
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
      })
      await once(server.listen(0, "127.0.0.1"), "listening")
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      return { endpoint: `http://127.0.0.1:${port}`, sockets }
    }),
    ({ sockets }) =>
      Effect.promise(async () => {
        const closed = once(server, "close")
        server.close()
        // It closes only after the last connection, and some stay open until a client has enough.
        for (const socket of sockets) socket.destroy()
        await closed
      })
  )
