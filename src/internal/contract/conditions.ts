/**
 * Conditional saves: an object is created once, or replaced only by who knows what it replaces.
 */
import { expect } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import {
  encode,
  expectAbsent,
  expectFailure,
  expectKeys,
  expectNoChange,
  expectObject,
  expectSameInfo,
  group,
  inPieces,
  MiB,
  pattern
} from "./kit.js"

class SourceFailure extends Data.TaggedError("SourceFailure") {}

/** Strings that are no object's etag, though they mean something in an HTTP header or look like the right one. */
export const otherEtags = (etag: string, another: string): ReadonlyArray<string> => [
  "",
  "*",
  "no etag",
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
    name: "ifNoneMatch creates an object where there is none",
    needs: ["write", "createOnly"],
    check: (storage) =>
      Effect.gen(function*() {
        const bytes = pattern(1, 5000)
        const saved = yield* storage.save("created/bytes", bytes, { ifNoneMatch: "*" })
        expectSameInfo("head", yield* expectObject(storage, "created/bytes", bytes), saved)
        yield* storage.save("created/stream", inPieces(bytes, [999]), { ifNoneMatch: "*" })
        yield* expectObject(storage, "created/stream", bytes)
        const large = pattern(1, 9 * MiB)
        yield* storage.save("created/large/stream", inPieces(large, [MiB]), { ifNoneMatch: "*" })
        yield* expectObject(storage, "created/large/stream", large)
        yield* storage.save("created/empty", new Uint8Array(0), { ifNoneMatch: "*", size: 0 })
        yield* expectObject(storage, "created/empty", new Uint8Array(0))
      })
  },
  {
    name: "ifNoneMatch where there is an object is ObjectAlreadyExists, and changes nothing",
    needs: ["write", "createOnly"],
    check: (storage) =>
      Effect.gen(function*() {
        for (const size of [0, 5000]) {
          const bytes = pattern(2, size)
          const saved = yield* storage.save("first", bytes, { ifNoneMatch: "*" })
          const attempts = [
            ["save of bytes", storage.save("first", pattern(3, 5000), { ifNoneMatch: "*" })],
            ["save of a stream", storage.save("first", inPieces(pattern(3, 5000), [999]), { ifNoneMatch: "*" })],
            [
              "save of a large stream",
              storage.save("first", inPieces(pattern(3, 9 * MiB), [MiB]), { ifNoneMatch: "*" })
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
    name: "of eight fibers that create one object, exactly one does",
    needs: ["write", "createOnly"],
    slow: true,
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
                storage.save(key, fiber % 2 === 0 ? bytes : inPieces(bytes, [77_777]), { ifNoneMatch: "*" })
              )
            },
            { concurrency: "unbounded" }
          )
          const winners = outcomes.flatMap((outcome, fiber) =>
            Either.isRight(outcome) ? [{ fiber, info: outcome.right }] : []
          )
          const losses = outcomes.flatMap((outcome) => Either.isLeft(outcome) ? [outcome.left._tag] : [])
          expect(losses, "how the other fibers failed").toEqual(Array.from({ length: 7 }, () => "ObjectAlreadyExists"))
          for (const { fiber, info } of winners) {
            expectSameInfo("head", yield* expectObject(storage, key, pattern(fiber, size)), info)
          }
        }
      })
  },
  {
    name: "ifMatch replaces the object that has this etag",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const first = yield* storage.save("swapped", pattern(5, 100))
        const second = yield* storage.save("swapped", pattern(6, 200), { ifMatch: first.etag })
        expectSameInfo("head", yield* expectObject(storage, "swapped", pattern(6, 200)), second)
        const third = yield* storage.save("swapped", inPieces(pattern(7, 200), [99]), { ifMatch: second.etag })
        expectSameInfo("head", yield* expectObject(storage, "swapped", pattern(7, 200)), third)
        const { etag } = yield* storage.head("swapped")
        const large = pattern(8, 9 * MiB)
        const fourth = yield* storage.save("swapped", inPieces(large, [MiB]), { ifMatch: etag })
        expectSameInfo("head", yield* expectObject(storage, "swapped", large), fourth)
        yield* storage.save("swapped", pattern(8, 0), { ifMatch: fourth.etag, size: 0 })
        yield* expectObject(storage, "swapped", pattern(8, 0))
      })
  },
  {
    name: "ifMatch with the etag of what was replaced is PreconditionFailed, and changes nothing",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const first = yield* storage.save("swapped", pattern(9, 100))
        const second = yield* storage.save("swapped", pattern(10, 100))
        for (
          const data of [pattern(11, 100), inPieces(pattern(11, 100), [30]), inPieces(pattern(11, 9 * MiB), [MiB])]
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
    name: "ifMatch with any other string is PreconditionFailed, and changes nothing",
    needs: ["write", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const another = yield* storage.save("another", pattern(12, 100))
        yield* storage.remove("another")
        yield* expectNoChange(storage, (key) =>
          Effect.gen(function*() {
            const etag = (yield* storage.exists(key)) ? (yield* storage.head(key)).etag : another.etag
            for (const ifMatch of otherEtags(etag, another.etag)) {
              for (const data of [pattern(13, 100), inPieces(pattern(13, 100), [30])]) {
                const what = `save with ifMatch ${JSON.stringify(ifMatch)}, the etag being ${JSON.stringify(etag)}`
                yield* expectFailure(what, "PreconditionFailed", storage.save(key, data, { ifMatch }), key)
              }
            }
          }))
      })
  },
  {
    name: "ifNoneMatch and ifMatch together can never hold",
    needs: ["write", "createOnly", "compareAndSwap"],
    check: (storage) =>
      expectNoChange(storage, (key) =>
        Effect.gen(function*() {
          const found = yield* storage.exists(key)
          const ifMatch = found ? (yield* storage.head(key)).etag : "an etag"
          const attempt = storage.save(key, pattern(14, 10), { ifNoneMatch: "*", ifMatch })
          yield* expectFailure(
            "save under both conditions",
            ["ObjectAlreadyExists", "PreconditionFailed"],
            attempt,
            key
          )
        }))
  },
  {
    name: "a conditional save whose source fails changes nothing, and the condition still holds",
    needs: ["write", "createOnly", "compareAndSwap"],
    check: (storage) =>
      Effect.gen(function*() {
        const source = Stream.concat(inPieces(pattern(15, 3000), [1000]), Stream.fail(new SourceFailure()))
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
    name: "five fibers that each count up ten times by compare and swap reach fifty",
    needs: ["write", "compareAndSwap"],
    slow: true,
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
