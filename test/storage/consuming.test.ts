/**
 * Streams that are read chunk by chunk: by effects, by `for await`, and as web streams.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Runtime } from "effect"
import { Cause, Chunk, Context, Deferred, Effect, Exit, Fiber, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { Readable } from "node:stream"
import { Storage, StorageError } from "surfing-weights"
import { bytes, MiB, print } from "../support/content.js"
import { descriptorsOf, isLinux, onDirectory } from "../support/fileSystem.js"

class Prefix extends Context.Tag("test/Prefix")<Prefix, string>() {}

const content = bytes(5 * MiB + 3)
const broken = new StorageError.StorageUnavailable({ reason: "broken" })
const parts = Stream.fromChunks(Chunk.make(bytes(1), bytes(2), bytes(3)), Chunk.empty(), Chunk.of(bytes(4)))
const lengths = [1, 2, 3, 4]

/** All ways to read a stream to its end, or to its failure. */
const ways: Readonly<
  Record<string, <E>(stream: Stream.Stream<Uint8Array, E>) => Effect.Effect<ReadonlyArray<Uint8Array>, unknown>>
> = {
  forEachChunk: (stream) =>
    Effect.suspend(() => {
      const read: Array<Uint8Array> = []
      return Effect.as(Storage.forEachChunk(stream, (chunk) => Effect.sync(() => read.push(chunk))), read)
    }),
  toAsyncIterable: (stream) => gathered(() => Storage.toAsyncIterable(stream)),
  toReadableStream: (stream) => gathered(() => Storage.toReadableStream(stream)),
  "a Readable from toAsyncIterable": (stream) =>
    gathered(() => Readable.from(Storage.toAsyncIterable(stream)) as AsyncIterable<Uint8Array>)
}

const gathered = (iterable: () => AsyncIterable<Uint8Array>): Effect.Effect<ReadonlyArray<Uint8Array>, unknown> =>
  Effect.flatten(Effect.promise(async () => {
    const read: Array<Uint8Array> = []
    try {
      for await (const chunk of iterable()) read.push(chunk)
      return Exit.succeed(read)
    } catch (error) {
      return Exit.fail(error)
    }
  }))

for (const [name, read] of Object.entries(ways)) {
  describe(name, () => {
    it.effect("reads every chunk once, in order", () =>
      Effect.gen(function*() {
        expect((yield* read(parts)).map(({ byteLength }) => byteLength)).toEqual(lengths)
        expect(yield* read(Stream.empty)).toEqual([])
        const many = Array.from({ length: 20_000 }, (_, i) => Uint8Array.of(i, i >> 8))
        expect(yield* read(Stream.fromIterable(many))).toEqual(many)
      }))

    it.live(
      "has the bytes of an object, and keeps none of it open",
      onDirectory((directory) =>
        Effect.gen(function*() {
          const storage = yield* Storage.Storage
          fs.writeFileSync(path.join(directory, "k"), content)
          const before = isLinux ? descriptorsOf(directory) : []
          const stream = storage.stream("k")
          // Twice, as a stream can be run again.
          for (let i = 0; i < 2; i++) expect(print(Buffer.concat(yield* read(stream)))).toBe(print(content))
          if (isLinux) expect(descriptorsOf(directory)).toEqual(before)
        })
      )
    )

    it.effect("fails with the failure of the stream itself, after the chunks before it", () =>
      Effect.gen(function*() {
        let seen = 0
        const counted = Stream.tap(Stream.concat(parts, Stream.fail(broken)), () => Effect.sync(() => seen++))
        expect(yield* Effect.flip(read(counted))).toBe(broken)
        expect(seen).toBe(4)
      }))
  })
}

describe("forEachChunk", () => {
  it.effect("stops at the first effect that fails, and closes the stream; also in a pipe", () =>
    Effect.gen(function*() {
      let closed = 0
      const stream = Stream.ensuring(parts, Effect.sync(() => closed++))
      const seen: Array<number> = []
      const use = (chunk: Uint8Array) =>
        chunk.byteLength === 3 ? Effect.fail("enough" as const) : Effect.sync(() => seen.push(chunk.byteLength))
      expect(yield* Effect.flip(Storage.forEachChunk(stream, use))).toBe("enough")
      expect(yield* Effect.flip(stream.pipe(Storage.forEachChunk(use)))).toBe("enough")
      expect([seen, closed]).toEqual([[1, 2, 1, 2], 2])
    }))

  it.effect("is interrupted with its effect and its stream", () =>
    Effect.gen(function*() {
      const isUsed = yield* Deferred.make<void>()
      let closed = 0
      const stream = Stream.ensuring(parts, Effect.sync(() => closed++))
      const fiber = yield* Effect.fork(
        Storage.forEachChunk(stream, () => Effect.zipRight(Deferred.succeed(isUsed, undefined), Effect.never))
      )
      yield* Deferred.await(isUsed)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(closed).toBe(1)
    }))

  it.effect("gives the stream and the effect what they need", () =>
    Effect.gen(function*() {
      const stream = Stream.mapEffect(parts, (chunk) => Effect.map(Prefix, (prefix) => `${prefix}${chunk.byteLength}`))
      const seen: Array<string> = []
      yield* Storage.forEachChunk(stream, (text) => Effect.map(Prefix, (prefix) => seen.push(prefix + text)))
      expect(seen).toEqual(["--1", "--2", "--3", "--4"])
    }).pipe(Effect.provideService(Prefix, "-")))
})

describe("what is read by promises", () => {
  const watched = () => {
    const events: Array<string> = []
    const stream = Stream.ensuring(
      Stream.tap(Stream.rechunk(parts, 1), ({ byteLength }) => Effect.sync(() => events.push(`chunk ${byteLength}`))),
      Effect.sync(() => events.push("closed"))
    )
    return { events, stream: Stream.suspend(() => (events.push("opened"), stream)) }
  }

  it.live("opens nothing before the first read, and reads nothing ahead", () =>
    Effect.promise(async () => {
      for (
        const make of [
          (stream: Stream.Stream<Uint8Array>) => {
            const iterator = Storage.toAsyncIterable(stream)[Symbol.asyncIterator]()
            return { next: () => iterator.next(), end: () => iterator.return?.() }
          },
          (stream: Stream.Stream<Uint8Array>) => {
            const reader = Storage.toReadableStream(stream).getReader()
            return { next: () => reader.read(), end: () => reader.cancel() }
          }
        ]
      ) {
        const { events, stream } = watched()
        const reading = make(stream)
        await new Promise((resolve) => setTimeout(resolve, 20))
        expect(events).toEqual([])
        expect((await reading.next()).value?.byteLength).toBe(1)
        await new Promise((resolve) => setTimeout(resolve, 20))
        expect(events).toEqual(["opened", "chunk 1"])
        await reading.end()
        expect(events).toEqual(["opened", "chunk 1", "closed"])
        expect(await reading.next()).toEqual({ done: true, value: undefined })
      }
    }))

  it.live("closes the stream when a loop ends early, by break or by an error", () =>
    Effect.promise(async () => {
      for (const fails of [false, true]) {
        const { events, stream } = watched()
        const loop = async () => {
          for await (const chunk of Storage.toAsyncIterable(stream)) {
            if (chunk.byteLength < 2) continue
            if (fails) throw new Error("of the loop")
            break
          }
        }
        if (fails) await expect(loop()).rejects.toThrow("of the loop")
        else await loop()
        expect(events).toEqual(["opened", "chunk 1", "chunk 2", "closed"])
      }
    }))

  it.live("answers reads that do not wait for each other in order, and defects and interruption with an error", () =>
    Effect.promise(async () => {
      const iterator = Storage.toAsyncIterable(parts)[Symbol.asyncIterator]()
      const results = await Promise.all(Array.from({ length: 6 }, () => iterator.next()))
      expect(results.map(({ value }) => value?.byteLength)).toEqual([...lengths, undefined, undefined])
      for (const cause of [Cause.die("bug"), Cause.interrupt(Fiber.id(Fiber.void))]) {
        const failing = Storage.toAsyncIterable(Stream.concat(parts, Stream.failCause(cause)))[Symbol.asyncIterator]()
        for (const length of lengths) expect((await failing.next()).value?.byteLength).toBe(length)
        await expect(failing.next()).rejects.toSatisfy((error) => error === "bug" || error instanceof Error)
        expect(await failing.next()).toEqual({ done: true, value: undefined })
      }
    }))

  it.effect("can run in a runtime that has what the stream needs", () =>
    Effect.gen(function*() {
      const runtime: Runtime.Runtime<Prefix> = yield* Effect.runtime<Prefix>()
      const stream = Stream.mapEffect(parts, (chunk) => Effect.map(Prefix, (prefix) => `${prefix}${chunk.byteLength}`))
      const all = async (iterable: AsyncIterable<string>) => {
        const seen: Array<string> = []
        for await (const text of iterable) seen.push(text)
        return seen
      }
      const expected = ["-1", "-2", "-3", "-4"]
      expect(yield* Effect.promise(() => all(Storage.toAsyncIterableRuntime(stream, runtime)))).toEqual(expected)
      expect(yield* Effect.promise(() => all(stream.pipe(Storage.toReadableStreamRuntime(runtime))))).toEqual(expected)
    }).pipe(Effect.provideService(Prefix, "-")))
})
