/**
 * A server that lists a million objects as S3 does, a page after the other, and has none: to save so many on a real one takes
 * hours.
 */
import { once } from "node:events"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { digits } from "./rows.js"

export const million = 1_000_000

const objects = 1000

const entry = (i: number): string =>
  `<Contents><Key>models/layer_${digits(Math.floor(i / objects), 4)}/${digits(i % objects, 4)}.bin</Key>` +
  "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag>" +
  `<Size>${i}</Size></Contents>`

const answer = ({ url = "" }: IncomingMessage, response: ServerResponse): void => {
  const query = new URL(url, "http://localhost").searchParams
  const from = Number(query.get("continuation-token") ?? 0)
  const to = Math.min(from + Math.min(Number(query.get("max-keys") ?? objects), objects), million)
  const next = to < million ? `<NextContinuationToken>${to}</NextContinuationToken>` : ""
  const entries = Array.from({ length: to - from }, (_, i) => entry(from + i)).join("")
  response.setHeader("content-type", "application/xml").end(
    `<ListBucketResult><IsTruncated>${to < million}</IsTruncated>${next}${entries}</ListBucketResult>`
  )
}

/** Starts it for as long as the process runs, and returns where it is. */
export const start = async (): Promise<string> => {
  const server = createServer(answer).listen(0, "127.0.0.1")
  await once(server, "listening")
  server.unref()
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
