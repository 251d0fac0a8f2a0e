/**
 * What is measured on S3: each row is one kind of work, done by this library, by the AWS SDK (bare, and by
 * `lib-storage`) and by OpenDAL, whose Rust core does it outside of this process's one thread.
 */
import { GetObjectCommand, paginateListObjectsV2, PutObjectCommand } from "@aws-sdk/client-s3"
import { Upload } from "@aws-sdk/lib-storage"
import { Effect } from "effect"
import assert from "node:assert/strict"
import { Readable } from "node:stream"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import type { See } from "./nodeFs.js"
import { loadingRanges, randomStarts, type Row, streaming } from "./rows.js"
import * as s3 from "./s3.js"

const size = 256 * MiB

/** Runs `work` for each item, so many at once. */
const each = async <A>(items: ReadonlyArray<A>, atOnce: number, work: (item: A) => Promise<unknown>): Promise<void> => {
  const left = items.values()
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (const item of left) await work(item)
  }))
}

const getObject = async (
  { place, sdk }: s3.Bench,
  key: string,
  range?: { readonly start: number; readonly length: number }
): Promise<Uint8Array> => {
  const { Body } = await sdk.send(
    new GetObjectCommand({
      Bucket: place.bucket,
      Key: key,
      ...(range !== undefined && { Range: `bytes=${range.start}-${range.start + range.length - 1}` })
    })
  )
  assert(Body !== undefined)
  return Body.transformToByteArray()
}

const load: Row = {
  name: "s3-load",
  work: "S3: load 256 MiB",
  amount: 256,
  unit: "MiB",
  bytes: size,
  memory: { work: "load", what: "S3: a load of 256 MiB", object: size, atMost: 100 * MiB },
  prepare: async () => {
    const bench = await s3.open()
    await Effect.runPromise(bench.storage.save("object", content.firstBytes(size)))
    return {
      place: bench.place,
      ours: { what: "Storage.load", run: async (see) => see(await Effect.runPromise(bench.storage.load("object")), 0) },
      floors: [
        {
          what: "SDK: GetObject, transformToByteArray",
          atLeast: 1.4,
          run: async (see) => see(await getObject(bench, "object"), 0)
        },
        { what: "OpenDAL: read", run: async (see) => see(await bench.opendal.read("object"), 0) }
      ]
    }
  }
}

const stream: Row = {
  name: "s3-stream",
  work: "S3: stream 256 MiB",
  amount: 256,
  unit: "MiB",
  bytes: size,
  prepare: async () => {
    const bench = await s3.open()
    await Effect.runPromise(bench.storage.save("object", content.firstBytes(size)))
    return {
      ours: streaming("Storage.stream", bench.storage, "object"),
      floors: [
        {
          what: "SDK: GetObject, its body",
          atLeast: 1.25,
          run: async (see) => {
            const { Body } = await bench.sdk.send(new GetObjectCommand({ Bucket: bench.place.bucket, Key: "object" }))
            assert(Body instanceof Readable)
            let at = 0
            for await (const chunk of Body as AsyncIterable<Uint8Array>) {
              see(chunk, at)
              at += chunk.length
            }
          }
        },
        {
          what: "OpenDAL: createReadStream",
          run: async (see) => {
            const reader = await bench.opendal.reader("object")
            let at = 0
            for await (const chunk of reader.createReadStream() as AsyncIterable<Uint8Array>) {
              see(chunk, at)
              at += chunk.length
            }
          }
        }
      ]
    }
  }
}

/** Throws unless the object has `size` bytes; the first time, unless it has these. */
const checkSaved = ({ storage }: s3.Bench) => async (first: boolean): Promise<void> => {
  if (first) content.check(await Effect.runPromise(storage.load("object")), 0)
  assert.equal((await Effect.runPromise(storage.head("object"))).size, size)
  await Effect.runPromise(storage.remove("object"))
}

const save: Row = {
  name: "s3-save",
  work: "S3: save 256 MiB of bytes",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  prepare: async () => {
    const bench = await s3.open()
    const bytes = Buffer.from(content.firstBytes(size).buffer)
    const after = checkSaved(bench)
    return {
      ours: { what: "Storage.save", run: () => Effect.runPromise(bench.storage.save("object", bytes)), after },
      floors: [
        {
          what: "SDK: PutObject",
          atLeast: 1.3,
          run: () => bench.sdk.send(new PutObjectCommand({ Bucket: bench.place.bucket, Key: "object", Body: bytes })),
          after
        },
        { what: "OpenDAL: write", run: () => bench.opendal.write("object", bytes), after }
      ]
    }
  }
}

const saveStream: Row = {
  name: "s3-save-stream",
  work: "S3: save 256 MiB from a stream of unknown length",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  memory: { work: "save", what: "S3: a save of 1 GiB from a stream", object: 0, atMost: 64 * MiB },
  prepare: async () => {
    const bench = await s3.open()
    const after = checkSaved(bench)
    return {
      place: bench.place,
      ours: {
        what: "Storage.save",
        run: () => Effect.runPromise(bench.storage.save("object", content.streamOf(size))),
        after
      },
      floors: [
        {
          what: "lib-storage: Upload",
          atLeast: 1.25,
          run: () =>
            new Upload({
              client: bench.sdk,
              params: { Bucket: bench.place.bucket, Key: "object", Body: Readable.from(content.chunks(size)) }
            }).done(),
          after
        },
        {
          what: "OpenDAL: writer",
          run: async () => {
            const writer = await bench.opendal.writer("object", { chunk: BigInt(8 * MiB), concurrent: 4 })
            for (const chunk of content.chunks(size)) await writer.write(Buffer.from(chunk))
            await writer.close()
          },
          after
        }
      ]
    }
  }
}

const small: Row = {
  name: "s3-small",
  work: "S3: 2,000 loads of 16 KiB, 32 at once",
  amount: 2000,
  unit: "loads",
  bytes: 2000 * 16 * KiB,
  prepare: async () => {
    const bench = await s3.open()
    const keys = Array.from({ length: 2000 }, (_, i) => `objects/${i % 100}`)
    await each(keys.slice(0, 100), 8, (key) => Effect.runPromise(bench.storage.save(key, content.bytesAt(0, 16 * KiB))))
    const loads = (load: (key: string) => Promise<Uint8Array>) => (see: See) =>
      each(keys, 32, async (key) => see(await load(key), 0))
    return {
      ours: {
        what: "Storage.load",
        run: (see) =>
          Effect.runPromise(
            Effect.forEach(keys, (key) => Effect.map(bench.storage.load(key), (bytes) => see(bytes, 0)), {
              concurrency: 32,
              discard: true
            })
          )
      },
      floors: [
        { what: "SDK: GetObject", atLeast: 2, cpuAtMost: 0.5, run: loads((key) => getObject(bench, key)) },
        { what: "OpenDAL: read", run: loads((key) => bench.opendal.read(key)) }
      ]
    }
  }
}

const list: Row = {
  name: "s3-list",
  work: "S3: list 20,000 keys",
  amount: 20_000,
  unit: "keys",
  bytes: 0,
  prepare: async () => {
    const bench = await s3.open()
    const keys = Array.from({ length: 20_000 }, (_, i) => `models/${String(i % 100).padStart(3, "0")}/layer_${i}.bin`)
    await each(keys, 32, (key) => Effect.runPromise(bench.storage.save(key, new Uint8Array(0))))
    let listed: ReadonlyArray<string> = []
    const after = () => {
      assert.deepEqual([...listed].sort(), [...keys].sort())
      listed = []
    }
    return {
      ours: {
        what: "Storage.list",
        run: async () => {
          listed = await Effect.runPromise(bench.storage.list())
        },
        after
      },
      floors: [
        {
          what: "SDK: paginateListObjectsV2",
          atLeast: 1.5,
          run: async () => {
            const found: Array<string> = []
            for await (
              const { Contents = [] } of paginateListObjectsV2({ client: bench.sdk }, { Bucket: bench.place.bucket })
            ) {
              for (const { Key } of Contents) found.push(Key ?? "")
            }
            listed = found
          },
          after
        },
        {
          what: "OpenDAL: list",
          run: async () => {
            const entries = await bench.opendal.list("/", { recursive: true })
            listed = entries.filter((entry) => !entry.path().endsWith("/")).map((entry) => entry.path())
          },
          after
        }
      ]
    }
  }
}

const ranges: Row = {
  name: "s3-ranges",
  work: "S3: 200 random ranges of 1 MiB, 8 at once",
  amount: 200,
  unit: "MiB",
  bytes: 200 * MiB,
  prepare: async () => {
    const bench = await s3.open()
    await Effect.runPromise(bench.storage.save("object", content.firstBytes(size)))
    const starts = randomStarts(size)
    const reads = (read: (start: number) => Promise<Uint8Array>) => (see: See) =>
      each(starts, 8, async (start) => see(await read(start), start))
    return {
      ours: loadingRanges(bench.storage, starts),
      floors: [
        {
          what: "SDK: GetObject with a range",
          atLeast: 1.6,
          run: reads((start) => getObject(bench, "object", { start, length: MiB }))
        },
        {
          what: "OpenDAL: read with a range",
          run: reads((start) => bench.opendal.read("object", { offset: BigInt(start), size: BigInt(MiB) }))
        }
      ]
    }
  }
}

/** 1 GiB through the library, for what it takes of memory. */
const streamMemory: Row = {
  name: "s3-stream-memory",
  work: "S3: stream 1 GiB",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  memory: { work: "stream", what: "S3: a stream of 1 GiB", object: 0, atMost: 64 * MiB },
  prepare: async () => {
    const bench = await s3.open()
    await Effect.runPromise(bench.storage.save("object", content.streamOf(GiB)))
    return { place: bench.place, ours: streaming("Storage.stream", bench.storage, "object"), floors: [] }
  }
}

export const s3Rows: ReadonlyArray<Row> = [load, stream, save, saveStream, small, list, ranges, streamMemory]
