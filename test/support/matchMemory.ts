/**
 * How much memory is held while an object is read through the cache of transformers.js, in a process of its own: run
 * with the directory and the address. Prints the bytes that came, and by how much the process had grown at most when
 * what nobody holds was collected. Chunks that wait for that take up to 100 MiB here, as many as with `Storage.stream`.
 */
import { Effect } from "effect"
import { setTimeout } from "node:timers/promises"
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { FileSystemStorage, TransformersCache } from "surfing-weights"

v8.setFlagsFromString("--expose-gc")
const collectGarbage = vm.runInNewContext("gc") as () => void

const [directory = "", address = ""] = process.argv.slice(2)

const main = Effect.gen(function*() {
  const cache = yield* TransformersCache.make("")
  return yield* Effect.promise(async () => {
    // What it takes once, as the code.
    for (let time = 0; time < 2; time++) await (await cache.match(`${address}.small`))?.arrayBuffer()
    collectGarbage()
    // The memory of what was collected is given back by another thread.
    await setTimeout(100)
    const before = process.memoryUsage.rss()
    const response = await cache.match(address)
    let bytes = 0
    let most = 0
    let looked = 0
    for await (const chunk of response?.body ?? []) {
      bytes += (chunk as Uint8Array).byteLength
      if (bytes - looked < 4 * 1024 ** 2) continue
      looked = bytes
      // A reader that is slower than the storage.
      await setTimeout(5)
      collectGarbage()
      most = Math.max(most, process.memoryUsage.rss() - before)
    }
    return { bytes, grown: most }
  })
})

console.log(JSON.stringify(
  await Effect.runPromise(Effect.provide(main, FileSystemStorage.layer({ directory })))
))
