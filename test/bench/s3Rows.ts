/**
 * What is measured on S3: each row is one kind of work, done by this library, by the AWS SDK (bare, and by
 * `lib-storage`) and by OpenDAL, whose Rust core does it outside of this process's one thread.
 */
import { GetObjectCommand, paginateListObjectsV2, PutObjectCommand } from "@aws-sdk/client-s3"
import { Upload } from "@aws-sdk/lib-storage"
import { Effect } from "effect"
import assert from "node:assert/strict"
import { Readable } from "node:stream"
import type { Operator } from "opendal"
import type { Storage } from "surfing-weights"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import { forEach, type See } from "./nodeFs.js"
import { readChunks } from "./reading.js"
import { type Contestant, listing, loadingRanges, type Opened, type Row, scattered, streaming } from "./rows.js"
import * as s3 from "./s3.js"

export const size = 256 * MiB

type Does = (see: See) => Promise<unknown>

export const byUs = (what: string, open: (storage: Storage.Service) => Opened): Contestant => ({
  what,
  open: async (directory) => open(await s3.storageIn(directory))
})

const bySdk = (what: string, does: (sdk: s3.Sdk) => Does): Contestant => ({
  what: `SDK: ${what}`,
  open: (directory) => Promise.resolve({ run: does(s3.sdkOf(directory)) })
})

const byOpendal = (what: string, does: (opendal: Operator) => Does): Contestant => ({
  what: `OpenDAL: ${what}`,
  open: (directory) => Promise.resolve({ run: does(s3.opendalOf(directory)) })
})

/** A bucket with `object` in it. */
export const withObject = async (directory: string): Promise<void> => {
  await s3.makeBucket(directory)
  await s3.using(directory, (storage) => storage.save("object", content.firstBytes(size)))
}

const getObject = async (
  { Bucket, sdk }: s3.Sdk,
  key: string,
  range?: { readonly start: number; readonly length: number }
): Promise<Uint8Array> => {
  const { Body } = await sdk.send(
    new GetObjectCommand({
      Bucket,
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
  prepare: withObject,
  ours: byUs("Storage.load", (storage) => ({
    run: async (see) => see(await Effect.runPromise(storage.load("object")), 0)
  })),
  floors: [
    {
      ...bySdk("GetObject, transformToByteArray", (sdk) => async (see) => see(await getObject(sdk, "object"), 0)),
      atLeast: 1.4
    },
    byOpendal("read", (opendal) => async (see) => see(await opendal.read("object"), 0))
  ]
}

/** The SDK's stream of the object. */
export const bodyOf = async ({ Bucket, sdk }: s3.Sdk): Promise<Readable> => {
  const { Body } = await sdk.send(new GetObjectCommand({ Bucket, Key: "object" }))
  assert(Body instanceof Readable)
  return Body
}

export const readBody: Contestant = bySdk(
  "GetObject, its body",
  (sdk) => async (see) => readChunks(await bodyOf(sdk) as AsyncIterable<Uint8Array>, see)
)

const stream: Row = {
  name: "s3-stream",
  work: "S3: stream 256 MiB",
  amount: 256,
  unit: "MiB",
  bytes: size,
  prepare: withObject,
  ours: byUs("Storage.stream", (storage) => streaming(storage, "object")),
  floors: [
    {
      ...readBody,
      atLeast: 1.25
    },
    byOpendal("createReadStream", (opendal) => async (see) => {
      const reader = await opendal.reader("object")
      await readChunks(reader.createReadStream() as AsyncIterable<Uint8Array>, see)
    })
  ]
}

/** Throws after each run unless the object has `size` bytes; the first time, unless it has these. */
export const saving = (contestant: Contestant): Contestant => ({
  ...contestant,
  open: async (directory) => {
    const storage = await s3.storageIn(directory)
    return {
      ...await contestant.open(directory),
      after: async (first) => {
        if (first) content.check(await Effect.runPromise(storage.load("object")), 0)
        assert.equal((await Effect.runPromise(storage.head("object"))).size, size)
        await Effect.runPromise(storage.remove("object"))
      }
    }
  }
})

const bytesToSave = () => Buffer.from(content.firstBytes(size).buffer)

const save: Row = {
  name: "s3-save",
  work: "S3: save 256 MiB of bytes",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  prepare: s3.makeBucket,
  ours: saving(byUs("Storage.save", (storage) => {
    const bytes = bytesToSave()
    return { run: () => Effect.runPromise(storage.save("object", bytes)) }
  })),
  floors: [
    {
      ...saving(bySdk("PutObject", ({ Bucket, sdk }) => {
        const Body = bytesToSave()
        return () => sdk.send(new PutObjectCommand({ Bucket, Key: "object", Body }))
      })),
      atLeast: 1.3
    },
    saving(byOpendal("write", (opendal) => {
      const bytes = bytesToSave()
      return () => opendal.write("object", bytes)
    }))
  ]
}

const saveStream: Row = {
  name: "s3-save-stream",
  work: "S3: save 256 MiB from a stream of unknown length",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  memory: { work: "save", what: "S3: a save of 1 GiB from a stream", object: 0, atMost: 64 * MiB },
  prepare: s3.makeBucket,
  ours: saving(byUs("Storage.save", (storage) => ({
    run: () => Effect.runPromise(storage.save("object", content.streamOf(size)))
  }))),
  floors: [
    {
      ...saving({
        ...bySdk("Upload", ({ Bucket, sdk }) => () => {
          const params = { Bucket, Key: "object", Body: Readable.from(content.chunks(size)) }
          return new Upload({ client: sdk, params }).done()
        }),
        what: "lib-storage: Upload"
      }),
      atLeast: 1.25
    },
    saving(byOpendal("writer", (opendal) => async () => {
      const writer = await opendal.writer("object", { chunk: BigInt(8 * MiB), concurrent: 4 })
      for (const chunk of content.chunks(size)) await writer.write(Buffer.from(chunk))
      await writer.close()
    }))
  ]
}

const smallKeys = Array.from({ length: 2000 }, (_, i) => `objects/${i % 100}`)

/** Loads all, 32 at once. */
const loads = (load: (key: string) => Promise<Uint8Array>): Does => (see) =>
  forEach(smallKeys, 32, async (key) => see(await load(key), 0))

const small: Row = {
  name: "s3-small",
  work: "S3: 2,000 loads of 16 KiB, 32 at once",
  amount: 2000,
  unit: "loads",
  bytes: 2000 * 16 * KiB,
  prepare: async (directory) => {
    await s3.makeBucket(directory)
    const bytes = content.bytesAt(0, 16 * KiB)
    await s3.using(
      directory,
      (storage) => Effect.forEach(smallKeys.slice(0, 100), (key) => storage.save(key, bytes), { concurrency: 8 })
    )
  },
  ours: byUs("Storage.load", (storage) => ({
    run: (see) =>
      Effect.runPromise(
        Effect.forEach(smallKeys, (key) => Effect.map(storage.load(key), (bytes) => see(bytes, 0)), {
          concurrency: 32,
          discard: true
        })
      )
  })),
  floors: [
    { ...bySdk("GetObject", (sdk) => loads((key) => getObject(sdk, key))), atLeast: 2, cpuAtMost: 0.5 },
    byOpendal("read", (opendal) => loads((key) => opendal.read(key)))
  ]
}

const listedKeys = Array.from(
  { length: 20_000 },
  (_, i) => `models/${String(i % 100).padStart(3, "0")}/layer_${i}.bin`
).sort()

/** As the server has them: it need not keep their order. */
const inAnyOrder = (open: Parameters<typeof listing>[1]) => listing(listedKeys, open, (listed) => [...listed].sort())

const list: Row = {
  name: "s3-list",
  work: "S3: list 20,000 keys",
  amount: 20_000,
  unit: "keys",
  bytes: 0,
  prepare: async (directory) => {
    await s3.makeBucket(directory)
    await s3.using(
      directory,
      (storage) => Effect.forEach(listedKeys, (key) => storage.save(key, new Uint8Array(0)), { concurrency: 32 })
    )
  },
  ours: {
    what: "Storage.list",
    open: listing(listedKeys, async (directory) => {
      const storage = await s3.storageIn(directory)
      return () => Effect.runPromise(storage.list())
    })
  },
  floors: [
    {
      what: "SDK: paginateListObjectsV2",
      open: inAnyOrder((directory) => {
        const { Bucket, sdk } = s3.sdkOf(directory)
        return Promise.resolve(async () => {
          const found: Array<string> = []
          for await (const { Contents = [] } of paginateListObjectsV2({ client: sdk }, { Bucket })) {
            for (const { Key } of Contents) found.push(Key ?? "")
          }
          return found
        })
      }),
      atLeast: 1.5
    },
    {
      what: "OpenDAL: list",
      open: inAnyOrder((directory) => {
        const opendal = s3.opendalOf(directory)
        return Promise.resolve(async () => {
          const entries = await opendal.list("/", { recursive: true })
          return entries.filter((entry) => !entry.path().endsWith("/")).map((entry) => entry.path())
        })
      })
    }
  ]
}

const starts = scattered(size)

const reads = (read: (start: number) => Promise<Uint8Array>): Does => (see) =>
  forEach(starts, 8, async (start) => see(await read(start), start))

const ranges: Row = {
  name: "s3-ranges",
  work: "S3: 200 random ranges of 1 MiB, 8 at once",
  amount: 200,
  unit: "MiB",
  bytes: 200 * MiB,
  prepare: withObject,
  ours: byUs("Storage.load with a range", (storage) => loadingRanges(storage, starts)),
  floors: [
    {
      ...bySdk("GetObject with a range", (sdk) => reads((start) => getObject(sdk, "object", { start, length: MiB }))),
      atLeast: 1.6
    },
    byOpendal(
      "read with a range",
      (opendal) => reads((start) => opendal.read("object", { offset: BigInt(start), size: BigInt(MiB) }))
    )
  ]
}

/** 1 GiB through the library, for what it takes of memory. */
const streamMemory: Row = {
  name: "s3-stream-memory",
  work: "S3: stream 1 GiB",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  memory: { work: "stream", what: "S3: a stream of 1 GiB", object: 0, atMost: 64 * MiB },
  prepare: async (directory) => {
    await s3.makeBucket(directory)
    await s3.using(directory, (storage) => storage.save("object", content.streamOf(GiB)))
  },
  ours: byUs("Storage.stream", (storage) => streaming(storage, "object")),
  floors: []
}

export const s3Rows: ReadonlyArray<Row> = [load, stream, save, saveStream, small, list, ranges, streamMemory]
