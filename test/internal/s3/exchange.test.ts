import { expect, it } from "@effect/vitest"
import { Chunk, Effect, type Scheduler } from "effect"
import { Readable } from "node:stream"
import { exchange } from "../../../src/internal/s3/exchange.js"
import { connectionTo } from "../../support/s3Connection.js"

it.live("bytes that come at whatever step between looking for them and waiting for them are not missed", () =>
  Effect.gen(function*() {
    const place = { backend: "S3(b)", operation: "load", bucket: "b" }
    let isWaiting = false
    let step = 0
    for (; !isWaiting; step++) {
      const body = new Readable({ read: () => {} })
      const bytes = Buffer.from([step])
      let left = Infinity
      let timer: NodeJS.Timeout | undefined
      // Has the fiber make way once, before this step, and the bytes come meanwhile.
      const scheduler: Scheduler.Scheduler = {
        shouldYield: () => left-- === 0 ? 0 : false,
        scheduleTask: (task) =>
          queueMicrotask(() => {
            if (left < 0) body.emit("data", bytes)
            left = Infinity
            task()
          })
      }
      const pulling = exchange(connectionTo(body), place, { method: "GET", key: "k" }, (exchange) =>
        Effect.zipRight(
          exchange.send(),
          Effect.suspend(() => {
            left = step
            timer = setTimeout(() => {
              isWaiting = left !== Infinity
              if (isWaiting) body.emit("data", bytes)
            }, 50)
            return exchange.pulls()
          })
        ))
      const got = yield* Effect.withScheduler(pulling, scheduler)
      clearTimeout(timer)
      expect(Chunk.toReadonlyArray(got).map((bytes) => [...bytes])).toEqual([[step]])
    }
    expect(step).toBeGreaterThan(2)
  }))
