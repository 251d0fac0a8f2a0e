/**
 * What is measured of streams as users read them: files that are streamed in each of the ways that Effect and Node offer,
 * against what their users would write with `node:fs`.
 */
import { Effect } from "effect"
import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import type { Storage } from "surfing-weights"
import * as content from "./content.js"
import { GiB, MiB } from "./content.js"
import { cpuOf, downloadAll, startServer } from "./http.js"
import * as nodeFs from "./nodeFs.js"
import type { See } from "./nodeFs.js"
import type { Work } from "./peakMemory.js"
import {
  hash,
  hashReadable,
  ownEach,
  ownHash,
  ownIterable,
  ownPipeToFile,
  ownWeb,
  pipeToFile,
  readChunks,
  readEach,
  readIterable,
  readWeb
} from "./reading.js"
import { checkSaved, type Contestant, doing, type Floor, type Row, storageOn, writeObject } from "./rows.js"

/** To be as fast as what they would write themselves, and to cost no more. */
const targets = { atLeast: 1, cpuAtMost: 1 }

const ours = (
  what: string,
  run: (storage: Storage.Service, see: See, directory: string) => Promise<unknown>
): Contestant => ({
  what,
  open: async (directory) => {
    const storage = await storageOn(directory)
    return { run: (see) => run(storage, see, directory) }
  }
})

const createReadStream: Floor = {
  what: "for await of createReadStream",
  ...targets,
  open: doing((directory, see) => nodeFs.readStream(`${directory}/object`, see))
}

/** What each row of 1 GiB has in common. */
const whole = { amount: 1024, unit: "MiB", bytes: GiB, prepare: writeObject } as const

const memoryOf = (work: Work, what: string) => ({
  memory: { work, what: `1 GiB ${what}`, object: 0, atMost: 64 * MiB }
})

const each: Row = {
  ...whole,
  ...memoryOf("each", "by Stream.runForEach"),
  name: "stream-each",
  work: "stream 1 GiB by Stream.runForEach",
  ours: ours("Stream.runForEach", (storage, see) => Effect.runPromise(readEach(storage.stream("object"), see))),
  floors: [createReadStream]
}

const iterable: Row = {
  ...whole,
  ...memoryOf("iterable", "by Stream.toAsyncIterable"),
  name: "stream-iterable",
  work: "stream 1 GiB by Stream.toAsyncIterable",
  ours: ours("Stream.toAsyncIterable", (storage, see) => readIterable(storage.stream("object"), see)),
  floors: [createReadStream]
}

const web: Row = {
  ...whole,
  ...memoryOf("web", "by Stream.toReadableStream"),
  name: "stream-web",
  work: "stream 1 GiB by Stream.toReadableStream",
  ours: ours("Stream.toReadableStream", (storage, see) => readWeb(storage.stream("object"), see)),
  floors: [
    createReadStream,
    {
      what: "Readable.toWeb of createReadStream",
      open: doing((directory, see) =>
        readChunks(Readable.toWeb(fs.createReadStream(`${directory}/object`)) as AsyncIterable<Uint8Array>, see)
      )
    }
  ]
}

const own = (
  name: Work,
  what: string,
  run: (bytes: ReturnType<Storage.Service["stream"]>, see: See) => Promise<void>
): Row => ({
  ...whole,
  ...memoryOf(name, `by ${what}`),
  name: `stream-${name}`,
  work: `stream 1 GiB by ${what}`,
  ours: ours(what, (storage, see) => run(storage.stream("object"), see)),
  floors: [createReadStream]
})

const ownRows = [
  own("own-each", "Storage.forEachChunk", (bytes, see) => Effect.runPromise(ownEach(bytes, see))),
  own("own-iterable", "Storage.toAsyncIterable", ownIterable),
  own("own-web", "Storage.toReadableStream", ownWeb)
]

/** What makes a file `copy` of so many bytes in the directory. */
const copying = ({ open, ...contestant }: Floor, size: number): Floor => ({
  ...contestant,
  open: async (directory) => ({ ...await open(directory), after: checkSaved(`${directory}/copy`, size) })
})

const pipelineOf = (from: string, size: number): Floor =>
  copying({
    what: "pipeline(createReadStream, createWriteStream)",
    ...targets,
    open: doing((directory) =>
      pipeline(fs.createReadStream(`${directory}/${from}`), fs.createWriteStream(`${directory}/copy`))
    )
  }, size)

const piped = (
  name: "readable" | "own-readable",
  what: string,
  pipe: (bytes: ReturnType<Storage.Service["stream"]>, path: string) => Promise<void>
): Row => ({
  ...whole,
  ...memoryOf(name, `by ${what} into a file`),
  name: `stream-${name}`,
  work: `pipe 1 GiB by ${what} into a file`,
  bytes: 0,
  ours: copying(
    ours(
      `pipeline(${what}, createWriteStream)`,
      (storage, _, directory) => pipe(storage.stream("object"), `${directory}/copy`)
    ),
    GiB
  ),
  floors: [pipelineOf("object", GiB)]
})

const pipedRows = [
  piped("readable", "NodeStream.toReadable", pipeToFile),
  piped("own-readable", "Readable.from(Storage.toAsyncIterable)", ownPipeToFile)
]

/** What `makeHash` has found. */
const hashIn = (directory: string): string => fs.readFileSync(`${directory}/hash`, "utf8")

const makeHash = (directory: string): void => {
  const sha256 = createHash("sha256")
  for (const chunk of content.chunks(GiB)) sha256.update(chunk)
  fs.writeFileSync(`${directory}/hash`, sha256.digest("hex"))
}

const hashed = (name: string, what: string, makeHashOf: typeof hash): Row => ({
  ...whole,
  name,
  work: `SHA-256 of 1 GiB by ${what}`,
  bytes: 0,
  prepare: async (directory) => {
    await writeObject(directory)
    makeHash(directory)
  },
  ours: ours(`${what} into createHash`, async (storage, _, directory) => {
    assert.equal(await Effect.runPromise(makeHashOf(storage.stream("object"))), hashIn(directory))
  }),
  floors: [{
    what: "pipeline(createReadStream, createHash)",
    ...targets,
    open: doing(async (directory) =>
      assert.equal(await hashReadable(fs.createReadStream(`${directory}/object`)), hashIn(directory))
    )
  }]
})

const keys = Array.from({ length: 8 }, (_, i) => `object-${i}`)

const many = (name: string, what: string, read: typeof readEach): Row => ({
  name,
  work: `stream 8 files of 128 MiB at once by ${what}`,
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  prepare: async (directory) => {
    for (const key of keys) await content.writeFile(`${directory}/${key}`, GiB / keys.length)
  },
  ours: ours(what, (storage, see) =>
    Effect.runPromise(
      Effect.forEach(keys, (key) => read(storage.stream(key), see), { concurrency: "unbounded", discard: true })
    )),
  floors: [{
    ...createReadStream,
    open: doing((directory, see) => Promise.all(keys.map((key) => nodeFs.readStream(`${directory}/${key}`, see))))
  }]
})

const long: Row = {
  ...whole,
  name: "stream-long",
  work: "stream 16 GiB that take no room on the disk",
  amount: 16 * 1024,
  bytes: 16 * GiB,
  check: content.checkZeros,
  onlyNamed: true,
  memory: { work: "each", what: "16 GiB by Stream.runForEach", object: 0, atMost: 64 * MiB },
  prepare: (directory) => {
    fs.writeFileSync(`${directory}/object`, "")
    return fs.promises.truncate(`${directory}/object`, 16 * GiB)
  },
  ours: ours("Stream.runForEach", (storage, see) => Effect.runPromise(readEach(storage.stream("object"), see))),
  floors: [createReadStream]
}

const copySize = 256 * MiB

const copy: Row = {
  name: "copy-files",
  work: "copy 256 MiB of a file into a file",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  prepare: async (directory) => {
    fs.mkdirSync(`${directory}/other`)
    await content.writeFile(`${directory}/other/object`, copySize)
  },
  ours: copying({
    what: "Storage.save of another's Storage.stream, atomic, synced",
    open: async (directory) => {
      const other = await storageOn(`${directory}/other`)
      const storage = await storageOn(directory)
      return { run: () => Effect.runPromise(storage.save("copy", other.stream("object"))) }
    }
  }, copySize),
  floors: [
    pipelineOf("other/object", copySize),
    copying({
      what: "pipeline(createReadStream, createWriteStream), synced",
      open: doing((directory) =>
        pipeline(
          fs.createReadStream(`${directory}/other/object`),
          fs.createWriteStream(`${directory}/copy`, { flush: true })
        )
      )
    }, copySize),
    copying({
      what: "fs.promises.copyFile",
      open: doing((directory) => fs.promises.copyFile(`${directory}/other/object`, `${directory}/copy`))
    }, copySize)
  ]
}

/** A server that answers without a length, whose processor time is measured instead of its client's. */
const served = (what: string, kind: "app" | "plain"): Contestant => ({
  what,
  open: async (directory) => {
    const server = await startServer(kind, directory)
    return {
      run: (see) => downloadAll(server, [{ key: "object", length: GiB }], see),
      ...(process.platform === "linux" && { cpu: () => cpuOf(server) })
    }
  }
})

const app: Row = {
  ...whole,
  name: "http-app",
  work: "1 GiB of a file by an app's own server",
  ours: served("HttpServerResponse.stream", "app"),
  floors: [{ ...served("node:http, createReadStream().pipe", "plain"), ...targets }]
}

export const streamRows: ReadonlyArray<Row> = [
  each,
  ...ownRows,
  iterable,
  web,
  ...pipedRows,
  hashed("stream-hash", "Stream.runForEach", hash),
  hashed("stream-own-hash", "Storage.forEachChunk", ownHash),
  many("stream-many", "Stream.runForEach", readEach),
  many("stream-own-many", "Storage.forEachChunk", ownEach),
  long,
  copy,
  app
]
