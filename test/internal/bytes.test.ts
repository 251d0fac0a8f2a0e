/**
 * Streams of bytes, gathered into arrays.
 */
import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Option, Stream } from "effect"
import { fill } from "../../src/internal/bytes.js"
import { heldAfter } from "../support/held.js"

const MiB = 1024 * 1024

/** Chunks of 1 MiB, each made when it is pulled. */
const chunks = (count: number) =>
  Stream.suspend(() => {
    let at = 0
    return Stream.repeatEffectChunkOption(
      Effect.suspend(() =>
        at < count ? Effect.succeed(Chunk.of(new Uint8Array(MiB).fill(++at))) : Effect.fail(Option.none())
      )
    )
  })

describe("fill", () => {
  it.live("copies the chunks one after another, and keeps none of them alive until the next full collection", () =>
    Effect.gen(function*() {
      const target = new Uint8Array(16 * MiB)
      expect(yield* heldAfter(fill(target, chunks(16)))).toBeLessThan(4)
      expect([0, MiB - 1, MiB, 16 * MiB - 1].map((at) => target[at])).toEqual([1, 1, 2, 16])
    }))
})
