import { NodeStream } from "@effect/platform-node"
import { expect, it } from "@effect/vitest"
import { Chunk, Effect, Exit, Fiber, Stream } from "effect"
import { spawn } from "node:child_process"
import type { Readable } from "node:stream"
import { timeoutStream } from "../../src/internal/timeouts.js"
import { exchange } from "../../src/internal/s3/exchange.js"
import { thenHeldUp } from "../support/heldUp.js"
import { connectionTo } from "../support/s3Connection.js"

const limit = 400

/** What another process sends as soon as it hears of it. */
const echo = Effect.acquireRelease(
  Effect.sync(() => spawn("cat", { stdio: ["pipe", "pipe", "inherit"] })),
  (child) => Effect.sync(() => child.kill("SIGKILL"))
)

const late = () => "late" as const

const ways: Readonly<Record<string, (body: Readable) => Effect.Effect<Uint8Array, unknown>>> = {
  "as a stream under a limit": (body) =>
    timeoutStream(NodeStream.fromReadable<string, Uint8Array>(() => body, String), limit, late).pipe(
      Stream.runCollect,
      Effect.map((chunks) => Buffer.concat(Chunk.toArray(chunks)))
    ),
  "as a stream from S3": (body) =>
    exchange(connectionTo(body, limit), place, { method: "GET", key: "k" }, (exchange) =>
      Effect.zipRight(
        exchange.send(),
        Stream.runCollect(Stream.fromPull(Effect.sync(() => exchange.pulls())))
      )).pipe(Effect.map((chunks) => Buffer.concat(Chunk.toArray(chunks)))),
  "into an array from S3": (body) =>
    exchange(connectionTo(body, limit), place, { method: "GET", key: "k" }, (exchange) => {
      const target = new Uint8Array(5)
      return exchange.send().pipe(
        Effect.zipRight(exchange.into(target, () => {})),
        Effect.as(target)
      )
    })
}
const place = { backend: "S3(b)", operation: "load", bucket: "b" }

for (const [way, read] of Object.entries(ways)) {
  it.scopedLive(`bytes that came while this process was held up for longer than the limit count: ${way}`, () =>
    Effect.gen(function*() {
      const { stdin, stdout } = yield* echo
      const reading = yield* Effect.fork(read(stdout))
      yield* Effect.sleep(20)
      yield* thenHeldUp(() => stdin.end("bytes"), 1.5 * limit)
      expect(new TextDecoder().decode(yield* Fiber.join(reading))).toBe("bytes")
    }))

  it.scopedLive(`where nothing comes it is late about when the limit says: ${way}`, () =>
    Effect.gen(function*() {
      const { stdout } = yield* echo
      const started = performance.now()
      expect(Exit.isFailure(yield* Effect.exit(read(stdout)))).toBe(true)
      const millis = performance.now() - started
      expect(millis).toBeGreaterThan(0.9 * limit)
      expect(millis).toBeLessThan(3 * limit)
    }))
}
