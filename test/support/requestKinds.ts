/**
 * Every kind of request that a weight server answers, also those that fail, and all the bytes of the answers.
 */
import { Effect } from "effect"
import { once } from "node:events"
import { WebSocket } from "ws"
import { ask, type Served } from "./weightServer.js"

const kinds: ReadonlyArray<readonly [method: string, path: string, headers?: Record<string, string>, body?: string]> = [
  ["GET", "/objects/there"],
  ["HEAD", "/objects/there"],
  ["GET", "/objects/there", { range: "bytes=0-1" }],
  ["GET", "/objects/there", { range: "bytes=1000000-" }],
  ["HEAD", "/objects/there", { "if-none-match": "*" }],
  ["GET", "/objects/there", { "if-none-match": "*" }],
  ["GET", "/objects/there", { "if-match": "\"other\"" }],
  ["HEAD", "/objects/there", { "if-match": "\"other\"" }],
  ["GET", "/objects/missing"],
  ["HEAD", "/objects/missing"],
  ["GET", "/objects/a%00b"],
  ["GET", "/objects/..%2f..%2fetc"],
  ["GET", "/objects/%zz"],
  ["GET", `/objects/${"x".repeat(300)}`],
  ["GET", `/objects/${"deep/".repeat(200)}x`],
  ["GET", "/objects/link"],
  ["HEAD", "/objects/link"],
  ["GET", "/objects/link/below"],
  ["GET", "/objects/there/below"],
  ["GET", "/objects"],
  ["GET", "/objects?delimiter=/&limit=1"],
  ["GET", "/objects?delimiter=x"],
  ["GET", "/objects?limit=-1"],
  ["GET", "/objects", { accept: "application/x-ndjson" }],
  ["GET", "/objects?prefix=link/", { accept: "application/x-ndjson" }],
  ["PUT", "/objects/new", {}, "12345"],
  ["PUT", "/objects/new", { "content-encoding": "gzip", "x-object-meta-a": "b" }, "12345"],
  ["PUT", "/objects/there", { "if-none-match": "*" }, "12345"],
  ["PUT", "/objects/there", { "if-match": "\"other\"" }, "12345"],
  ["PUT", "/objects/there/below", {}, "12345"],
  ["PUT", "/objects/link", {}, "12345"],
  ["PUT", "/objects/link/below", {}, "12345"],
  ["PUT", `/objects/${"y".repeat(300)}`, {}, "12345"],
  ["PUT", `/objects/${"deep/".repeat(200)}x`, {}, "12345"],
  ["PUT", "/objects/large", {}, "z".repeat(3 * 1024 * 1024)],
  ["PUT", "/objects/new", { "content-range": "bytes 0-1/5" }, "12"],
  ["DELETE", "/objects/there/below"],
  ["DELETE", "/objects/there", { "if-match": "\"other\"" }],
  ["DELETE", "/objects/link/below"],
  ["DELETE", "/objects/new"],
  ["POST", "/objects/new", {}, "x"],
  ["PATCH", "/health"],
  ["OPTIONS", "/objects/there"],
  ["GET", "/health"],
  ["GET", "/metrics"],
  ["GET", "/openapi.json"],
  ["GET", "/docs"],
  ["GET", "/nothing"],
  ["GET", "/"]
]

/** Commands of the WebSocket. */
const commands = ["GET layer 0", "GET there 0", "GET link 0", "hello", "GET ../etc/passwd 0"]

const converse = ({ port }: Served, headers: Record<string, string>) =>
  Effect.promise(async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { headers })
    let text = ""
    socket.on("message", (data: Buffer) => text += `${data.toString()}\n`)
    socket.on("error", (error) => text += error.message)
    const closed = once(socket, "close").catch(() => {})
    socket.once("open", () => {
      let answered = 0
      socket.on("message", () => {
        if (++answered === commands.length) socket.close()
      })
      for (const command of commands) socket.send(command)
    })
    await closed
    return text
  })

/** All that the server says to these requests, as one text, and the statuses that it used. */
export const askAll = (served: Served, headers: Record<string, string> = {}) =>
  Effect.gen(function*() {
    const texts: Array<string> = []
    const statuses = new Set<number>()
    for (const [method, path, own = {}, body] of kinds) {
      const got = yield* ask(served, method, path, { ...headers, ...own }, body)
      statuses.add(got.status)
      const fields = Object.entries(got.headers).map(([name, value]) => `${name}: ${decodeURIComponent(String(value))}`)
      texts.push([`${method} ${path} ${got.status}`, ...fields, got.text].join("\n"))
    }
    texts.push(yield* converse(served, headers))
    // Twice: the metrics are those of the requests before.
    texts.push((yield* ask(served, "GET", "/metrics", headers)).text)
    return { text: texts.join("\n\n"), statuses: [...statuses].sort((a, b) => a - b) }
  })

/** The places that hold one of the words. */
export const placesOf = (text: string, words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const whole = text.toLowerCase()
  return words.flatMap((word) => {
    const at = whole.indexOf(word.toLowerCase())
    return at === -1 ? [] : [text.slice(Math.max(0, at - 100), at + 100)]
  })
}
