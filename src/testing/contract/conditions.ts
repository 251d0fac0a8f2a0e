/**
 * Conditional saves: `ifNoneMatch` creates an object once, `ifMatch` replaces one version of it.
 */
import { expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { chunksThen, encode, inChunks, MiB, none, pattern } from "./bytes.js"
import { group } from "./cases.js"
import { expectAbsent, expectFailure, expectKeys, expectNoChange, expectObject, expectSameInfo } from "./expect.js"
import { SourceFailure } from "./sources.js"

/** Strings that are not the etag of an object, but have a meaning in HTTP headers or resemble the etag. */
export const otherEtags = (etag: string, another: string): ReadonlyArray<string> => [
  "",
  "*",
  "not an etag",
  "\"quoted\"",
  "W/\"weak\"",
  "a\r\nb",
  "ключ",
  another,
  `${etag}x`,
  `x${etag}`,
  ` ${etag}`,
  `${etag}, ${another}`,
  `${another}, ${etag}`
]

export const conditions = group("conditional saves", [
  {
    name: "ifNoneMatch creates a missing object",
    needs: ["write", "createOnly"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(1, 5000)
        const saved = yield* storage.save("created/bytes", bytes, { ifNoneMatch: "*" })
        expectSameInfo("head", yield* expectObject(storage, "created/bytes", bytes), saved)
        yield* storage.save("created/stream", inChunks(bytes, [999]), { ifNoneMatch: "*" })
        yield* expectObject(storage, "created/stream", bytes)
        const large = pattern(1, 9 * MiB)
        yield* storage.save("created/large/stream", inChunks(large, [MiB]), { ifNoneMatch: "*" })
        yield* expectObject(storage, "created/large/stream", large)
        yield* storage.save("created/empty", none, { ifNoneMatch: "*", size: 0 })
        yield* expectObject(storage, "created/empty", none)
      })
  },
  {
    name: "ifNoneMatch on an existing object fails with ObjectAlreadyExists and changes nothing",
    needs: ["write", "createOnly"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const size of [0, 5000]) {
          const bytes = pattern(2, size)
          const saved = yield* storage.save("first", bytes, { ifNoneMatch: "*" })
          const attempts = [
            ["save of bytes", storage.save("first", pattern(3, 5000), { ifNoneMatch: "*" })],
            ["save of a stream", storage.save("first", inChunks(pattern(3, 5000), [999]), { ifNoneMatch: "*" })],
            [
              "save of a large stream",
              storage.save("first", inChunks(pattern(3, 9 * MiB), [MiB]), { ifNoneMatch: "*" })
            ],
            ["save of the same bytes", storage.save("first", bytes, { ifNoneMatch: "*" })]
          ] as const
          for (const [what, attempt] of attempts) {
            yield* expectFailure(`${what} with ifNoneMatch`, "ObjectAlreadyExists", attempt, "first")
            expectSameInfo("head", yield* expectObject(storage, "first", bytes), saved)
            yield* expectKeys(storage, ["first"])
          }
          yield* storage.remove("first")
        }
        yield* storage.save("first", pattern(4, 10), { ifNoneMatch: "*" })
        yield* expectObject(storage, "first", pattern(4, 10))
      })
  },
  {
    name: "of eight concurrent creations of one object, exactly one succeeds",
    needs: ["write", "createOnly"],
    check: (storage) =>
      Effect.gen(function*() {
        for (let round = 0; round < 20; round++) {
          const key = `round-${round}/created`
          const size = round % 2 === 0 ? 40 : 200_000
          const outcomes = yield* Effect.forEach(
            [0, 1, 2, 3, 4, 5, 6, 7],
            (fiber) => {
              const bytes = pattern(fiber, size)
              return Effect.either(
                storage.save(key, fiber % 2 === 0 ? bytes : inChunks(bytes, [77_777]), { ifNoneMatch: "*" })
              )
            },
            { concurrency: "unbounded" }
          )
          const winners = outcomes.flatMap((outcome, fiber) =>
            Either.isRight(outcome) ? [{ fiber, info: outcome.right }] : []
          )
          const losses = outcomes.flatMap((outcome) => Either.isLeft(outcome) ? [outcome.left._tag] : [])
          expect(losses, "the failures of the other creations").toEqual(
            Array.from({ length: 7 }, () => "ObjectAlreadyExists")
          )
          for (const { fiber, info } of winners) {
            expectSameInfo("head", yield* expectObject(storage, key, pattern(fiber, size)), info)
          }
        }
      })
  },
  {
    name: "ifMatch replaces the object with this etag",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const first = yield* storage.save("swapped", pattern(5, 100))
        const second = yield* storage.save("swapped", pattern(6, 200), { ifMatch: first.etag })
        expectSameInfo("head", yield* expectObject(storage, "swapped", pattern(6, 200)), second)
        const third = yield* storage.save("swapped", inChunks(pattern(7, 200), [99]), { ifMatch: second.etag })
        expectSameInfo("head", yield* expectObject(storage, "swapped", pattern(7, 200)), third)
        const { etag } = yield* storage.head("swapped")
        const large = pattern(8, 9 * MiB)
        const fourth = yield* storage.save("swapped", inChunks(large, [MiB]), { ifMatch: etag })
        expectSameInfo("head", yield* expectObject(storage, "swapped", large), fourth)
        yield* storage.save("swapped", pattern(8, 0), { ifMatch: fourth.etag, size: 0 })
        yield* expectObject(storage, "swapped", pattern(8, 0))
      })
  },
  {
    name: "ifMatch with a stale etag fails with PreconditionFailed and changes nothing",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const first = yield* storage.save("swapped", pattern(9, 100))
        const second = yield* storage.save("swapped", pattern(10, 100))
        for (
          const data of [pattern(11, 100), inChunks(pattern(11, 100), [30]), inChunks(pattern(11, 9 * MiB), [MiB])]
        ) {
          const attempt = storage.save("swapped", data, { ifMatch: first.etag })
          yield* expectFailure("save with a stale ifMatch", "PreconditionFailed", attempt, "swapped")
          expectSameInfo("head", yield* expectObject(storage, "swapped", pattern(10, 100)), second)
        }
        yield* storage.remove("swapped")
        const attempt = storage.save("swapped", pattern(11, 100), { ifMatch: second.etag })
        yield* expectFailure("save with ifMatch where the object was removed", "PreconditionFailed", attempt, "swapped")
        yield* expectAbsent(storage, "swapped")
      })
  },
  {
    name: "ifMatch with any other string fails with PreconditionFailed and changes nothing",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const another = yield* storage.save("another", pattern(12, 100))
        yield* storage.remove("another")
        yield* expectNoChange(storage, (key) =>
          Effect.gen(function*() {
            const etag = (yield* storage.exists(key)) ? (yield* storage.head(key)).etag : another.etag
            for (const ifMatch of otherEtags(etag, another.etag)) {
              for (const data of [pattern(13, 100), inChunks(pattern(13, 100), [30])]) {
                const what = `save with ifMatch ${JSON.stringify(ifMatch)} where the etag is ${JSON.stringify(etag)}`
                yield* expectFailure(what, "PreconditionFailed", storage.save(key, data, { ifMatch }), key)
              }
            }
          }))
      })
  },
  {
    name: "ifNoneMatch and ifMatch together always fail",
    needs: ["write", "createOnly", "compareAndSwap"],
    check: (storage) =>
      expectNoChange(storage, (key) =>
        Effect.gen(function*() {
          const found = yield* storage.exists(key)
          const ifMatch = found ? (yield* storage.head(key)).etag : "an etag"
          const attempt = storage.save(key, pattern(14, 10), { ifNoneMatch: "*", ifMatch })
          yield* expectFailure(
            "save under both preconditions",
            ["ObjectAlreadyExists", "PreconditionFailed"],
            attempt,
            key
          )
        }))
  },
  {
    name: "a conditional save whose source fails changes nothing",
    needs: ["write", "createOnly", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const source = chunksThen(3, 1000, Effect.fail(new SourceFailure()))
        yield* expectNoChange(storage, (key) =>
          Effect.gen(function*() {
            const condition = (yield* storage.exists(key))
              ? { ifMatch: (yield* storage.head(key)).etag }
              : { ifNoneMatch: "*" } as const
            const error = yield* Effect.flip(storage.save(key, source, condition))
            expect(error._tag, "the failure of a conditional save whose source fails").toBe("SourceFailure")
          }))
        yield* storage.save("another/folder/absent", pattern(16, 10), { ifNoneMatch: "*" })
        yield* expectObject(storage, "another/folder/absent", pattern(16, 10))
      })
  },
  {
    name: "fifty increments by compare-and-swap lose none",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        yield* storage.save("counter", encode("0"))
        const increment = Effect.scoped(Effect.gen(function*() {
          const { info, stream } = yield* storage.open("counter")
          const count = Number(yield* Stream.mkString(Stream.decodeText(stream)))
          yield* Effect.yieldNow()
          yield* storage.save("counter", encode(String(count + 1)), { ifMatch: info.etag })
        })).pipe(
          Effect.retry({ while: (error) => error._tag === "PreconditionFailed", times: 1000 })
        )
        yield* Effect.forEach([1, 2, 3, 4, 5], () => Effect.repeatN(increment, 9), { concurrency: "unbounded" })
        yield* expectObject(storage, "counter", encode("50"))
      })
  }
])
