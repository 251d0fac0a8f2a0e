/**
 * How a storage comes to what sends its requests.
 */
import { S3Client } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { vi } from "vitest"
import { makeTransport } from "../../../src/internal/s3/connect.js"

describe("makeTransport", () => {
  it.scoped("tells by a failure, and what to do, where undici cannot be loaded", () =>
    Effect.gen(function*() {
      // As on a Node that lacks what it needs.
      vi.doMock("../../../src/internal/s3/connections.js", () => {
        throw new Error("markAsUncloneable is not a function")
      })
      const error = yield* Effect.flip(makeTransport("S3(a-bucket)", new S3Client({ region: "us-east-1" }))).pipe(
        Effect.ensuring(Effect.sync(() => vi.doUnmock("../../../src/internal/s3/connections.js")))
      )
      expect(error).toMatchObject({ _tag: "UnexpectedStorageError", backend: "S3(a-bucket)", operation: "open" })
      expect(error.message).toContain("undici cannot be loaded")
      expect(error.message).toContain("Node.js 20.18.1")
    }))
})
