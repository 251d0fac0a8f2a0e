/**
 * WebSocket clients of a weight server: those of `ws`, and bare connections on which frames are written byte by byte.
 */
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import * as net from "node:net"
import { WebSocket } from "ws"
import type { Served } from "./weightServer.js"

type Port = Pick<Served, "port">

/** A client until the scope closes; fails with the status of a refusal. */
export const connect = ({ port }: Port, headers: Record<string, string> = {}, path = "/") =>
  Effect.acquireRelease(
    Effect.async<WebSocket, number>((resume) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers })
      socket.on("error", () => {})
      socket.once("open", () => resume(Effect.succeed(socket)))
      socket.once("unexpected-response", (_, { statusCode = 0 }) => resume(Effect.fail(statusCode)))
    }),
    (socket) => Effect.sync(() => socket.terminate())
  )

export interface Answer {
  readonly success: boolean
  readonly [field: string]: unknown
}

export const answer = (socket: WebSocket): Effect.Effect<Answer> =>
  Effect.promise(async () => {
    const [data] = await once(socket, "message") as [Buffer]
    return JSON.parse(data.toString()) as Answer
  })

export const say = (socket: WebSocket, command: string): Effect.Effect<Answer> => {
  socket.send(command)
  return answer(socket)
}

/** A frame as clients send it, masked. `size` may announce more than there is. */
export const frame = (
  payload: string | Uint8Array,
  { fin = true, opcode = 1, size }: { readonly fin?: boolean; readonly opcode?: number; readonly size?: number } = {}
): Buffer => {
  const bytes = Buffer.from(payload)
  const length = size ?? bytes.length
  const header = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10)
  header[0] = (fin ? 0x80 : 0) | opcode
  header[1] = 0x80 | (length < 126 ? length : length < 65_536 ? 126 : 127)
  if (header.length === 4) header.writeUInt16BE(length, 2)
  if (header.length === 10) header.writeBigUInt64BE(BigInt(length), 2)
  const mask = randomBytes(4)
  return Buffer.concat([header, mask, bytes.map((byte, i) => byte ^ (mask[i % 4] ?? 0))])
}

export const upgradeRequest = ({ port }: Port): string =>
  `GET / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`

/** A bare connection that is upgraded; it answers no pings, and reads nothing until it is resumed. */
export const bare = (served: Port) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = net.connect(served.port, "127.0.0.1").on("error", () => {})
      socket.write(upgradeRequest(served))
      await once(socket, "data")
      return socket.pause()
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** The code of the close frame with which what a server sent ends, if it does. */
export const closeCode = (sent: Buffer): number | undefined => {
  let end = 0
  while (end + 2 <= sent.length) {
    const opcode = (sent[end] ?? 0) & 0x0f
    const short = sent[end + 1] ?? 0
    const header = short < 126 ? 2 : short === 126 ? 4 : 10
    const length = short < 126
      ? short
      : short === 126
      ? sent.readUInt16BE(end + 2)
      : Number(sent.readBigUInt64BE(end + 2))
    if (opcode === 8) return sent.readUInt16BE(end + header)
    end += header + length
  }
  return undefined
}
