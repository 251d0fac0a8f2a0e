/**
 * A load is whole or fails, returns bytes of the caller's own, and keeps its preconditions.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as ByteRange from "../../ByteRange.js"
import type * as Storage from "../../Storage.js"
import { gather, MiB, none, pattern } from "./bytes.js"
import { group } from "./cases.js"
import { otherEtags } from "./conditions.js"
import { expectAbsent, expectBytes, expectFailure, reads } from "./expect.js"

export const loading = group("loading", [
  {
    name: "a missing object fails with ObjectNotFound on every read, and exists returns false",
    check: (storage) =>
      Effect.forEach(["missing", "missing/folder/object"], (key) => expectAbsent(storage, key), { discard: true })
  },
  {
    name: "a missing object fails with ObjectNotFound under any precondition",
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
    name: "an empty object can be read",
    needs: ["write"],
    check: (storage) =>
      Effect.gen(function*() {
        const { etag } = yield* storage.save("empty", none)
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
    name: "changing loaded bytes does not change the object",
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
            ([first]) => first ?? none
          )
        }
        for (const [what, effect] of Object.entries(read)) {
          const loaded = yield* effect
          expectBytes(what, loaded, bytes)
          loaded.fill(0)
          expectBytes(`${what} after its result was changed`, yield* effect, bytes)
          expectBytes(`load after the result of ${what} was changed`, yield* storage.load("own"), bytes)
        }
        const [one, two] = yield* storage.loadRanges("own", [ByteRange.make(0, 100), ByteRange.make(50, 150)])
        one?.fill(0)
        expectBytes("a range that overlaps a changed one", two ?? none, bytes.slice(50, 150))
      })
  },
  {
    name: "ifMatch on a load succeeds with the etag of the object and fails with PreconditionFailed otherwise",
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
            const where = `${what} with ifMatch ${JSON.stringify(ifMatch)} where the etag is ${JSON.stringify(etag)}`
            yield* expectFailure(where, "PreconditionFailed", effect, "conditional")
          }
        }
      })
  },
  {
    name: "ifNoneMatch on a load fails with ObjectNotModified for the etag of the object and succeeds otherwise",
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
          const what = `with ifNoneMatch ${JSON.stringify(ifNoneMatch)} where the etag is ${JSON.stringify(etag)}`
          expectBytes(`load ${what}`, yield* storage.load("conditional", { ifNoneMatch }), bytes)
          expectBytes(`stream ${what}`, yield* gather(storage.stream("conditional", { ifNoneMatch })), bytes)
          for (const [, effect] of reads(storage, "conditional", { ifNoneMatch })) yield* effect
        }
      })
  },
  {
    name: "ifMatch is checked before ifNoneMatch, and both before the range",
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
    name: "sixteen concurrent loads of one object all return it whole",
    needs: ["write"],
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
