/**
 * Syncs with buckets.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { S3Storage, StorageMirror } from "surfing-weights"
import { eventsOf, memoryOf, objectsOf, onDirectory } from "../support/mirror.js"
import { makeBucket, options } from "../support/s3Bucket.js"

describe("StorageMirror.sync with buckets", () => {
  it.scopedLive("copies into a bucket and out of it, and compares objects in buckets by etag", () =>
    Effect.gen(function*() {
      const makeStorage = Effect.flatMap(makeBucket, (bucket) => S3Storage.make({ ...options, bucket }))
      const from = yield* memoryOf({ "a b/😀": "small", empty: "", large: "0123456789abcdef".repeat(600_000) })
      const [one, other] = yield* Effect.all([makeStorage, makeStorage])
      const { storage: directory } = yield* onDirectory
      for (const [source, target] of [[from, one], [one, other], [other, directory]] as const) {
        // A bucket keeps whole seconds: an object saved within the same one would be copied again.
        yield* Effect.sleep("1 second")
        expect((yield* eventsOf(source, target)).every(StorageMirror.Event.$is("Copied"))).toBe(true)
        expect((yield* eventsOf(source, target)).every(StorageMirror.Event.$is("Unchanged"))).toBe(true)
      }
      expect(yield* objectsOf(directory)).toEqual(yield* objectsOf(from))
      // The other was saved later.
      expect((yield* eventsOf(other, one)).every(StorageMirror.Event.$is("Unchanged"))).toBe(true)
    }))
})
