/**
 * What is measured of S3 as users read it and move it from and to files: by this library, whose storages do both, and by
 * the AWS SDK with `node:fs`.
 */
import { PutObjectCommand } from "@aws-sdk/client-s3"
import { Upload } from "@aws-sdk/lib-storage"
import { Effect } from "effect"
import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { pipeline } from "node:stream/promises"
import type { Storage } from "surfing-weights"
import * as content from "./content.js"
import type { See } from "./nodeFs.js"
import {
  hash,
  hashReadable,
  ownEach,
  ownHash,
  ownIterable,
  ownWeb,
  readEach,
  readIterable,
  readWeb
} from "./reading.js"
import { checkSaved, type Contestant, type Row, storageOn } from "./rows.js"
import * as s3 from "./s3.js"
import { bodyOf, byUs, readBody, saving, size, withObject } from "./s3Rows.js"

/** To be as fast as what users would write with the SDK, and to cost no more. */
const targets = { atLeast: 1, cpuAtMost: 1 }

const streamed = { amount: 256, unit: "MiB", bytes: size, prepare: withObject } as const

const streamedBy = (
  name: string,
  what: string,
  read: (bytes: ReturnType<Storage.Service["stream"]>, see: See) => Promise<unknown>
): Row => ({
  ...streamed,
  name: `s3-stream-${name}`,
  work: `S3: stream 256 MiB by ${what}`,
  ours: byUs(what, (storage) => ({ run: (see) => read(storage.stream("object"), see) })),
  floors: [{ ...readBody, ...targets }]
})

const streams = [
  streamedBy("each", "Stream.runForEach", (bytes, see) => Effect.runPromise(readEach(bytes, see))),
  streamedBy("iterable", "Stream.toAsyncIterable", readIterable),
  streamedBy("web", "Stream.toReadableStream", readWeb),
  streamedBy("own", "Storage.forEachChunk", (bytes, see) => Effect.runPromise(ownEach(bytes, see))),
  streamedBy("own-iterable", "Storage.toAsyncIterable", ownIterable),
  streamedBy("own-web", "Storage.toReadableStream", ownWeb)
]

const digest = createHash("sha256").update(content.firstBytes(size)).digest("hex")

const hashed = (name: string, what: string, hashBy: typeof hash): Row => ({
  ...streamed,
  name: `s3-${name}`,
  work: `S3: SHA-256 of 256 MiB by ${what}`,
  bytes: 0,
  ours: byUs(what, (storage) => ({
    run: async () => assert.equal(await Effect.runPromise(hashBy(storage.stream("object"))), digest)
  })),
  floors: [{
    what: "SDK: pipeline(GetObject's body, createHash)",
    ...targets,
    open: (directory) => {
      const sdk = s3.sdkOf(directory)
      return Promise.resolve({ run: async () => assert.equal(await hashReadable(await bodyOf(sdk)), digest) })
    }
  }]
})

const hashes = [
  hashed("hash", "Stream.runForEach", hash),
  hashed("own-hash", "Storage.forEachChunk", ownHash)
]

/** What makes a file `copy` in a folder of the directory. */
const toFile = (what: string, open: (directory: string) => Promise<() => Promise<unknown>>): Contestant => ({
  what,
  open: async (directory) => ({ run: await open(directory), after: checkSaved(`${directory}/files/copy`, size) })
})

const bodyToFile = (what: string, synced: boolean): Contestant =>
  toFile(what, (directory) => {
    const sdk = s3.sdkOf(directory)
    return Promise.resolve(async () =>
      pipeline(await bodyOf(sdk), fs.createWriteStream(`${directory}/files/copy`, { flush: synced }))
    )
  })

const download: Row = {
  ...streamed,
  name: "s3-to-file",
  work: "S3: 256 MiB into a file",
  bytes: 0,
  prepare: async (directory) => {
    fs.mkdirSync(`${directory}/files`)
    await withObject(directory)
  },
  ours: toFile("Storage.save of another's Storage.stream, atomic, synced", async (directory) => {
    const remote = await s3.storageIn(directory)
    const local = await storageOn(`${directory}/files`)
    return () => Effect.runPromise(local.save("copy", remote.stream("object")))
  }),
  floors: [
    { ...bodyToFile("SDK: pipeline(GetObject's body, createWriteStream)", false), ...targets },
    bodyToFile("SDK: pipeline(GetObject's body, createWriteStream), synced", true)
  ]
}

const fileIn = (directory: string): string => `${directory}/files/object`

/** By the SDK, from a stream of the file. */
const fromFile = (
  what: string,
  save: (sdk: s3.Sdk, body: fs.ReadStream) => Promise<unknown>
): Contestant =>
  saving({
    what,
    open: (directory) => {
      const sdk = s3.sdkOf(directory)
      return Promise.resolve({ run: () => save(sdk, fs.createReadStream(fileIn(directory))) })
    }
  })

const upload: Row = {
  ...streamed,
  name: "file-to-s3",
  work: "S3: 256 MiB of a file into an object",
  bytes: 0,
  prepare: async (directory) => {
    fs.mkdirSync(`${directory}/files`)
    await content.writeFile(fileIn(directory), size)
    await s3.makeBucket(directory)
  },
  ours: saving({
    what: "Storage.save of another's Storage.stream",
    open: async (directory) => {
      const remote = await s3.storageIn(directory)
      const local = await storageOn(`${directory}/files`)
      return { run: () => Effect.runPromise(remote.save("object", local.stream("object"))) }
    }
  }),
  floors: [
    {
      ...fromFile(
        "lib-storage: Upload of createReadStream",
        ({ Bucket, sdk }, Body) => new Upload({ client: sdk, params: { Bucket, Key: "object", Body } }).done()
      ),
      ...targets
    },
    fromFile(
      "SDK: PutObject of createReadStream",
      ({ Bucket, sdk }, Body) => sdk.send(new PutObjectCommand({ Bucket, Key: "object", Body, ContentLength: size }))
    )
  ]
}

export const s3FileRows: ReadonlyArray<Row> = [...streams, ...hashes, download, upload]
