/**
 * A load is whole or an error, and the ranges of an object are the bytes they say.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import type { StorageError } from "../../StorageError.js"
import { otherEtags } from "./conditions.js"
import {
  boundarySizes,
  expectAbsent,
  expectBytes,
  expectFailure,
  expectSameInfo,
  gather,
  group,
  KiB,
  MiB,
  pattern,
  reads,
  show
} from "./kit.js"

export const loading = group("loading", [
  {
    name: "what is not there is ObjectNotFound to every read, and not an object to exists",
    check: (storage) =>
      Effect.forEach(["missing", "missing/folder/object"], (key) => expectAbsent(storage, key), { discard: true })
  },
  {
    name: "what is not there is ObjectNotFound under any condition",
    check: (storage) =>
      Effect.gen(function*() {
        for (const options of [{ ifMatch: "an etag" }, { ifNoneMatch: "an etag" }]) {
          for (const [what, effect] of reads(storage, "missing", options)) {
            yield* expectFailure(`${what} with ${JSON.stringify(options)}`, "ObjectNotFound", effect, "missing")
          }
        }
      })
  },
  {
    name: "an object of no bytes can be read",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const { etag } = yield* storage.save("empty", new Uint8Array(0))
        const none = new Uint8Array(0)
        for (const options of [{}, { ifMatch: etag }, { ifNoneMatch: "another" }]) {
          expectBytes("load", yield* storage.load("empty", options), none)
          expectBytes("stream", yield* gather(storage.stream("empty", options)), none)
          const { info, range, stream } = yield* storage.open("empty", options)
          expect({ size: info.size, range }).toEqual({ size: 0, range: { start: 0, endExclusive: 0 } })
          expectBytes("the opened stream", yield* gather(stream), none)
        }
        expect(yield* storage.exists("empty"), "exists").toBe(true)
      })
  },
  {
    name: "what was loaded is the caller's own: changing it does not change the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(1, 70_000)
        yield* storage.save("own", bytes)
        const read = {
          load: storage.load("own"),
          "load of a range": storage.load("own", { range: ByteRange.from(0) }),
          stream: gather(storage.stream("own")),
          loadRanges: Effect.map(
            storage.loadRanges("own", [ByteRange.from(0)]),
            ([first]) => first ?? new Uint8Array(0)
          )
        }
        for (const [what, effect] of Object.entries(read)) {
          const loaded = yield* effect
          expectBytes(what, loaded, bytes)
          loaded.fill(0)
          expectBytes(`${what} after what it gave was changed`, yield* effect, bytes)
          expectBytes(`load after what ${what} gave was changed`, yield* storage.load("own"), bytes)
        }
        const [one, two] = yield* storage.loadRanges("own", [ByteRange.make(0, 100), ByteRange.make(50, 150)])
        one?.fill(0)
        expectBytes("a range that overlaps a changed one", two ?? new Uint8Array(0), bytes.slice(50, 150))
      })
  },
  {
    name: "open tells of the whole object, and of the bytes that will come",
    needs: ["write"],
    check: (storage) =>
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
          const opened = yield* storage.open("opened", range === undefined ? {} : { range })
          expectSameInfo("open", opened.info, saved)
          expect(opened.range, "the range that open gives").toEqual({ start, endExclusive })
          expectBytes("the opened stream", yield* gather(opened.stream), bytes.slice(start, endExclusive))
        }
        // Opened and never read: its scope releases it.
        yield* Effect.forEach([1, 2, 3], () => Effect.scoped(storage.open("opened")), { discard: true })
      })
  },
  {
    name: "ifMatch loads the object of this etag, and any other is PreconditionFailed",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const stale = yield* storage.save("conditional", pattern(3, 1000))
        const bytes = pattern(4, 1000)
        const { etag } = yield* storage.save("conditional", bytes)
        expectBytes("load with ifMatch", yield* storage.load("conditional", { ifMatch: etag }), bytes)
        for (const [, effect] of reads(storage, "conditional", { ifMatch: etag })) yield* effect
        for (const ifMatch of otherEtags(etag, stale.etag)) {
          for (const [what, effect] of reads(storage, "conditional", { ifMatch })) {
            const where = `${what} with ifMatch ${JSON.stringify(ifMatch)}, the etag being ${JSON.stringify(etag)}`
            yield* expectFailure(where, "PreconditionFailed", effect, "conditional")
          }
        }
      })
  },
  {
    name: "ifNoneMatch with the object's etag is ObjectNotModified, and any other loads the object",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const stale = yield* storage.save("conditional", pattern(5, 1000))
        const bytes = pattern(6, 1000)
        const { etag } = yield* storage.save("conditional", bytes)
        for (const [what, effect] of reads(storage, "conditional", { ifNoneMatch: etag })) {
          yield* expectFailure(`${what} with ifNoneMatch`, "ObjectNotModified", effect, "conditional")
        }
        for (const ifNoneMatch of otherEtags(etag, stale.etag)) {
          const what = `with ifNoneMatch ${JSON.stringify(ifNoneMatch)}, the etag being ${JSON.stringify(etag)}`
          expectBytes(`load ${what}`, yield* storage.load("conditional", { ifNoneMatch }), bytes)
          expectBytes(`stream ${what}`, yield* gather(storage.stream("conditional", { ifNoneMatch })), bytes)
          for (const [, effect] of reads(storage, "conditional", { ifNoneMatch })) yield* effect
        }
      })
  },
  {
    name: "ifMatch is looked at before ifNoneMatch, and both before the range",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const { etag } = yield* storage.save("ordered", pattern(7, 10))
        const range = ByteRange.from(10)
        const load = (options: Storage.LoadOptions) => storage.load("ordered", options)
        yield* expectFailure("all three wrong", "PreconditionFailed", load({ ifMatch: "x", ifNoneMatch: etag, range }))
        yield* expectFailure("range wrong too", "ObjectNotModified", load({ ifMatch: etag, ifNoneMatch: etag, range }))
        yield* expectFailure("range wrong", "InvalidRange", load({ ifMatch: etag, ifNoneMatch: "x", range }))
      })
  },
  {
    name: "sixteen loads of one object at once all get it whole",
    needs: ["write"],
    slow: true,
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(8, MiB + 1)
        yield* storage.save("shared", bytes)
        yield* Effect.forEach(Array.from({ length: 16 }), (_, index) =>
          Effect.gen(function*() {
            const loaded = index % 2 === 0 ? yield* storage.load("shared") : yield* gather(storage.stream("shared"))
            expectBytes("the object", loaded, bytes)
          }), { concurrency: "unbounded" })
      })
  }
])

type Expected = readonly [range: ByteRange.ByteRange, start: number, endExclusive: number]

/** Holds every way to read a range to the bytes that it names. */
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
      expect({ range: resolved.range, size: resolved.info.size }, `what open gives for ${what}`)
        .toEqual({ range: { start, endExclusive }, size: bytes.byteLength })
    }
    const loaded = yield* storage.loadRanges(key, table.map(([range]) => range))
    expect(loaded.length, "how many arrays loadRanges gives").toBe(table.length)
    for (const [index, [range, start, endExclusive]] of table.entries()) {
      const what = `loadRanges of ${ByteRange.toHttp(range)} of ${bytes.byteLength} bytes`
      expectBytes(what, loaded[index] ?? new Uint8Array(0), bytes.subarray(start, endExclusive))
    }
  })

const expectInvalid = (storage: Storage.Service, key: string, range: ByteRange.ByteRange) =>
  Effect.forEach(
    [
      ["load", storage.load(key, { range })],
      ["stream", gather(storage.stream(key, { range }))],
      ["open", Effect.scoped(storage.open(key, { range }))],
      ["loadRanges", storage.loadRanges(key, [range])],
      ["loadRanges after a good one", storage.loadRanges(key, [ByteRange.last(1), range])]
    ] as const,
    ([what, effect]) =>
      expectFailure(`${what} of ${JSON.stringify(range)} of ${show(key)}`, "InvalidRange", effect, key)
  )

export const ranges = group("ranges", [
  {
    name: "a range is the bytes it names, clamped at the end of the object",
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
    name: "a range that starts at the end of the object or past it is InvalidRange",
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
    name: "a range that names no bytes of any object is InvalidRange",
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
    name: "the last bytes of an object of no bytes are no bytes",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("empty", new Uint8Array(0))
        yield* expectRanges(storage, "empty", new Uint8Array(0), [[ByteRange.last(1), 0, 0], [
          ByteRange.last(1000),
          0,
          0
        ]])
      })
  },
  {
    name: "ranges around the boundaries of parts are exact",
    needs: ["write"],
    slow: true,
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
    name: "loadRanges gives overlapping, repeated and unordered ranges as they were asked for",
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
          expectBytes(what, loaded[index] ?? new Uint8Array(0), bytes.subarray(start, start + 1 + index))
        }
      })
  },
  {
    name: "a range can be loaded under a condition",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(14, 1000)
        const { etag } = yield* storage.save("conditional", bytes)
        const range = ByteRange.make(10, 20)
        expectBytes("load", yield* storage.load("conditional", { range, ifMatch: etag }), bytes.slice(10, 20))
        const [loaded] = yield* storage.loadRanges("conditional", [range], { ifMatch: etag, ifNoneMatch: "another" })
        expectBytes("loadRanges", loaded ?? new Uint8Array(0), bytes.slice(10, 20))
      })
  }
])
