/**
 * Slow proofs of safetensors files: many random cases, many tensors, large files, a bucket and a weight server.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { ByteRange, HttpStorage, MemoryStorage, S3Storage, Safetensors, Storage, StorageBackend } from "surfing-weights"
import { nodeClient } from "../support/httpClients.js"
import { type Call, noting, pattern } from "../support/intercepting.js"
import { makeBucket, options as s3Options, server } from "../support/s3Bucket.js"
import {
  all,
  names,
  on,
  onDirectory,
  roundTrips,
  sameBytes,
  sparse,
  survivesMutations,
  tensorsOf
} from "../support/safetensorsFiles.js"
import { serveOf } from "../support/weightServer.js"

describe("Safetensors on random cases", () => {
  it.effect("returns random tensors as they were saved, in memory", () => roundTrips(MemoryStorage.make(), 200))

  it.scoped("returns random tensors as they were saved, in a directory", () =>
    Effect.flatMap(onDirectory, ({ storage }) => roundTrips(Effect.succeed(storage), 60)))

  it.effect("rejects or opens random mutations of a valid file, without defects", () => survivesMutations(1000))
})

describe("Safetensors on many tensors", () => {
  it.effect("returns 10,000 tensors, whose header takes a second read", () =>
    Effect.gen(function*() {
      const calls: Array<Call> = []
      const storage = noting(yield* MemoryStorage.make(), calls)
      const tensors = tensorsOf(10_000, 50)
      yield* on(storage, Safetensors.save("model", tensors))
      calls.length = 0
      const file = yield* on(storage, Safetensors.open("model"))
      expect(calls.map(({ operation }) => operation)).toEqual(["open", "load"])
      expect([...file.tensors.keys()]).toEqual(names(tensors))
      expect((yield* file.load("t009999")).bytes).toEqual(tensors[9999]?.data)
      const streamed = yield* all(file)
      expect(streamed.every(({ bytes }, i) => sameBytes(bytes, tensors[i]?.data))).toBe(true)
      const many = yield* file.loadMany(names(tensors).reverse())
      expect(many.every(({ bytes }, i) => sameBytes(bytes, tensors[9999 - i]?.data))).toBe(true)
      expect([streamed.length, many.length]).toEqual([10_000, 10_000])
    }))

  it.scoped("reads 10 tensors scattered over 1 GiB with at most 1.2 times their bytes and the header", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const count = 4096
      const size = 256 * 1024
      sparse(path.join(directory, "model"), count, size)
      // Everything that is read passes through `open`, from which this backend makes the rest.
      let moved = 0
      const { capabilities, entries, open, remove, save } = inner.backend
      const storage = Storage.make(StorageBackend.make({
        name: "counting",
        capabilities,
        entries,
        remove,
        save,
        open: (key, options) =>
          Effect.map(open(key, options), (opened) => ({
            ...opened,
            stream: Stream.tap(opened.stream, ({ byteLength }) => Effect.sync(() => moved += byteLength))
          }))
      }))
      const file = yield* on(storage, Safetensors.open("model"))
      const dataStart = file.tensors.get("t000000")?.range.start ?? 0
      const wanted = Array.from({ length: 10 }, (_, i) => `t${String(i * 409 + 3).padStart(6, "0")}`)
      const tensors = yield* file.loadMany(wanted)
      expect(tensors.map(({ bytes }) => bytes.byteLength)).toEqual(Array.from({ length: 10 }, () => size))
      expect(moved).toBeGreaterThanOrEqual(10 * size)
      expect(moved).toBeLessThanOrEqual(1.2 * 10 * size + dataStart)
    }))
})

const hasRoom = server.kind === "radosgw" && os.freemem() > 7 * 1024 ** 3
const needsRoom = hasRoom ? "" : " (skipped: needs radosgw and 7 GiB of free memory)"

/** Tensors of `size` bytes in a sparse file. Only the last has bytes that are not zero, from 100 on. */
const sparseModel = (file: string, size = 5 * 1024 * 1024) => {
  const start = sparse(file, 1024, size)
  const descriptor = fs.openSync(file, "r+")
  fs.writeSync(descriptor, pattern(16), 0, 16, start + 1023 * size + 100)
  fs.closeSync(descriptor)
  return { size, start }
}

/** The calls that read these bytes. */
const twoReads = (start: number, size: number, ifMatch: string): ReadonlyArray<Call> => {
  const range = ByteRange.make(start + 1023 * size + 100, start + 1023 * size + 116)
  return [
    { operation: "open", args: ["model", { range: ByteRange.make(0, 128 * 1024) }] },
    { operation: "load", args: ["model", { range, ifMatch }] }
  ]
}

describe("Safetensors reads one tensor", () => {
  it.scoped("of a 5 GiB file on disk by two small reads", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const calls: Array<Call> = []
      const { size, start } = sparseModel(path.join(directory, "model"))
      const storage = noting(inner, calls)
      const file = yield* on(storage, Safetensors.open("model"))
      expect(file.info.size).toBe(start + 1024 * size)
      const rows = yield* file.loadSlice("t001023", 100, 116)
      expect(rows.bytes).toEqual(pattern(16))
      expect(calls).toEqual(twoReads(start, size, file.info.etag))
      const whole = yield* file.load("t001023")
      expect(whole.bytes.byteLength).toBe(size)
      expect(whole.bytes.subarray(100, 116)).toEqual(pattern(16))
      expect(calls.length).toBe(3)
    }))

  it.scoped("of a file in a bucket by two small requests", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const inner = yield* S3Storage.make({ ...s3Options, bucket })
      const calls: Array<Call> = []
      const storage = noting(inner, calls)
      const tensors = tensorsOf(40, 256 * 1024)
      yield* on(storage, Safetensors.save("model", tensors))
      calls.length = 0
      const file = yield* on(storage, Safetensors.open("model"))
      expect(sameBytes((yield* file.load("t000017")).bytes, tensors[17]?.data)).toBe(true)
      expect(calls.map(({ operation }) => operation)).toEqual(["open", "load"])
      const [last, first] = yield* file.loadMany(["t000039", "t000000"])
      expect(sameBytes(last?.bytes, tensors[39]?.data) && sameBytes(first?.bytes, tensors[0]?.data)).toBe(true)
      expect((yield* all(file)).every(({ bytes }, i) => sameBytes(bytes, tensors[i]?.data))).toBe(true)
      yield* on(storage, Safetensors.save("model", []))
      expect(yield* Effect.flip(file.load("t000017"))).toMatchObject({ _tag: "PreconditionFailed" })
    }))

  it.scopedLive.skipIf(!hasRoom)(
    `of a 2.5 GiB file in a bucket by two small requests${needsRoom}`,
    () =>
      Effect.gen(function*() {
        const { directory, storage: files } = yield* onDirectory
        const { size, start } = sparseModel(path.join(directory, "model"), 2.5 * 1024 * 1024)
        const bucket = yield* makeBucket
        const inner = yield* S3Storage.make({ ...s3Options, bucket })
        yield* inner.save("model", files.stream("model"), { size: start + 1024 * size })
        const calls: Array<Call> = []
        const model = yield* on(noting(inner, calls), Safetensors.open("model"))
        expect(model.info.size).toBe(start + 1024 * size)
        expect((yield* model.loadSlice("t001023", 100, 116)).bytes).toEqual(pattern(16))
        expect(calls).toEqual(twoReads(start, size, model.info.etag))
        yield* inner.remove("model")
      }),
    120_000
  )

  it.scopedLive("of a 5 GiB file behind a weight server by two small requests", () =>
    Effect.gen(function*() {
      const { directory, storage: inner } = yield* onDirectory
      const { size, start } = sparseModel(path.join(directory, "model"))
      const asked: Array<Call> = []
      const { url } = yield* serveOf(noting(inner, asked))
      const storage = yield* Effect.provide(HttpStorage.make({ url }), nodeClient[1])
      asked.length = 0
      const model = yield* on(storage, Safetensors.open("model"))
      expect(model.info.size).toBe(start + 1024 * size)
      expect((yield* model.loadSlice("t001023", 100, 116)).bytes).toEqual(pattern(16))
      expect(asked.map(({ args: [key, options], operation }) => [operation, key, options])).toEqual([
        ["open", "model", expect.objectContaining({ range: ByteRange.make(0, 128 * 1024) })],
        [
          "open",
          "model",
          expect.objectContaining({
            range: ByteRange.make(start + 1023 * size + 100, start + 1023 * size + 116),
            ifMatch: model.info.etag
          })
        ]
      ])
      const [whole, first] = yield* model.loadMany(["t001023", "t000000"])
      expect(whole?.bytes.subarray(100, 116)).toEqual(pattern(16))
      expect(first?.bytes.byteLength).toBe(size)
    }))
})
