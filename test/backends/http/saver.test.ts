/**
 * The responses to saves over HTTP: a success says which object was saved, and that is the one that was sent.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Schedule, Stream } from "effect"
import * as http from "node:http"
import { HttpStorage } from "surfing-weights"
import { clients } from "../../support/httpClients.js"
import { listen } from "../../support/loopback.js"

const info = { key: "k", size: 3, lastModified: new Date(0).toISOString(), etag: "1" }

/** What a server, or a proxy before it, may respond with to a save of 3 bytes, and why that is none. */
const responses: ReadonlyArray<readonly [status: number, body: string, message: string]> = [
  [200, "", "has no object"],
  [200, "<html>signed in</html>", "has no object"],
  [200, "{\"ok\":true}", "has no object"],
  [200, JSON.stringify({ ...info, size: 0 }), "has an object of 0 bytes instead of 3"],
  [201, JSON.stringify({ ...info, size: 4 }), "has an object of 4 bytes instead of 3"],
  [200, JSON.stringify({ ...info, etag: "" }), "has no etag"],
  [202, JSON.stringify(info), "unexpected status (HTTP 202)"],
  [204, "", "unexpected status (HTTP 204)"]
]

for (const [name, client] of clients) {
  it.scopedLive(`a save with ${name} is no success where the response is not to that`, () =>
    Effect.gen(function*() {
      let response: readonly [status: number, body: string] = [200, JSON.stringify(info)]
      const { endpoint: url } = yield* listen(http.createServer((request, answer) => {
        request.resume().on("end", () => answer.writeHead(response[0]).end(response[1]))
      }))
      const storage = yield* HttpStorage.make({ url, verify: false, retry: Schedule.recurs(0) })
      const bytes = new Uint8Array(3)
      const saves = [
        storage.save("k", bytes),
        storage.save("k", Stream.make(bytes)),
        storage.save("k", Stream.make(bytes), { size: 3 })
      ]
      for (const save of saves) expect((yield* save).etag).toBe("1")
      for (const [status, body, message] of responses) {
        response = [status, body]
        for (const save of saves) {
          const failure = yield* Effect.flip(save)
          expect([status, body, failure._tag, failure.message]).toEqual([
            status,
            body,
            "UnexpectedStorageError",
            expect.stringContaining(message)
          ])
        }
      }
    }).pipe(Effect.provide(client)))
}
