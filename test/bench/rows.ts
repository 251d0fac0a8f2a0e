/**
 * What is measured: each row is one kind of work, done by this library and by `node:fs`.
 */
import { Effect, Stream } from "effect"
import assert from "node:assert/strict"
import * as fs from "node:fs"
import { dirname } from "node:path"
import { ByteRange, FileSystemStorage, MemoryStorage, type Storage } from "surfing-weights"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import * as nodeFs from "./nodeFs.js"
import type { See } from "./nodeFs.js"
import type { Work } from "./peakMemory.js"
import type { Place } from "./s3.js"

/** One way to do the work. */
export interface Contestant {
  readonly what: string
  /** Does it once. */
  readonly run: (see: See) => Promise<unknown>
  /** Throws unless it was done right, and makes way for the next. `first` is for checks that take long. */
  readonly after?: (first: boolean) => Promise<void> | void
}

interface Floor extends Contestant {
  /** The speed to reach, in multiples of this one's; none where it is shown only for comparison. */
  readonly atLeast?: number
  /** The processor time that it may take, in parts of this one's. */
  readonly cpuAtMost?: number
  /** How much longer than this one's an operation may take, in microseconds. */
  readonly microsecondsMore?: number
}

export interface Row {
  readonly name: string
  readonly work: string
  /** How much of what one run does, for the speed. */
  readonly amount: number
  readonly unit: "MiB" | "loads" | "keys" | "requests"
  /** How many bytes a run must show. */
  readonly bytes: number
  /** How long one operation may take. */
  readonly microsecondsAtMost?: number
  /** The work whose peak memory is measured, on its own; `atMost` is what it may take besides the object. */
  readonly memory?: {
    readonly work: Work
    readonly what: string
    readonly object: number
    readonly atMost?: number
  }
  /** Puts what is needed into an empty directory, or into a bucket, whose place it then gives. */
  readonly prepare: (directory: string) => Promise<{
    readonly ours: Contestant
    readonly floors: ReadonlyArray<Floor>
    readonly place?: Place
  }>
}

export const storageOn = (directory: string) => Effect.runPromise(FileSystemStorage.make({ directory }))

/** Reads an object from its start to its end. */
export const streaming = (what: string, storage: Storage.Service, key: string): Contestant => ({
  what,
  run: (see) =>
    storage.stream(key).pipe(
      Stream.runFold(0, (at, chunk) => {
        see(chunk, at)
        return at + chunk.length
      }),
      Effect.runPromise
    )
})

/** Loads one object again and again, one load after the other. */
export const loading = (what: string, storage: Storage.Service, key: string, times: number): Contestant => {
  const keys = new Array<string>(times).fill(key)
  return {
    what,
    run: (see) =>
      Effect.forEach(keys, (key) => Effect.map(storage.load(key), (bytes) => see(bytes, 0)), { discard: true }).pipe(
        Effect.runPromise
      )
  }
}

const load: Row = {
  name: "load",
  work: "load 1 GiB",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  memory: { work: "load", what: "a load of 1 GiB", object: GiB, atMost: 64 * MiB },
  prepare: async (directory) => {
    const path = `${directory}/object`
    await content.writeFile(path, GiB)
    const storage = await storageOn(directory)
    return {
      ours: {
        what: "Storage.load",
        run: async (see) => see(await Effect.runPromise(storage.load("object")), 0)
      },
      floors: [
        { what: "fs.promises.readFile", atLeast: 1.9, run: (see) => nodeFs.readFile(path, see) },
        { what: "bare: 8 MiB reads, 4 at once", run: (see) => nodeFs.bareLoad(path, GiB, see) }
      ]
    }
  }
}

const stream: Row = {
  name: "stream",
  work: "stream 1 GiB",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  memory: { work: "stream", what: "a stream of 1 GiB", object: 0 },
  prepare: async (directory) => {
    const path = `${directory}/object`
    await content.writeFile(path, GiB)
    const storage = await storageOn(directory)
    return {
      ours: streaming("Storage.stream", storage, "object"),
      floors: [
        { what: "createReadStream", atLeast: 3, run: (see) => nodeFs.readStream(path, see) },
        { what: "bare: 1 MiB reads", atLeast: 0.85, run: (see) => nodeFs.bareStream(path, GiB, see) }
      ]
    }
  }
}

const saveBytes: Row = {
  name: "save",
  work: "save 256 MiB of bytes",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  prepare: async (directory) => {
    const path = `${directory}/object`
    const storage = await storageOn(directory)
    const bytes = content.firstBytes(256 * MiB)
    const after = checkSaved(path, bytes.length)
    return {
      ours: {
        what: "Storage.save, atomic, synced",
        run: () => Effect.runPromise(storage.save("object", bytes)),
        after
      },
      floors: [
        { what: "fs.promises.writeFile", atLeast: 0.9, run: () => nodeFs.writeFile(path, bytes), after },
        { what: "bare: 4 MiB writes, synced", run: () => nodeFs.bareSave(path, slices(bytes, 4 * MiB)), after }
      ]
    }
  }
}

const saveStream: Row = {
  name: "save-stream",
  work: "save 1 GiB from a stream of 64 KiB chunks",
  amount: 1024,
  unit: "MiB",
  bytes: 0,
  memory: { work: "save", what: "a save of 1 GiB from a stream", object: 0 },
  prepare: async (directory) => {
    const path = `${directory}/object`
    const storage = await storageOn(directory)
    const after = checkSaved(path, GiB)
    return {
      ours: {
        what: "Storage.save, atomic, synced",
        run: () => Effect.runPromise(storage.save("object", content.streamOf(GiB))),
        after
      },
      floors: [
        { what: "pipeline to createWriteStream", atLeast: 1.5, run: () => nodeFs.writeStream(path, GiB), after },
        { what: "bare: 4 MiB writes, synced", run: () => nodeFs.bareSave(path, content.chunks(GiB)), after }
      ]
    }
  }
}

/** The same number of small files in folders, or all in one. */
const smallLoads = (name: string, where: string, atLeast: number | undefined, keyOf: (i: number) => string): Row => ({
  name,
  work: `10,000 loads of 4 KiB, 32 at once, ${where}`,
  amount: 10_000,
  unit: "loads",
  bytes: 10_000 * 4 * KiB,
  prepare: async (directory) => {
    const keys = Array.from({ length: 10_000 }, (_, i) => keyOf(i))
    const paths = keys.map((key) => `${directory}/${key}`)
    makeFiles(paths, 4 * KiB)
    const storage = await storageOn(directory)
    return {
      ours: {
        what: "Storage.load",
        run: (see) =>
          Effect.runPromise(Effect.forEach(
            keys,
            (key, i) => Effect.map(storage.load(key), (bytes) => see(bytes, i * 4 * KiB)),
            { concurrency: 32, discard: true }
          ))
      },
      floors: [
        {
          what: "fs.promises.readFile",
          ...(atLeast !== undefined && { atLeast }),
          run: (see) => nodeFs.readFiles(paths, 4 * KiB, 32, see)
        },
        { what: "bare: open, read, close", run: (see) => nodeFs.bareReadFiles(paths, 4 * KiB, 32, see) }
      ]
    }
  }
})

const digits = (i: number, count: number): string => String(i).padStart(count, "0")

const smallNested = smallLoads(
  "small",
  "in folders",
  1.2,
  (i) => `models/${digits(Math.floor(i / 1000), 2)}/layer_${digits(Math.floor(i / 100), 3)}/${digits(i, 5)}.bin`
)

const smallFlat = smallLoads("small-flat", "in one folder", undefined, (i) => `${digits(i, 5)}.bin`)

const list: Row = {
  name: "list",
  work: "list 100,000 keys in folders, in order",
  amount: 100_000,
  unit: "keys",
  bytes: 0,
  prepare: async (directory) => {
    const keys = Array.from(
      { length: 100_000 },
      (_, i) =>
        `models/${digits(Math.floor(i / 10_000), 2)}/layer_${digits(Math.floor(i / 100), 4)}/${digits(i, 6)}.bin`
    )
    makeFiles(keys.map((key) => `${directory}/${key}`), 0)
    const storage = await storageOn(directory)
    let listed: ReadonlyArray<string> = []
    const after = () => assert.deepEqual(listed, keys)
    return {
      ours: {
        what: "Storage.list",
        run: async () => listed = await Effect.runPromise(storage.list()),
        after
      },
      floors: [
        {
          what: "fs.promises.readdir, recursive",
          atLeast: 2,
          run: async () => listed = await nodeFs.readFolders(directory),
          after: () => {
            listed = listed.filter((path) => path.endsWith(".bin")).sort()
            after()
          }
        },
        {
          what: "bare: readdir of each folder",
          run: async () => listed = await nodeFs.bareList(directory),
          after
        }
      ]
    }
  }
}

/** Where to read 1 MiB each of an object of so many bytes. */
export const randomStarts = (size: number): ReadonlyArray<number> =>
  Array.from({ length: 200 }, () => Math.floor(Math.random() * (size - MiB)))

export const loadingRanges = (storage: Storage.Service, starts: ReadonlyArray<number>): Contestant => ({
  what: "Storage.load with a range",
  run: (see) =>
    Effect.runPromise(Effect.forEach(
      starts,
      (start) =>
        Effect.map(
          storage.load("object", { range: ByteRange.make(start, start + MiB) }),
          (bytes) => see(bytes, start)
        ),
      { concurrency: 8, discard: true }
    ))
})

const ranges: Row = {
  name: "ranges",
  work: "200 random ranges of 1 MiB, 8 at once",
  amount: 200,
  unit: "MiB",
  bytes: 200 * MiB,
  prepare: async (directory) => {
    const path = `${directory}/object`
    await content.writeFile(path, GiB)
    const storage = await storageOn(directory)
    const starts = randomStarts(GiB)
    return {
      ours: loadingRanges(storage, starts),
      floors: [
        {
          what: "open, FileHandle.read, close",
          atLeast: 0.9,
          run: (see) => nodeFs.readRanges(path, starts, MiB, 8, see)
        }
      ]
    }
  }
}

/** What one operation costs before it comes to a backend that does next to nothing. */
const entry: Row = {
  name: "entry",
  work: "200,000 loads of 16 bytes in memory",
  amount: 200_000,
  unit: "loads",
  bytes: 200_000 * 16,
  prepare: async () => {
    const bytes = content.bytesAt(0, 16)
    const storage = await Effect.runPromise(MemoryStorage.make())
    await Effect.runPromise(storage.save("key", bytes))
    const copying = Effect.sync(() => bytes.slice())
    const times = Array.from({ length: 200_000 })
    return {
      ours: loading("Storage.load", storage, "key", 200_000),
      floors: [{
        what: "an effect that copies 16 bytes",
        run: (see) =>
          Effect.runPromise(
            Effect.forEach(times, () => Effect.map(copying, (bytes) => see(bytes, 0)), { discard: true })
          )
      }]
    }
  }
}

/** Files of the content one after another. */
const makeFiles = (paths: ReadonlyArray<string>, size: number): void => {
  for (const folder of new Set(paths.map((path) => path.slice(0, path.lastIndexOf("/"))))) {
    fs.mkdirSync(folder, { recursive: true })
  }
  for (const [i, path] of paths.entries()) fs.writeFileSync(path, content.bytesAt(i * size, size))
}

/** Also waits until the disk has done with the file, so that the next sample does not pay for this one. */
const checkSaved = (path: string, size: number) => async (first: boolean): Promise<void> => {
  await content.checkFile(path, size, first)
  fs.unlinkSync(path)
  await nodeFs.flushFolder(dirname(path))
}

function* slices(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

export const rows: ReadonlyArray<Row> = [
  load,
  stream,
  saveBytes,
  saveStream,
  smallNested,
  smallFlat,
  list,
  ranges,
  entry
]
