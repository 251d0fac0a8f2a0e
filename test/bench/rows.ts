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

/** One way to do the work. */
export interface Contestant {
  readonly what: string
  /** Makes ready to do it, in a process that does nothing else, with what the row has put into the directory. */
  readonly open: (directory: string) => Promise<Opened>
}

export interface Opened {
  /** Does it once. */
  readonly run: (see: See) => Promise<unknown>
  /** Throws unless it was done right, and makes way for the next. `first` is for checks that take long. */
  readonly after?: (first: boolean) => Promise<void> | void
  /** The processor time so far, in milliseconds, of another process where that is the one to be measured. */
  readonly cpu?: () => number
}

export interface Floor extends Contestant {
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
  readonly unit: "MiB" | "loads" | "saves" | "calls" | "keys" | "requests"
  /** How many bytes a run must show. */
  readonly bytes: number
  /** Throws unless they are the right ones; without this, they are those of `content`. */
  readonly check?: See
  /** Takes so long that it runs only when it is named itself. */
  readonly onlyNamed?: boolean
  /** How long one operation may take. */
  readonly microsecondsAtMost?: number
  /** The work whose peak memory is measured, on its own; `atMost` is what it may take besides the object. */
  readonly memory?: {
    readonly work: Work
    readonly what: string
    readonly object: number
    readonly atMost?: number
  }
  /** Puts what is needed into an empty directory, which is all that the contestants share. */
  readonly prepare?: (directory: string) => Promise<unknown>
  readonly ours: Contestant
  readonly floors: ReadonlyArray<Floor>
}

export const storageOn = (directory: string) => Effect.runPromise(FileSystemStorage.make({ directory }))

/** Reads an object from its start to its end. */
export const streaming = (storage: Storage.Service, key: string): Opened => ({
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
export const loading = (storage: Storage.Service, key: string, times: number): Opened => {
  const keys = new Array<string>(times).fill(key)
  return {
    run: (see) =>
      Effect.forEach(keys, (key) => Effect.map(storage.load(key), (bytes) => see(bytes, 0)), { discard: true }).pipe(
        Effect.runPromise
      )
  }
}

/** What needs nothing but the directory. */
export const doing = (run: (directory: string, see: See) => Promise<unknown>) => (directory: string): Promise<Opened> =>
  Promise.resolve({ run: (see) => run(directory, see) })

export const writeObject = (directory: string) => content.writeFile(`${directory}/object`, GiB)

const load: Row = {
  name: "load",
  work: "load 1 GiB",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  memory: { work: "load", what: "a load of 1 GiB", object: GiB, atMost: 64 * MiB },
  prepare: writeObject,
  ours: {
    what: "Storage.load",
    open: async (directory) => {
      const storage = await storageOn(directory)
      return { run: async (see) => see(await Effect.runPromise(storage.load("object")), 0) }
    }
  },
  floors: [
    {
      what: "fs.promises.readFile",
      atLeast: 1.9,
      open: doing((directory, see) => nodeFs.readFile(`${directory}/object`, see))
    },
    {
      what: "bare: 8 MiB reads, 4 at once",
      open: doing((directory, see) => nodeFs.bareLoad(`${directory}/object`, GiB, see))
    }
  ]
}

const stream: Row = {
  name: "stream",
  work: "stream 1 GiB",
  amount: 1024,
  unit: "MiB",
  bytes: GiB,
  memory: { work: "stream", what: "a stream of 1 GiB", object: 0 },
  prepare: writeObject,
  ours: { what: "Storage.stream", open: async (directory) => streaming(await storageOn(directory), "object") },
  floors: [
    {
      what: "createReadStream",
      atLeast: 3,
      open: doing((directory, see) => nodeFs.readStream(`${directory}/object`, see))
    },
    {
      what: "bare: 1 MiB reads",
      atLeast: 0.85,
      open: doing((directory, see) => nodeFs.bareStream(`${directory}/object`, GiB, see))
    }
  ]
}

/** What saves so many bytes as the directory's `object`. */
export const saving = (
  size: number,
  open: (directory: string) => Promise<() => Promise<unknown>> | (() => Promise<unknown>)
): Contestant["open"] =>
async (directory) => ({ run: await open(directory), after: checkSaved(`${directory}/object`, size) })

const saveBytes: Row = {
  name: "save",
  work: "save 256 MiB of bytes",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  ours: {
    what: "Storage.save, atomic, synced",
    open: saving(256 * MiB, async (directory) => {
      const storage = await storageOn(directory)
      const bytes = content.firstBytes(256 * MiB)
      return () => Effect.runPromise(storage.save("object", bytes))
    })
  },
  floors: [
    {
      what: "fs.promises.writeFile",
      atLeast: 0.9,
      open: saving(256 * MiB, (directory) => {
        const bytes = content.firstBytes(256 * MiB)
        return () => nodeFs.writeFile(`${directory}/object`, bytes)
      })
    },
    {
      what: "bare: 4 MiB writes, synced",
      open: saving(256 * MiB, (directory) => {
        const bytes = content.firstBytes(256 * MiB)
        return () => nodeFs.bareSave(`${directory}/object`, slices(bytes, 4 * MiB))
      })
    }
  ]
}

const saveStream: Row = {
  name: "save-stream",
  work: "save 1 GiB from a stream of 64 KiB chunks",
  amount: 1024,
  unit: "MiB",
  bytes: 0,
  memory: { work: "save", what: "a save of 1 GiB from a stream", object: 0 },
  ours: {
    what: "Storage.save, atomic, synced",
    open: saving(GiB, async (directory) => {
      const storage = await storageOn(directory)
      return () => Effect.runPromise(storage.save("object", content.streamOf(GiB)))
    })
  },
  floors: [
    {
      what: "pipeline to createWriteStream",
      atLeast: 1.5,
      open: saving(GiB, (directory) => () => nodeFs.writeStream(`${directory}/object`, GiB))
    },
    {
      what: "bare: 4 MiB writes, synced",
      open: saving(GiB, (directory) => () => nodeFs.bareSave(`${directory}/object`, content.chunks(GiB)))
    }
  ]
}

/** The same number of small files in folders, or all in one. */
const smallLoads = (name: string, where: string, atLeast: number | undefined, keyOf: (i: number) => string): Row => {
  const keys = Array.from({ length: 10_000 }, (_, i) => keyOf(i))
  const pathsIn = (directory: string) => keys.map((key) => `${directory}/${key}`)
  const reading = (
    read: (paths: ReadonlyArray<string>, size: number, atOnce: number, see: See) => Promise<unknown>
  ): Contestant["open"] =>
  (directory) => {
    const paths = pathsIn(directory)
    return Promise.resolve({ run: (see) => read(paths, 4 * KiB, 32, see) })
  }
  return {
    name,
    work: `10,000 loads of 4 KiB, 32 at once, ${where}`,
    amount: 10_000,
    unit: "loads",
    bytes: 10_000 * 4 * KiB,
    prepare: (directory) => Promise.resolve(makeFiles(pathsIn(directory), 4 * KiB)),
    ours: {
      what: "Storage.load",
      open: async (directory) => {
        const storage = await storageOn(directory)
        return {
          run: (see) =>
            Effect.runPromise(Effect.forEach(
              keys,
              (key, i) => Effect.map(storage.load(key), (bytes) => see(bytes, i * 4 * KiB)),
              { concurrency: 32, discard: true }
            ))
        }
      }
    },
    floors: [
      {
        what: "fs.promises.readFile",
        ...(atLeast !== undefined && { atLeast }),
        open: reading(nodeFs.readFiles)
      },
      { what: "bare: open, read, close", open: reading(nodeFs.bareReadFiles) }
    ]
  }
}

export const digits = (i: number, count: number): string => String(i).padStart(count, "0")

const smallNested = smallLoads(
  "small",
  "in folders",
  1.2,
  (i) => `models/${digits(Math.floor(i / 1000), 2)}/layer_${digits(Math.floor(i / 100), 3)}/${digits(i, 5)}.bin`
)

const smallFlat = smallLoads("small-flat", "in one folder", undefined, (i) => `${digits(i, 5)}.bin`)

export const listedKeys = Array.from(
  { length: 100_000 },
  (_, i) => `models/${digits(Math.floor(i / 10_000), 2)}/layer_${digits(Math.floor(i / 100), 4)}/${digits(i, 6)}.bin`
)

/** What lists these keys and no others, once what it gives is `sorted`. */
export const listing = (
  keys: ReadonlyArray<string>,
  open: (directory: string) => Promise<() => Promise<ReadonlyArray<string>>>,
  sorted: (listed: ReadonlyArray<string>) => ReadonlyArray<string> = (listed) => listed
): Contestant["open"] =>
async (directory) => {
  const list = await open(directory)
  let listed: ReadonlyArray<string> = []
  return {
    run: async () => {
      listed = await list()
    },
    after: () => {
      assert.deepEqual(sorted(listed), keys)
      listed = []
    }
  }
}

const list: Row = {
  name: "list",
  work: "list 100,000 keys in folders, in order",
  amount: 100_000,
  unit: "keys",
  bytes: 0,
  prepare: (directory) => Promise.resolve(makeFiles(listedKeys.map((key) => `${directory}/${key}`), 0)),
  ours: {
    what: "Storage.list",
    open: listing(listedKeys, async (directory) => {
      const storage = await storageOn(directory)
      return () => Effect.runPromise(storage.list())
    })
  },
  floors: [
    {
      what: "fs.promises.readdir, recursive",
      atLeast: 2,
      open: listing(
        listedKeys,
        (directory) => Promise.resolve(() => nodeFs.readFolders(directory)),
        (listed) => listed.filter((path) => path.endsWith(".bin")).sort()
      )
    },
    {
      what: "bare: readdir of each folder",
      open: listing(listedKeys, (directory) => Promise.resolve(() => nodeFs.bareList(directory)))
    }
  ]
}

/** Where to read 1 MiB each of an object of so many bytes: anywhere, but for all contestants the same. */
export const scattered = (size: number): ReadonlyArray<number> =>
  Array.from({ length: 200 }, (_, i) => Math.floor((i * Math.SQRT2 % 1) * (size - MiB)))

export const loadingRanges = (storage: Storage.Service, starts: ReadonlyArray<number>): Opened => ({
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

const starts = scattered(GiB)

const ranges: Row = {
  name: "ranges",
  work: "200 random ranges of 1 MiB, 8 at once",
  amount: 200,
  unit: "MiB",
  bytes: 200 * MiB,
  prepare: writeObject,
  ours: {
    what: "Storage.load with a range",
    open: async (directory) => loadingRanges(await storageOn(directory), starts)
  },
  floors: [
    {
      what: "open, FileHandle.read, close",
      atLeast: 0.9,
      open: doing((directory, see) => nodeFs.readRanges(`${directory}/object`, starts, MiB, 8, see))
    }
  ]
}

/** What one operation costs before it comes to a backend that does next to nothing. */
const entry: Row = {
  name: "entry",
  work: "200,000 loads of 16 bytes in memory",
  amount: 200_000,
  unit: "loads",
  bytes: 200_000 * 16,
  ours: {
    what: "Storage.load",
    open: async () => {
      const storage = await Effect.runPromise(MemoryStorage.make())
      await Effect.runPromise(storage.save("key", content.bytesAt(0, 16)))
      return loading(storage, "key", 200_000)
    }
  },
  floors: [{
    what: "an effect that copies 16 bytes",
    open: () => {
      const bytes = content.bytesAt(0, 16)
      const copying = Effect.sync(() => bytes.slice())
      const times = Array.from({ length: 200_000 })
      return Promise.resolve({
        run: (see) =>
          Effect.runPromise(
            Effect.forEach(times, () => Effect.map(copying, (bytes) => see(bytes, 0)), { discard: true })
          )
      })
    }
  }]
}

/** Files of the content one after another. */
export const makeFiles = (paths: ReadonlyArray<string>, size: number): void => {
  for (const folder of new Set(paths.map((path) => path.slice(0, path.lastIndexOf("/"))))) {
    fs.mkdirSync(folder, { recursive: true })
  }
  for (const [i, path] of paths.entries()) fs.writeFileSync(path, content.bytesAt(i * size, size))
}

/** Also waits until the disk has done with the file, so that the next sample does not pay for this one. */
export const checkSaved = (path: string, size: number) => async (first: boolean): Promise<void> => {
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
