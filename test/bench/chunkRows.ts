/**
 * Benchmark rows of models in chunks: how much of the loading time is hidden behind the use of the chunks, and how fast
 * they are verified compared with a bare SHA-256 of the same files.
 */
import { Effect, Stream } from "effect"
import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { ModelChunks, Storage, StorageChaos } from "surfing-weights"
import * as content from "./content.js"
import { MiB } from "./content.js"
import type { See } from "./nodeFs.js"
import { type Contestant, type Row, storageOn } from "./rows.js"

const count = 20
const chunkSize = 16 * MiB

/** Saves a model of `count` chunks that are the content one after another. */
const saveModel = async (directory: string): Promise<void> => {
  fs.mkdirSync(`${directory}/model`)
  const bytes = content.firstBytes(count * chunkSize)
  for (let i = 0; i < count; i++) {
    fs.writeFileSync(`${directory}/model/chunk_${i}`, bytes.subarray(i * chunkSize, (i + 1) * chunkSize))
  }
  await run(await storageOn(directory), ModelChunks.writeManifest("model"))
}

const run = <A, E>(storage: Storage.Service, effect: Effect.Effect<A, E, Storage.Storage>): Promise<A> =>
  Effect.runPromise(Effect.provideService(effect, Storage.Storage, storage))

/**
 * A pass in which each chunk is in use for some milliseconds, as by a device that computes beside this process. Returns
 * the average wait for a chunk.
 */
const pass = (storage: Storage.Service, prefetch: number, milliseconds: number, see: See): Promise<number> =>
  run(
    storage,
    Effect.gen(function*() {
      const model = yield* ModelChunks.open("model")
      let at = 0
      let waited = 0
      let asked = performance.now()
      yield* Stream.runForEach(model.stream({ prefetch }), ({ bytes }) =>
        Effect.suspend(() => {
          waited += performance.now() - asked
          see(bytes, at)
          at += bytes.byteLength
          return Effect.sleep(milliseconds)
        }).pipe(Effect.tap(() => Effect.sync(() => void (asked = performance.now())))))
      return waited / count
    })
  )

/** Passes over the model with each chunk in use for as long as its load takes, which is measured first. */
const passing = (what: string, prefetch: number): Contestant => ({
  what,
  open: async (directory) => {
    // Only waiting can be hidden: here 100 ms for each chunk, as for a server on a network.
    const storage = await Effect.runPromise(StorageChaos.make(await storageOn(directory), [
      { operation: "load", delay: "100 millis", times: Infinity, error: "none" }
    ]))
    const load = await pass(storage, 0, 0, () => undefined)
    return { run: (see) => pass(storage, prefetch, load, see) }
  }
})

const overlapping: Row = {
  name: "chunks",
  work: "20 chunks of 16 MiB, 100 ms away, in use as long as a load takes",
  amount: count * chunkSize / MiB,
  unit: "MiB",
  bytes: count * chunkSize,
  prepare: saveModel,
  ours: passing("prefetch of one", 1),
  floors: [{ ...passing("one after the other", 0), atLeast: 1.67 }]
}

const verified: Row = {
  name: "chunks-verify",
  work: "verify 320 MiB in 20 chunks",
  amount: count * chunkSize / MiB,
  unit: "MiB",
  bytes: 0,
  prepare: saveModel,
  ours: {
    what: "ModelChunks.verify",
    open: async (directory) => {
      const storage = await storageOn(directory)
      return { run: () => run(storage, Stream.runDrain(ModelChunks.verify("model"))) }
    }
  },
  floors: [{
    what: "createReadStream and node:crypto",
    open: (directory) =>
      Promise.resolve({
        run: async () => {
          for (let i = 0; i < count; i++) {
            const hash = createHash("sha256")
            for await (const bytes of fs.createReadStream(`${directory}/model/chunk_${i}`)) hash.update(bytes as Buffer)
            assert.equal(hash.digest("hex").length, 64)
          }
        }
      })
  }, {
    what: "node:crypto alone, of bytes in memory",
    open: () => {
      const bytes = content.firstBytes(chunkSize)
      return Promise.resolve({
        run: () => {
          for (let i = 0; i < count; i++) createHash("sha256").update(bytes).digest()
          return Promise.resolve()
        }
      })
    }
  }]
}

export const chunkRows: ReadonlyArray<Row> = [overlapping, verified]
