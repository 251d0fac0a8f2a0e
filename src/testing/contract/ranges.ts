/**
 * Ranges of an object are exact, whatever reads them.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import { boundarySizes, gather, KiB, MiB, none, pattern, show } from "./bytes.js"
import { group } from "./cases.js"
import { expectBytes, expectFailure } from "./expect.js"

type Expected = readonly [range: ByteRange.ByteRange, start: number, endExclusive: number]

/** Expects every way to read a range to return these bytes. */
const expectRanges = (
  storage: Storage.Service,
  key: string,
  bytes: Uint8Array,
  table: ReadonlyArray<Expected>
): Effect.Effect<void, StorageError> =>
  Effect.gen(function*() {
    for (const [range, start, endExclusive] of table) {
      const what = `${ByteRange.toHttp(range)} of ${bytes.byteLength} bytes`
      const expected = bytes.subarray(start, endExclusive)
      expectBytes(`load of ${what}`, yield* storage.load(key, { range }), expected)
      expectBytes(`stream of ${what}`, yield* gather(storage.stream(key, { range })), expected)
      const resolved = yield* Effect.scoped(storage.open(key, { range }))
      expect({ range: resolved.range, size: resolved.info.size }, `what open returns for ${what}`)
        .toEqual({ range: { start, endExclusive }, size: bytes.byteLength })
    }
    const loaded = yield* storage.loadRanges(key, table.map(([range]) => range))
    expect(loaded.length, "the number of arrays that loadRanges returns").toBe(table.length)
    for (const [index, [range, start, endExclusive]] of table.entries()) {
      const what = `loadRanges of ${ByteRange.toHttp(range)} of ${bytes.byteLength} bytes`
      expectBytes(what, loaded[index] ?? none, bytes.subarray(start, endExclusive))
    }
  })

const expectInvalid = (storage: Storage.Service, key: string, range: ByteRange.ByteRange) =>
  Effect.forEach(
    [
      ["load", storage.load(key, { range })],
      ["stream", gather(storage.stream(key, { range }))],
      ["open", Effect.scoped(storage.open(key, { range }))],
      ["loadRanges", storage.loadRanges(key, [range])],
      ["loadRanges after a valid range", storage.loadRanges(key, [ByteRange.last(1), range])]
    ] as const,
    ([what, effect]) =>
      expectFailure(`${what} of ${JSON.stringify(range)} of ${show(key)}`, "InvalidRange", effect, key)
  )

export const ranges = group("ranges", [
  {
    name: "a range is clamped to the end of the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(9, 10)
        yield* storage.save("ten", bytes)
        yield* expectRanges(storage, "ten", bytes, [
          [ByteRange.make(0, 1), 0, 1],
          [ByteRange.make(0, 10), 0, 10],
          [ByteRange.make(3, 7), 3, 7],
          [ByteRange.make(9, 10), 9, 10],
          [ByteRange.make(9, 11), 9, 10],
          [ByteRange.make(0, 11), 0, 10],
          [ByteRange.make(5, 1e12), 5, 10],
          [ByteRange.make(0, Number.MAX_SAFE_INTEGER), 0, 10],
          [ByteRange.from(0), 0, 10],
          [ByteRange.from(1), 1, 10],
          [ByteRange.from(9), 9, 10],
          [ByteRange.last(1), 9, 10],
          [ByteRange.last(9), 1, 10],
          [ByteRange.last(10), 0, 10],
          [ByteRange.last(11), 0, 10],
          [ByteRange.last(Number.MAX_SAFE_INTEGER), 0, 10]
        ])
      })
  },
  {
    name: "a range that starts at or past the end fails with InvalidRange",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const size of [0, 1, 10]) {
          const key = `${size} bytes`
          yield* storage.save(key, pattern(10, size))
          for (const start of [size, size + 1, size + 1000, 1e12, Number.MAX_SAFE_INTEGER - 1]) {
            yield* expectInvalid(storage, key, ByteRange.from(start))
            yield* expectInvalid(storage, key, ByteRange.make(start, start + 1))
          }
        }
      })
  },
  {
    name: "a malformed range fails with InvalidRange",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const key of ["ten", "empty"]) {
          yield* storage.save(key, pattern(11, key === "ten" ? 10 : 0))
          for (
            const range of [
              ByteRange.make(0, 0),
              ByteRange.make(3, 3),
              ByteRange.make(4, 2),
              ByteRange.make(-1, 2),
              ByteRange.make(-5, -1),
              ByteRange.make(0.5, 2),
              ByteRange.make(0, 1.5),
              ByteRange.make(NaN, 2),
              ByteRange.make(0, NaN),
              ByteRange.make(0, Infinity),
              ByteRange.make(0, 2 ** 53),
              ByteRange.from(-1),
              ByteRange.from(0.5),
              ByteRange.from(NaN),
              ByteRange.from(Infinity),
              ByteRange.last(0),
              ByteRange.last(-1),
              ByteRange.last(1.5),
              ByteRange.last(NaN),
              ByteRange.last(Infinity)
            ]
          ) yield* expectInvalid(storage, key, range)
        }
      })
  },
  {
    name: "a suffix range of an empty object is empty",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("empty", none)
        yield* expectRanges(storage, "empty", none, [[ByteRange.last(1), 0, 0], [
          ByteRange.last(1000),
          0,
          0
        ]])
      })
  },
  {
    name: "ranges across part boundaries are exact",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const size = 8 * MiB + 1
        const bytes = pattern(12, size)
        yield* storage.save("large", bytes)
        yield* expectRanges(storage, "large", bytes, [
          ...boundarySizes.filter((edge) => edge > 0).map((
            edge
          ): Expected => [ByteRange.make(edge - 1, edge + 1), edge - 1, Math.min(edge + 1, size)]),
          [ByteRange.make(0, MiB), 0, MiB],
          [ByteRange.make(1, MiB + 1), 1, MiB + 1],
          [ByteRange.make(MiB - 1, 3 * MiB + 1), MiB - 1, 3 * MiB + 1],
          [ByteRange.make(64 * KiB - 1, 64 * KiB + 1), 64 * KiB - 1, 64 * KiB + 1],
          [ByteRange.from(8 * MiB), 8 * MiB, size],
          [ByteRange.from(1), 1, size],
          [ByteRange.last(MiB + 2), size - MiB - 2, size],
          [ByteRange.last(size + 1), 0, size]
        ])
      })
  },
  {
    name: "loadRanges returns overlapping, repeated and unordered ranges in the order given",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(13, 2 * MiB)
        yield* storage.save("many", bytes)
        yield* expectRanges(storage, "many", bytes, [
          [ByteRange.make(MiB, MiB + 100), MiB, MiB + 100],
          [ByteRange.make(0, 100), 0, 100],
          [ByteRange.make(50, 150), 50, 150],
          [ByteRange.make(0, 100), 0, 100],
          [ByteRange.make(100, 200), 100, 200],
          [ByteRange.make(0, MiB), 0, MiB],
          [ByteRange.last(10), 2 * MiB - 10, 2 * MiB],
          [ByteRange.make(20, 30), 20, 30],
          [ByteRange.from(2 * MiB - 5), 2 * MiB - 5, 2 * MiB],
          [ByteRange.make(2 * MiB - 1, 3 * MiB), 2 * MiB - 1, 2 * MiB]
        ])
        expect(yield* storage.loadRanges("many", []), "loadRanges of no ranges").toEqual([])
        const starts = Array.from({ length: 300 }, (_, index) => (index * 611_953) % (2 * MiB - 2000))
        const loaded = yield* storage.loadRanges(
          "many",
          starts.map((start, index) => ByteRange.make(start, start + 1 + index))
        )
        for (const [index, start] of starts.entries()) {
          const what = `range ${index} of 300, from byte ${start}`
          expectBytes(what, loaded[index] ?? none, bytes.subarray(start, start + 1 + index))
        }
      })
  },
  {
    name: "a range can be loaded under preconditions",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(14, 1000)
        const { etag } = yield* storage.save("conditional", bytes)
        const range = ByteRange.make(10, 20)
        expectBytes("load", yield* storage.load("conditional", { range, ifMatch: etag }), bytes.slice(10, 20))
        const [loaded] = yield* storage.loadRanges("conditional", [range], { ifMatch: etag, ifNoneMatch: "another" })
        expectBytes("loadRanges", loaded ?? none, bytes.slice(10, 20))
      })
  }
])
