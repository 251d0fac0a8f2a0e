/**
 * What `open` returns: metadata, the resolved range, and the bytes of the range in up to three forms, of which a reader
 * takes one.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ByteRange from "../../ByteRange.js"
import { concat } from "../../internal/bytes.js"
import type { OpenedObject } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import { gather, KiB, MiB, pattern } from "./bytes.js"
import { type Check, group } from "./cases.js"
import { expectBytes, expectObject, expectSameInfo } from "./expect.js"

/** Sizes of objects that stores treat differently: in memory at once, in one read, in many. */
const sizes = [0, 1, 1000, 64 * KiB, 64 * KiB + 1, 3 * MiB + 5]

/** Runs a check on objects of several sizes, whole and in part; each run of `open` opens the object anew. */
const onEachObject = (
  check: (
    open: Effect.Effect<OpenedObject, StorageError, Scope.Scope>,
    expected: Uint8Array
  ) => Effect.Effect<void, StorageError, Scope.Scope>
): Check =>
(storage) =>
  Effect.gen(function*() {
    for (const size of sizes) {
      const key = `folder/of ${size} bytes`
      const bytes = pattern(size, size)
      yield* storage.save(key, bytes)
      yield* check(storage.open(key), bytes)
      if (size > 10) {
        yield* check(storage.open(key, { range: ByteRange.make(3, size - 3) }), bytes.slice(3, -3))
        yield* check(storage.open(key, { range: ByteRange.last(7) }), bytes.slice(-7))
      }
    }
  })

const position = onEachObject((open, expected) =>
  Effect.gen(function*() {
    const { bytes, position, stream } = yield* open
    // Bytes that are in memory have been read already.
    if (bytes === undefined) expect(position(), "the position before anything is read").toBe(0)
    let received = 0
    let last = 0
    yield* Stream.runForEach(stream, (chunk) =>
      Effect.sync(() => {
        received += chunk.byteLength
        const now = position()
        expect(now, "the position compared with the bytes received").toBeGreaterThanOrEqual(received)
        expect(now, "the position compared with the one before").toBeGreaterThanOrEqual(last)
        expect(now, "the position compared with the length of the range").toBeLessThanOrEqual(expected.byteLength)
        last = now
      }))
    expect(position(), "the position at the end of the stream").toBe(expected.byteLength)
  })
)

const bytesInMemory = onEachObject((open, expected) =>
  Effect.gen(function*() {
    const { bytes, stream } = yield* open
    if (bytes !== undefined) expectBytes("the bytes of an opened object", bytes, expected)
    expectBytes("the stream of an opened object", yield* gather(stream), expected)
  })
)

const reusedArray = onEachObject((open, expected) =>
  Effect.gen(function*() {
    const free = (yield* open).reuse
    if (free === undefined) return
    const copied = yield* Stream.runFold(
      free(() => true),
      [] as ReadonlyArray<Uint8Array>,
      (copies, chunk) => [...copies, chunk.slice()]
    )
    expectBytes("chunks that are copied before the next is read", concat(copied), expected)

    const kept = (yield* open).reuse
    if (kept === undefined) return
    const chunks = yield* Stream.runCollect(kept(() => false))
    expectBytes("chunks that are never free", concat([...chunks]), expected)

    const mixed = (yield* open).reuse
    if (mixed === undefined) return
    const seen: Array<{ readonly chunk: Uint8Array; readonly copy: Uint8Array }> = []
    // Every other chunk is kept.
    const isKept = (index: number) => index % 2 === 0
    yield* Stream.runForEach(mixed(() => !isKept(seen.length - 1)), (chunk) =>
      Effect.sync(() => seen.push({ chunk, copy: chunk.slice() })))
    expectBytes(
      "chunks that are copied at once",
      concat(seen.map(({ copy }) =>
        copy
      )),
      expected
    )
    for (const [index, { chunk, copy }] of seen.entries()) {
      if (isKept(index)) expectBytes(`chunk ${index}, which was never free`, chunk, copy)
    }
  })
)

const ownArrays: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(4, 3 * MiB)
    yield* storage.save("own", bytes)
    const { stream } = yield* storage.open("own")
    const copies = yield* Stream.runFold(stream, [] as ReadonlyArray<Uint8Array>, (copies, chunk) => {
      const copy = chunk.slice()
      chunk.fill(0)
      return [...copies, copy]
    })
    expectBytes("the stream while its chunks are changed", concat(copies), bytes)
    const kept = yield* Stream.runCollect((yield* storage.open("own")).stream)
    expectBytes("chunks that are kept until the end", concat([...kept]), bytes)
    yield* expectObject(storage, "own", bytes)
  })

const metadataAndRange: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(2, 3 * MiB)
    const saved = yield* storage.save("opened", bytes)
    for (
      const [range, start, endExclusive] of [
        [undefined, 0, 3 * MiB],
        [ByteRange.make(10, 20), 10, 20],
        [ByteRange.make(MiB - 1, 9 * MiB), MiB - 1, 3 * MiB],
        [ByteRange.last(MiB + 7), 2 * MiB - 7, 3 * MiB]
      ] as const
    ) {
      const opened = yield* storage.open("opened", { range })
      expectSameInfo("open", opened.info, saved)
      expect(opened.range, "the range that open returns").toEqual({ start, endExclusive })
      expectBytes("the opened stream", yield* gather(opened.stream), bytes.slice(start, endExclusive))
    }
    // Opened and never read: released with its scope.
    yield* Effect.forEach([1, 2, 3], () => Effect.scoped(storage.open("opened")), { discard: true })
  })

const chunkSizes: Check = (storage) =>
  Effect.gen(function*() {
    const bytes = pattern(5, 300_000)
    yield* storage.save("chunked", bytes)
    for (const chunkSize of [1000, 4096, 100_000, 2 ** 50]) {
      for (
        const stream of [
          storage.stream("chunked", { chunkSize }),
          (yield* storage.open("chunked", { chunkSize })).stream
        ]
      ) {
        expectBytes(`a stream in chunks of ${chunkSize} bytes`, yield* gather(stream), bytes)
      }
    }
  })

export const opening = group("opening", [
  {
    name: "open returns the metadata of the whole object and the resolved range",
    needs: ["write"],
    check: metadataAndRange
  },
  { name: "the position of an opened object counts the bytes that were read", needs: ["write"], check: position },
  { name: "the bytes of an opened object equal its stream", needs: ["write"], check: bytesInMemory },
  { name: "an array that is reused is not overwritten while it is in use", needs: ["write"], check: reusedArray },
  {
    name: "changing the chunks of an opened stream changes neither the object nor later chunks",
    needs: ["write"],
    check: ownArrays
  },
  { name: "a stream in chunks of any size is whole", needs: ["write"], check: chunkSizes }
])
