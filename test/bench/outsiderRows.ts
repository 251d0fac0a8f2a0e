/**
 * What is measured of an app that is not written with Effect: it makes a `ManagedRuntime`, runs a promise for each
 * operation, and reads streams by `for await`. Against `node:fs/promises`, and OpenDAL for comparison.
 */
import type { Effect } from "effect"
import { ManagedRuntime, Stream } from "effect"
import * as fs from "node:fs"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { ByteRange, FileSystemStorage, Storage } from "surfing-weights"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import * as nodeFs from "./nodeFs.js"
import type { See } from "./nodeFs.js"
import { byOpendal, opendalIn } from "./opendalFs.js"
import type { Work } from "./peakMemory.js"
import { readChunks } from "./reading.js"
import {
  type Contestant,
  digits,
  doing,
  type Floor,
  listedKeys,
  listing,
  makeFiles,
  type Row,
  saving,
  scattered,
  writeObject
} from "./rows.js"

/** Runs an operation as such an app does. */
type Run = <A, E>(operation: Effect.Effect<A, E, Storage.Storage>) => Promise<A>

const runtimeOn = (directory: string): Run => {
  const runtime = ManagedRuntime.make(FileSystemStorage.layer({ directory }))
  return (operation) => runtime.runPromise(operation)
}

const outside = (what: string, does: (run: Run, see: See) => Promise<unknown>): Contestant => ({
  what,
  open: (directory) => {
    const run = runtimeOn(directory)
    return Promise.resolve({ run: (see) => does(run, see) })
  }
})

/** To be as fast as what the app does now. */
const targets = { atLeast: 1 }

const byNode = (what: string, does: (directory: string, see: See) => Promise<unknown>): Floor => ({
  what,
  ...targets,
  open: doing(does)
})

const whole = { amount: 1024, unit: "MiB", bytes: GiB, prepare: writeObject } as const

const load: Row = {
  ...whole,
  name: "outside-load",
  work: "outside of Effect: load 1 GiB",
  ours: outside("Storage.load", async (run, see) => see(await run(Storage.load("object")), 0)),
  floors: [
    byNode("readFile", (directory, see) => nodeFs.readFile(`${directory}/object`, see)),
    byOpendal("read", async (opendal, see) => see(await opendal.read("object"), 0))
  ]
}

const stream = (
  name: string,
  what: string,
  work: Work,
  iterate: (bytes: ReturnType<Storage.Service["stream"]>) => AsyncIterable<Uint8Array>
): Row => ({
  ...whole,
  name,
  work: `outside of Effect: stream 1 GiB by ${what}`,
  memory: { work, what: `1 GiB by ${what}`, object: 0, atMost: 64 * MiB },
  ours: outside(`${what} of Storage.stream`, async (run, see) => {
    const storage = await run(Storage.Storage)
    await readChunks(iterate(storage.stream("object")), see)
  }),
  floors: [
    byNode("for await of createReadStream", (directory, see) => nodeFs.readStream(`${directory}/object`, see)),
    byOpendal("createReadStream", async (opendal, see) => {
      const reader = await opendal.reader("object")
      await readChunks(reader.createReadStream() as AsyncIterable<Uint8Array>, see)
    })
  ]
})

/** A contestant that saves `object`, and is checked. */
const saves = <A extends Omit<Contestant, "open">>(
  contestant: A,
  size: number,
  open: (directory: string) => Promise<() => Promise<unknown>> | (() => Promise<unknown>)
): A & Contestant => ({ ...contestant, open: saving(size, open) })

const savedSize = 256 * MiB

const save: Row = {
  name: "outside-save",
  work: "outside of Effect: save 256 MiB of bytes",
  amount: 256,
  unit: "MiB",
  bytes: 0,
  ours: saves({ what: "Storage.save, atomic, synced" }, savedSize, (directory) => {
    const run = runtimeOn(directory)
    const bytes = content.firstBytes(savedSize)
    return () => run(Storage.save("object", bytes))
  }),
  floors: [
    saves({ what: "writeFile, synced", ...targets }, savedSize, (directory) => {
      const bytes = content.firstBytes(savedSize)
      return () => fs.promises.writeFile(`${directory}/object`, bytes, { flush: true })
    }),
    saves({ what: "writeFile" }, savedSize, (directory) => {
      const bytes = content.firstBytes(savedSize)
      return () => nodeFs.writeFile(`${directory}/object`, bytes)
    }),
    saves({ what: "OpenDAL: write" }, savedSize, async (directory) => {
      const opendal = await opendalIn(directory)
      const bytes = content.firstBytes(savedSize)
      return () => opendal.write("object", bytes)
    })
  ]
}

/** What such an app has to save: chunks that come one after another, or as a stream of the web. */
const iterableOf = (size: number): AsyncIterable<Uint8Array> => Readable.from(content.chunks(size))

const webOf = (size: number): ReadableStream<Uint8Array> => {
  const left = content.chunks(size)
  return new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const next = left.next()
      if (next.done === true) controller.close()
      else controller.enqueue(next.value)
    }
  })
}

const failed = (cause: unknown) => new Error("the source has failed", { cause })

/** Saves 1 GiB from a source as the app has it; `streamOf` makes a stream of it. */
const saveStream = <Source extends AsyncIterable<Uint8Array>>(
  name: string,
  what: string,
  sourceOf: (size: number) => Source,
  streamOf: (source: Source) => Stream.Stream<Uint8Array, Error>
): Row => ({
  name,
  work: `outside of Effect: save 1 GiB from ${what}`,
  amount: 1024,
  unit: "MiB",
  bytes: 0,
  ours: saves({ what: "Storage.save, atomic, synced" }, GiB, (directory) => {
    const run = runtimeOn(directory)
    return () => run(Storage.save("object", streamOf(sourceOf(GiB))))
  }),
  floors: [
    saves(
      { what: "writeFile, synced", ...targets },
      GiB,
      (directory) => () => fs.promises.writeFile(`${directory}/object`, sourceOf(GiB), { flush: true })
    ),
    saves(
      { what: "pipeline to createWriteStream, synced" },
      GiB,
      (directory) => () =>
        pipeline(
          sourceOf(GiB) as AsyncIterable<Uint8Array>,
          fs.createWriteStream(`${directory}/object`, { flush: true })
        )
    ),
    saves({ what: "OpenDAL: writer" }, GiB, async (directory) => {
      const opendal = await opendalIn(directory)
      return async () => {
        const writer = await opendal.writer("object", { chunk: BigInt(8 * MiB), concurrent: 4 })
        for await (const chunk of sourceOf(GiB)) await writer.write(chunk)
        await writer.close()
      }
    })
  ]
})

const saveIterable = saveStream(
  "outside-save-stream",
  "an AsyncIterable",
  iterableOf,
  (source) => Stream.fromAsyncIterable(source, failed)
)

const saveWeb = saveStream(
  "outside-save-web",
  "a ReadableStream",
  webOf,
  (source) => Stream.fromReadableStream({ evaluate: () => source, onError: failed })
)

const smallKeys = Array.from(
  { length: 10_000 },
  (_, i) => `models/layer_${digits(Math.floor(i / 100), 3)}/${digits(i, 5)}.bin`
)

const smallPaths = (directory: string) => smallKeys.map((key) => `${directory}/${key}`)

/** Loads all small objects, 32 at once. */
const loads = (load: (key: string) => Promise<Uint8Array>, see: See): Promise<void> =>
  nodeFs.forEach(smallKeys.entries(), 32, async ([i, key]) => see(await load(key), i * 4 * KiB))

const small: Row = {
  name: "outside-small",
  work: "outside of Effect: 10,000 loads of 4 KiB, 32 at once",
  amount: smallKeys.length,
  unit: "loads",
  bytes: smallKeys.length * 4 * KiB,
  prepare: (directory) => Promise.resolve(makeFiles(smallPaths(directory), 4 * KiB)),
  ours: outside("Storage.load", (run, see) => loads((key) => run(Storage.load(key)), see)),
  floors: [
    byNode("readFile", (directory, see) => nodeFs.readFiles(smallPaths(directory), 4 * KiB, 32, see)),
    byOpendal("read", (opendal, see) => loads((key) => opendal.read(key), see))
  ]
}

const areFiles = (listed: ReadonlyArray<string>) => listed.filter((path) => path.endsWith(".bin")).sort()

const list: Row = {
  name: "outside-list",
  work: "outside of Effect: list 100,000 keys in folders, in order",
  amount: listedKeys.length,
  unit: "keys",
  bytes: 0,
  prepare: (directory) => Promise.resolve(makeFiles(listedKeys.map((key) => `${directory}/${key}`), 0)),
  ours: {
    what: "Storage.list",
    open: listing(listedKeys, (directory) => {
      const run = runtimeOn(directory)
      return Promise.resolve(() => run(Storage.list()))
    })
  },
  floors: [
    {
      what: "readdir, recursive",
      ...targets,
      open: listing(listedKeys, (directory) => Promise.resolve(() => nodeFs.readFolders(directory)), areFiles)
    },
    {
      what: "OpenDAL: list",
      open: listing(listedKeys, async (directory) => {
        const opendal = await opendalIn(directory)
        return async () => (await opendal.list("/", { recursive: true })).map((entry) => entry.path())
      }, areFiles)
    }
  ]
}

const starts = scattered(GiB)

/** Loads all ranges, 8 at once. */
const reads = (read: (start: number) => Promise<Uint8Array>, see: See): Promise<void> =>
  nodeFs.forEach(starts, 8, async (start) => see(await read(start), start))

const ranges: Row = {
  name: "outside-ranges",
  work: "outside of Effect: 200 random ranges of 1 MiB, 8 at once",
  amount: 200,
  unit: "MiB",
  bytes: 200 * MiB,
  prepare: writeObject,
  ours: outside(
    "Storage.load with a range",
    (run, see) => reads((start) => run(Storage.load("object", { range: ByteRange.make(start, start + MiB) })), see)
  ),
  floors: [
    byNode(
      "open, FileHandle.read, close",
      (directory, see) => nodeFs.readRanges(`${directory}/object`, starts, MiB, 8, see)
    ),
    byOpendal(
      "read with a range",
      (opendal, see) => reads((start) => opendal.read("object", { offset: BigInt(start), size: BigInt(MiB) }), see)
    )
  ]
}

export const outsiderRows: ReadonlyArray<Row> = [
  load,
  stream("outside-stream", "Stream.toAsyncIterable", "iterable", Stream.toAsyncIterable),
  stream("outside-stream-own", "Storage.toAsyncIterable", "own-iterable", Storage.toAsyncIterable),
  save,
  saveIterable,
  saveWeb,
  small,
  list,
  ranges
]
