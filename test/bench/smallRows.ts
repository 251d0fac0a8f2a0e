/**
 * What is measured of small things, where what each operation costs by itself is all that counts: one after another,
 * and very many.
 */
import { paginateListObjectsV2 } from "@aws-sdk/client-s3"
import { Effect, Stream } from "effect"
import assert from "node:assert/strict"
import * as fs from "node:fs"
import * as path from "node:path"
import { setImmediate } from "node:timers/promises"
import { FileSystemStorage, type Storage } from "surfing-weights"
import * as content from "./content.js"
import { KiB, MiB } from "./content.js"
import * as nodeFs from "./nodeFs.js"
import { byOpendal, opendalIn } from "./opendalFs.js"
import * as Pages from "./pages.js"
import { million } from "./pages.js"
import { type Contestant, digits, doing, makeFiles, type Row, storageOn } from "./rows.js"
import * as s3 from "./s3.js"

const size = 4 * KiB
const times = 100_000

const existing = Array.from({ length: 1000 }, (_, i) => `models/layer_${digits(i % 10, 2)}/${digits(i, 4)}.bin`)

/** Over and over, until there are so many. */
const repeated = (keys: ReadonlyArray<string>): ReadonlyArray<string> =>
  Array.from({ length: Math.ceil(times / keys.length) }, () => keys).flat()

const keys = repeated(existing)

/** Where the bytes of a key's file begin in the content. */
const positionOf = (i: number): number => i % existing.length * size

const pathsIn = (directory: string, keys: ReadonlyArray<string>) => keys.map((key) => `${directory}/${key}`)

const makeExisting = (directory: string) => Promise.resolve(makeFiles(pathsIn(directory, existing), size))

const one: Row = {
  name: "small-one",
  work: "100,000 loads of 4 KiB, one after another",
  amount: times,
  unit: "loads",
  bytes: times * size,
  prepare: makeExisting,
  ours: {
    what: "Storage.load",
    open: async (directory) => {
      const storage = await storageOn(directory)
      return {
        run: (see) =>
          Effect.runPromise(Effect.forEach(
            keys,
            (key, i) => Effect.map(storage.load(key), (bytes) => see(bytes, positionOf(i))),
            { discard: true }
          ))
      }
    }
  },
  floors: [
    {
      what: "fs.promises.readFile",
      atLeast: 1,
      open: (directory) => {
        const paths = pathsIn(directory, keys)
        return Promise.resolve({
          run: (see) =>
            nodeFs.forEach(
              paths.entries(),
              1,
              async ([i, path]) => see(await fs.promises.readFile(path), positionOf(i))
            )
        })
      }
    },
    byOpendal(
      "read",
      (opendal, see) =>
        nodeFs.forEach(keys.entries(), 1, async ([i, key]) => see(await opendal.read(key), positionOf(i)))
    )
  ]
}

/** Asks about each key, one after another. */
const asked = (
  name: string,
  work: string,
  what: string,
  ask: (storage: Storage.Service, key: string, i: number) => Effect.Effect<void, Error>,
  { floor, opendal, keys }: {
    readonly keys: ReadonlyArray<string>
    readonly floor: { readonly what: string; readonly ask: (path: string, i: number) => Promise<void> }
    readonly opendal: Contestant
  }
): Row => ({
  name,
  work,
  amount: keys.length,
  unit: "calls",
  bytes: 0,
  prepare: makeExisting,
  ours: {
    what,
    open: async (directory) => {
      const storage = await storageOn(directory)
      return {
        run: () => Effect.runPromise(Effect.forEach(keys, (key, i) => ask(storage, key, i), { discard: true }))
      }
    }
  },
  floors: [
    {
      what: floor.what,
      atLeast: 1,
      open: (directory) => {
        const paths = pathsIn(directory, keys)
        return Promise.resolve({ run: () => nodeFs.forEach(paths.entries(), 1, ([i, path]) => floor.ask(path, i)) })
      }
    },
    opendal
  ]
})

const isMissing = (i: number): boolean => i % 10 === 9

/** Every tenth is not there. */
const perhapsMissing = repeated(existing.map((key, i) => isMissing(i) ? `${key}.missing` : key))

const exists = asked(
  "exists",
  "ask 100,000 times whether a key exists, one after another",
  "Storage.exists",
  (storage, key, i) => Effect.map(storage.exists(key), (exists) => assert(exists !== isMissing(i))),
  {
    keys: perhapsMissing,
    floor: {
      what: "fs.promises.access",
      ask: async (path, i) => assert(await fs.promises.access(path).then(() => true, () => false) !== isMissing(i))
    },
    opendal: byOpendal("exists", (opendal) =>
      nodeFs.forEach(
        perhapsMissing.entries(),
        1,
        async ([i, key]) => assert(await opendal.exists(key) !== isMissing(i))
      ))
  }
)

const head = asked(
  "head",
  "ask 100,000 times for the size of a key, one after another",
  "Storage.head",
  (storage, key) => Effect.map(storage.head(key), (info) => assert(info.size === size)),
  {
    keys,
    floor: { what: "fs.promises.stat", ask: async (path) => assert((await fs.promises.stat(path)).size === size) },
    opendal: byOpendal(
      "stat",
      (opendal) =>
        nodeFs.forEach(keys, 1, async (key) => assert((await opendal.stat(key)).contentLength === BigInt(size)))
    )
  }
)

/** Takes minutes, in which signals must come through, so that what is there is removed again. */
const makeMillion = async (directory: string): Promise<void> => {
  for (let folder = 0; folder < million / 1000; folder++) {
    const path = `${directory}/models/layer_${digits(folder, 4)}`
    makeFiles(Array.from({ length: 1000 }, (_, i) => `${path}/${digits(i, 4)}.bin`), 0)
    await setImmediate()
  }
}

const countingEntries = (storage: Storage.Service): Effect.Effect<void, Error> =>
  Effect.suspend(() => {
    let count = 0
    return Effect.map(
      Stream.runForEach(storage.entries(), () => Effect.sync(() => void count++)),
      () => assert.equal(count, million)
    )
  })

/**
 * Counts the files below a folder one after another, holding none of them; with `stats`, asks for the size of each. That
 * of Node 20 itself, `recursive`, ends after 1,024.
 */
const walk = async (folder: string, stats: boolean): Promise<number> => {
  let count = 0
  for await (const entry of await fs.promises.opendir(folder)) {
    const path = `${folder}/${entry.name}`
    if (entry.isDirectory()) {
      count += await walk(path, stats)
    } else {
      if (stats) assert.equal((await fs.promises.stat(path)).size, 0)
      count++
    }
  }
  return count
}

const walkMillion = (stats: boolean): Contestant["open"] =>
  doing(async (directory) => assert.equal(await walk(`${directory}/models`, stats), million))

const listMillion: Row = {
  name: "list-million",
  work: "the entries of 1,000,000 keys, in order, with their sizes",
  amount: million,
  unit: "keys",
  bytes: 0,
  onlyNamed: true,
  memory: { work: "entries", what: "the entries of 1,000,000 keys", object: 0, atMost: 64 * MiB },
  prepare: makeMillion,
  ours: {
    what: "Stream.runForEach of Storage.entries",
    open: async (directory) => {
      const storage = await storageOn(directory)
      return { run: () => Effect.runPromise(countingEntries(storage)) }
    }
  },
  floors: [
    {
      what: "for await of opendir of each folder, and stat",
      atLeast: 1,
      open: walkMillion(true)
    },
    { what: "for await of opendir of each folder", open: walkMillion(false) }
  ]
}

const listMillionOnS3: Row = {
  ...listMillion,
  name: "s3-list-million",
  work: "S3: the entries of 1,000,000 keys, with their sizes",
  memory: { work: "entries", what: "S3: the entries of 1,000,000 keys", object: 0, atMost: 64 * MiB },
  prepare: async (directory) => s3.useServer(directory, await Pages.start()),
  ours: {
    what: "Stream.runForEach of Storage.entries",
    open: async (directory) => {
      const storage = await s3.storageIn(directory)
      return { run: () => Effect.runPromise(countingEntries(storage)) }
    }
  },
  floors: [{
    what: "SDK: paginateListObjectsV2",
    atLeast: 1,
    open: (directory) => {
      const { Bucket, sdk } = s3.sdkOf(directory)
      return Promise.resolve({
        run: async () => {
          let count = 0
          for await (const { Contents = [] } of paginateListObjectsV2({ client: sdk }, { Bucket })) {
            count += Contents.length
          }
          assert.equal(count, million)
        }
      })
    }
  }]
}

const saved = Array.from({ length: 1000 }, (_, i) => `layers/${digits(i, 4)}.bin`)

const bytesOf = (i: number): Uint8Array => content.bytesAt(i * size, size)

const checkSaved = (directory: string) => (): void => {
  for (const [i, key] of saved.entries()) {
    assert.equal(Buffer.compare(fs.readFileSync(`${directory}/${key}`), bytesOf(i)), 0)
    fs.unlinkSync(`${directory}/${key}`)
  }
}

/** What saves each key's bytes, one after another. */
const saving =
  (open: (directory: string) => Promise<(key: string, bytes: Uint8Array) => Promise<unknown>>): Contestant["open"] =>
  async (directory) => {
    const save = await open(directory)
    return {
      run: () => nodeFs.forEach(saved.entries(), 1, ([i, key]) => save(key, bytesOf(i))),
      after: checkSaved(directory)
    }
  }

/** Whole or not at all; with `synced`, on the disk when it ends, the file as well as its name. */
const savingWhole = (synced: boolean) =>
  saving((directory) =>
    Promise.resolve(async (key, bytes) => {
      const temporary = `${directory}/${key}.tmp`
      await fs.promises.writeFile(temporary, bytes, { flush: synced })
      await fs.promises.rename(temporary, `${directory}/${key}`)
      if (synced) await nodeFs.flushFolder(path.dirname(temporary))
    })
  )

const savingByUs = (durability: "full" | "relaxed"): Contestant["open"] => async (directory) => {
  const storage = await Effect.runPromise(FileSystemStorage.make({ directory, durability }))
  return {
    run: () => Effect.runPromise(Effect.forEach(saved, (key, i) => storage.save(key, bytesOf(i)), { discard: true })),
    after: checkSaved(directory)
  }
}

const saves = (name: string, durability: "full" | "relaxed", what: string): Row => ({
  name,
  work: `1,000 saves of 4 KiB, ${what}, one after another`,
  amount: saved.length,
  unit: "saves",
  bytes: 0,
  prepare: (directory) => fs.promises.mkdir(`${directory}/layers`),
  ours: { what: `Storage.save, ${durability}`, open: savingByUs(durability) },
  floors: [
    {
      what: durability === "full" ? "writeFile, synced, rename, sync of the folder" : "writeFile, rename",
      atLeast: 1,
      open: savingWhole(durability === "full")
    },
    {
      what: "fs.promises.writeFile",
      open: saving((directory) => Promise.resolve((key, bytes) => fs.promises.writeFile(`${directory}/${key}`, bytes)))
    },
    {
      what: "OpenDAL: write",
      open: saving(async (directory) => {
        const opendal = await opendalIn(directory)
        return (key, bytes) => opendal.write(key, bytes)
      })
    }
  ]
})

export const smallRows: ReadonlyArray<Row> = [
  one,
  exists,
  head,
  listMillion,
  listMillionOnS3,
  saves("save-small", "full", "synced"),
  saves("save-small-relaxed", "relaxed", "not synced")
]
