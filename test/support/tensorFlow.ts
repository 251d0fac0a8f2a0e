/**
 * TensorFlow.js models for tests.
 */
import { expect } from "@effect/vitest"
import { Chunk, Effect, FastCheck, Stream } from "effect"
import { MemoryStorage, Storage, TensorFlowIO } from "surfing-weights"
import { pattern } from "./intercepting.js"

export const handlerOn = (storage: Storage.Service, prefix = "m", options?: TensorFlowIO.Options) =>
  Effect.provideService(TensorFlowIO.handler(prefix, options), Storage.Storage, storage)

export const loadFrom = (storage: Storage.Service, prefix?: string) =>
  Effect.flatMap(handlerOn(storage, prefix), ({ load }) => Effect.promise(load))

export const saveTo = (
  storage: Storage.Service,
  artifacts: TensorFlowIO.ModelArtifacts,
  options?: TensorFlowIO.Options
) => Effect.flatMap(handlerOn(storage, "m", options), ({ save }) => Effect.promise(() => save(artifacts)))

export const bufferOf = (length: number): ArrayBuffer => new Uint8Array(pattern(length)).buffer

/** A weight of this many bytes. */
export const weight = (bytes: number) => ({ name: "w", shape: [bytes], dtype: "bool" as const })

/** Saves weights in random buffers as shards of random sizes. */
export const cutsShards = (numRuns: number) =>
  Effect.promise(() =>
    FastCheck.assert(
      FastCheck.asyncProperty(
        FastCheck.array(FastCheck.integer({ min: 0, max: 50 }), { maxLength: 8 }),
        FastCheck.integer({ min: 1, max: 60 }),
        (lengths, shardSize) =>
          Effect.gen(function*() {
            const storage = yield* MemoryStorage.make()
            const size = lengths.reduce((sum, length) => sum + length, 0)
            const whole = bufferOf(size)
            let at = 0
            const weightData = lengths.map((length) => whole.slice(at, at += length))
            yield* saveTo(storage, { weightSpecs: [weight(size)], weightData }, { shardSize })
            expect(yield* loadFrom(storage)).toEqual({ weightSpecs: [weight(size)], weightData: whole })
            const sizes = Chunk.toArray(yield* Stream.runCollect(storage.entries({ prefix: "m/weights" })))
              .map((info) => info.size).sort((a, b) => b - a)
            const full = Array.from({ length: Math.floor(size / shardSize) }, () => shardSize)
            expect(sizes).toEqual(size % shardSize === 0 ? full : [...full, size % shardSize])
          }).pipe(Effect.runPromise)
      ),
      { numRuns }
    )
  )
