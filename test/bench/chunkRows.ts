/**
 * What is measured of models in chunks: how much of the time of loading them is hidden behind that of using them, and
 * how fast they are verified against a bare SHA-256 of the same files.
 */
import { Effect, Stream } from "effect"
import assert from "node:assert/strict"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { ModelChunks, Storage, StorageChaos } from "surfing-weights"
import * as content from "./content.js"
import { MiB } from "./content.js"
import type { See } from "./nodeFs.js"
import { type Row, storageOn } from "./rows.js"

const count = 20
const chunkSize = 16 * MiB

/** A model of `count` chunks that are the content one after another, and its storage. */
const indexed = async (directory: string): Promise<Storage.Service> => {
  fs.mkdirSync(`${directory}/model`)
  for (let i = 0; i < count; i++) {
    fs.writeFileSync(
      `${directory}/model/chunk_${i}`,
      content.firstBytes(count * chunkSize).subarray(
        i * chunkSize,
        (i + 1) * chunkSize
      )
    )
  }
  const storage = await storageOn(directory)
  await run(storage, ModelChunks.index("model"))
  return storage
}

const run = <A, E>(storage: Storage.Service, effect: Effect.Effect<A, E, Storage.Storage>): Promise<A> =>
  Effect.runPromise(Effect.provideService(effect, Storage.Storage, storage))

/**
 * A pass in which each chunk is in use for so many milliseconds, as by a device that computes beside this process. Gives
 * how long its reader waited for a chunk.
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

const overlapping: Row = {
  name: "chunks",
  work: "20 chunks of 16 MiB, 100 ms away, in use as long as a load takes",
  amount: count * chunkSize / MiB,
  unit: "MiB",
  bytes: count * chunkSize,
  prepare: async (directory) => {
    // What is hidden is the time of waiting: here as of a server on a network, 100 ms for each chunk.
    const storage = await Effect.runPromise(StorageChaos.make(await indexed(directory), [
      { operation: "load", delay: "100 millis", times: Infinity, error: "none" }
    ]))
    // How long a load takes is measured each time, since a busy machine does not take the same twice.
    let load = await pass(storage, 0, 0, () => undefined)
    return {
      ours: { what: "prefetch of one", run: (see) => pass(storage, 1, load, see) },
      floors: [{
        what: "one after the other",
        atLeast: 1.67,
        run: async (see) => {
          load = await pass(storage, 0, load, see)
        }
      }]
    }
  }
}

const verified: Row = {
  name: "chunks-verify",
  work: "verify 320 MiB in 20 chunks",
  amount: count * chunkSize / MiB,
  unit: "MiB",
  bytes: 0,
  prepare: async (directory) => {
    const storage = await indexed(directory)
    return {
      ours: {
        what: "ModelChunks.verify",
        run: () => run(storage, Stream.runDrain(ModelChunks.verify("model")))
      },
      floors: [{
        what: "createReadStream and node:crypto",
        run: async () => {
          for (let i = 0; i < count; i++) {
            const hash = createHash("sha256")
            for await (const bytes of fs.createReadStream(`${directory}/model/chunk_${i}`)) hash.update(bytes as Buffer)
            assert.equal(hash.digest("hex").length, 64)
          }
        }
      }, {
        what: "node:crypto alone, of bytes in memory",
        run: () => {
          const bytes = content.firstBytes(chunkSize)
          for (let i = 0; i < count; i++) createHash("sha256").update(bytes).digest()
          return Promise.resolve()
        }
      }]
    }
  }
}

export const chunkRows: ReadonlyArray<Row> = [overlapping, verified]
