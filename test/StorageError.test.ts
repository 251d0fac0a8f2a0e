/**
 * Failures as values, schemas and messages.
 */
import { describe, expect, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { MemoryStorage, Storage, StorageError } from "surfing-weights"
import { expectTypeOf } from "vitest"

const context = { backend: "S3(weights)", operation: "load", key: "layer 0" }
const cause = new Error("socket hang up")
const reason = "the reason"

const all: ReadonlyArray<StorageError.StorageError> = [
  new StorageError.ObjectNotFound(context),
  new StorageError.ObjectAlreadyExists(context),
  new StorageError.PreconditionFailed(context),
  new StorageError.ObjectNotModified(context),
  new StorageError.InvalidKey({ ...context, reason }),
  new StorageError.InvalidRange({ ...context, reason }),
  new StorageError.AccessDenied({ ...context, reason }),
  new StorageError.StorageNotFound({ backend: "S3(weights)", operation: "list", reason }),
  new StorageError.StorageUnavailable({ ...context, reason, cause, retryAfter: Duration.seconds(2) }),
  new StorageError.StorageTimeout({ ...context, limit: Duration.seconds(30) }),
  new StorageError.CorruptObject({ ...context, problem: "truncated", reason }),
  new StorageError.StorageFull({ ...context, reason }),
  new StorageError.UnsupportedOperation({ ...context, reason }),
  new StorageError.UnexpectedStorageError({ ...context, reason, cause }),
  new StorageError.InvalidOptions({ ...context, module: "S3Storage", option: "bucket", reason: "bucket is required" })
]

describe("StorageError", () => {
  it("has every failure as a member of the schema", () => {
    expect(StorageError.StorageError.members.map((member) => member._tag).sort()).toEqual(
      all.map((error) => error._tag).sort()
    )
    expect(new Set(all.map((error) => error._tag)).size).toBe(15)
  })

  for (const error of all) {
    it(`survives JSON: ${error._tag}`, () => {
      const json = JSON.stringify(Schema.encodeSync(StorageError.StorageError)(error))
      const back = Schema.decodeUnknownSync(Schema.parseJson(StorageError.StorageError))(json)
      expect(back).toBeInstanceOf(error.constructor)
      expect(back.message).toBe(error.message)
      expect({ ...back }).toEqual({ ...error })
      if (error.cause !== undefined) expect(back.cause).toMatchObject({ message: cause.message })
    })

    it(`says what happened, where and to which object: ${error._tag}`, () => {
      if (error._tag === "InvalidOptions") {
        expect(error.message).toBe("S3Storage: bucket is required")
      } else {
        expect(error.message).toContain("S3(weights)")
        expect(error.message).toContain(error.operation)
        if (error.key !== undefined) expect(error.message).toContain("\"layer 0\"")
      }
      expect(error.message).not.toContain("\n")
    })
  }

  it("is retryable where another attempt may succeed", () => {
    expect(all.filter(StorageError.isRetryable).map((error) => error._tag)).toEqual(
      ["StorageUnavailable", "StorageTimeout", "CorruptObject"]
    )
    for (const problem of ["size", "checksum", "frame"] as const) {
      expect(StorageError.isRetryable(new StorageError.CorruptObject({ ...context, problem, reason }))).toBe(false)
    }
  })

  it("is not retryable once its retries are exhausted, and says how many attempts were made", () => {
    for (const error of all) {
      const exhausted = StorageError.exhausted(error, 11)
      expect(StorageError.isRetryable(exhausted)).toBe(false)
      expect(exhausted._tag).toBe(error._tag)
      expect(exhausted.cause).toBe(error.cause)
      if (StorageError.isRetryable(error)) expect(exhausted.message).toMatch(/gave up after 11 attempts$/)
      else expect(exhausted).toBe(error)
    }
  })

  it("is distinguished from other errors", () => {
    for (const error of all) expect(StorageError.isStorageError(error)).toBe(true)
    expect(StorageError.isStorageError(new Error("other"))).toBe(false)
    expect(StorageError.isStorageError({ _tag: "ObjectNotFound" })).toBe(false)
  })

  it("truncates a key that is too long", () => {
    const error = new StorageError.InvalidKey({ ...context, key: "k".repeat(100_000), reason })
    expect(error.message.length).toBeLessThan(300)
  })

  it("needs only what happened", () => {
    const error = new StorageError.ObjectNotFound()
    expect({ ...error }).toMatchObject({ backend: "", operation: "", key: "" })
    expect(error.message).toBe("there is no such object")
    expect(new StorageError.AccessDenied({ reason: "the token has expired" }).message).toBe("the token has expired")
  })

  it.effect("is removed from the type when its tag is handled", () => {
    const handled: Effect.Effect<
      Uint8Array,
      Exclude<StorageError.LoadError, StorageError.ObjectNotFound | StorageError.AccessDenied>,
      Storage.Storage
    > = Storage.load("k").pipe(
      Effect.catchTags({
        ObjectNotFound: () => Effect.succeed(new Uint8Array([1])),
        AccessDenied: () => Effect.succeed(new Uint8Array([2]))
      })
    )
    expectTypeOf<Extract<StorageError.ExistsError, StorageError.ObjectNotFound>>().toBeNever()
    return Effect.gen(function*() {
      expect(yield* handled).toEqual(new Uint8Array([1]))
    }).pipe(Effect.provide(MemoryStorage.layer()))
  })
})
