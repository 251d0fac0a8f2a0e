/**
 * The ways in which users read a stream of the library, and what they write of Node's own streams.
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Effect, Stream } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { Storage } from "surfing-weights"
import type { See } from "./nodeFs.js"

type Bytes = Stream.Stream<Uint8Array, Error>

export const readChunks = async (chunks: AsyncIterable<Uint8Array>, see: See): Promise<void> => {
  let at = 0
  for await (const chunk of chunks) {
    see(chunk, at)
    at += chunk.length
  }
}

const eachBy =
  (run: (bytes: Bytes, use: (chunk: Uint8Array) => Effect.Effect<void>) => Effect.Effect<void, Error>) =>
  (bytes: Bytes, see: See): Effect.Effect<void, Error> =>
    Effect.suspend(() => {
      let at = 0
      return run(bytes, (chunk) =>
        Effect.sync(() => {
          see(chunk, at)
          at += chunk.length
        }))
    })

export const readEach = eachBy((bytes, use) => Stream.runForEach(bytes, use))

export const readIterable = (bytes: Bytes, see: See): Promise<void> => readChunks(Stream.toAsyncIterable(bytes), see)

export const readWeb = (bytes: Bytes, see: See): Promise<void> => readChunks(Stream.toReadableStream(bytes), see)

/** The same by the functions of the library. */
export const ownEach = eachBy((bytes, use) => Storage.forEachChunk(bytes, use))

export const ownIterable = (bytes: Bytes, see: See): Promise<void> => readChunks(Storage.toAsyncIterable(bytes), see)

export const ownWeb = (bytes: Bytes, see: See): Promise<void> => readChunks(Storage.toReadableStream(bytes), see)

export const pipeToFile = (bytes: Bytes, path: string): Promise<void> =>
  pipeline(NodeStream.toReadableNever(bytes), fs.createWriteStream(path))

export const ownPipeToFile = (bytes: Bytes, path: string): Promise<void> =>
  pipeline(Readable.from(Storage.toAsyncIterable(bytes)), fs.createWriteStream(path))

const hashBy = (read: typeof readEach) => (bytes: Bytes): Effect.Effect<string, Error> =>
  Effect.suspend(() => {
    const sha256 = createHash("sha256")
    return Effect.map(read(bytes, (chunk) => sha256.update(chunk)), () => sha256.digest("hex"))
  })

/** The SHA-256 in hexadecimal digits. */
export const hash = hashBy(readEach)

export const ownHash = hashBy(ownEach)

/** The same of a stream of Node. */
export const hashReadable = async (bytes: Readable): Promise<string> => {
  const sha256 = createHash("sha256")
  await pipeline(bytes, sha256)
  return sha256.digest("hex")
}
