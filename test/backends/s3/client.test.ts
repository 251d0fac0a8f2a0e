/**
 * How a storage on a bucket comes to what sends its requests.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { vi } from "vitest"
import { makeTransport } from "../../../src/backends/s3/client.js"
import { client } from "../../support/s3Server.js"

describe("makeTransport", () => {
  it.scoped("fails with the reason where undici cannot be loaded", () =>
    Effect.gen(function*() {
      // As on a Node that lacks what it needs.
      vi.doMock("../../../src/backends/s3/connections.js", () => {
        throw new Error("markAsUncloneable is not a function")
      })
      const sdk = client({ kind: "given", endpoint: "http://a", region: "r", accessKeyId: "k", secretAccessKey: "s" })
      const error = yield* Effect.flip(makeTransport(sdk)).pipe(
        Effect.ensuring(Effect.sync(() => vi.doUnmock("../../../src/backends/s3/connections.js")))
      )
      expect(error._tag).toBe("UnexpectedStorageError")
      expect(error.message).toContain("undici cannot be loaded")
      expect(error.message).toContain("Node.js 20.18.1")
    }))
})
