/**
 * How much memory it takes to read an object through the cache of transformers.js, in a process of its own: run with the
 * directory and the address. Prints the bytes that came and by how much the process grew.
 */
import { Effect } from "effect"
import { FileSystemStorage, TransformersCache } from "surfing-weights"

const [directory = "", address = ""] = process.argv.slice(2)

const main = Effect.gen(function*() {
  const cache = yield* TransformersCache.make("")
  return yield* Effect.promise(async () => {
    // What it takes once: the code, and the arrays that wait to be collected.
    for (let time = 0; time < 2; time++) await (await cache.match(`${address}.small`))?.arrayBuffer()
    const before = process.memoryUsage.rss()
    const response = await cache.match(address)
    let bytes = 0
    let most = 0
    for await (const chunk of response?.body ?? []) {
      bytes += (chunk as Uint8Array).byteLength
      most = Math.max(most, process.memoryUsage.rss() - before)
    }
    return { bytes, grown: most }
  })
})

console.log(JSON.stringify(
  await Effect.runPromise(Effect.provide(main, FileSystemStorage.layer({ directory })))
))
