/**
 * A model in chunks in a bucket, and one of plain files that are too large for many things.
 */
import { PutObjectCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, ModelChunks, S3Storage, Safetensors, Storage } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { makeBucket, options, sdk } from "../support/s3Bucket.js"

const MiB = 1024 * 1024

const on = (storage: Storage.Service) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Storage.Storage, storage)

describe("a model in chunks", () => {
  it.scopedLive("is made, streamed and verified in a bucket, and what is changed there is found", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...options, bucket })
      const sizes = [3, 9, 1, 6]
      const names = ["embeddings.weight", "layers.0.weight", "layers.1.weight", "lm_head.weight"]
      const tensors = names.map((name, i) => {
        const length = (sizes[i] ?? 0) * MiB
        return { name, dtype: "U8", shape: [length], data: new Uint8Array(length).fill(i + 1) } as const
      })
      yield* on(storage)(Safetensors.save("model.safetensors", tensors))
      yield* on(storage)(Stream.runDrain(ModelChunks.split({ source: "model.safetensors", target: "chunks" })))

      const model = yield* on(storage)(ModelChunks.open("chunks"))
      const streamed: Array<readonly [name: string, isWhole: boolean, last: number | undefined]> = []
      yield* Stream.runForEach(
        model.stream({ prefetch: 2 }),
        ({ bytes, chunk }) =>
          Effect.sync(() => void streamed.push([chunk.name, bytes.byteLength === chunk.size, bytes.at(-1)]))
      )
      expect(streamed).toEqual([
        ["embeddings", true, 1],
        ["layer_0", true, 2],
        ["layer_1", true, 3],
        ["head", true, 4]
      ])

      const verify = on(storage)(Effect.either(Stream.runDrain(ModelChunks.verify("chunks"))))
      expect(yield* verify).toMatchObject({ _tag: "Right" })

      const { key, size } = model.chunks.get("layer_1") ?? { key: "", size: 0 }
      yield* Effect.promise(() =>
        sdk.send(new PutObjectCommand({ Bucket: bucket, Key: `chunks/${key}`, Body: new Uint8Array(size) }))
      )
      expect(yield* Effect.flip(model.load("layer_1"))).toMatchObject({ _tag: "CorruptObject", problem: "checksum" })
      expect(yield* verify).toMatchObject({ _tag: "Left" })
    }))

  it.scopedLive("is indexed and verified where a file is larger than 2 GiB", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const file = path.join(directory, "shard.bin")
      const size = 2049 * MiB
      fs.writeFileSync(file, "")
      fs.truncateSync(file, size)
      const storage = yield* FileSystemStorage.make({ directory })
      const manifest = yield* on(storage)(ModelChunks.writeManifest(""))
      expect(manifest.chunks).toMatchObject([{ size }])
      const verify = on(storage)(Effect.either(Stream.runDrain(ModelChunks.verify(""))))
      expect(yield* verify).toMatchObject({ _tag: "Right" })
      const handle = fs.openSync(file, "r+")
      fs.writeSync(handle, "x", size - 1)
      fs.closeSync(handle)
      expect(yield* verify).toMatchObject({ _tag: "Left" })
    }), 120_000)
})
