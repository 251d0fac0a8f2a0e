/**
 * Benchmark rows of safetensors files: streaming tensors compared with streaming the bytes of the file, opening a header
 * compared with the same read and `JSON.parse`, loading compressed weights over a link compared with others, and the codec
 * compared with the part of it that is `node:zlib`.
 */
import { Effect, Stream } from "effect"
import assert from "node:assert/strict"
import { promisify } from "node:util"
import * as zlib from "node:zlib"
import { ByteRange, MemoryStorage, Safetensors, Storage, StorageBackend } from "surfing-weights"
import * as content from "./content.js"
import { GiB, KiB, MiB } from "./content.js"
import { type Contestant, type Row, storageOn } from "./rows.js"

const run = <A, E>(storage: Storage.Service, effect: Effect.Effect<A, E, Storage.Storage>): Promise<A> =>
  Effect.runPromise(Effect.provideService(effect, Storage.Storage, storage))

/** The bytes of `content` from a position on, to be saved. */
const bytesFrom = (start: number, size: number) =>
  Stream.map(Stream.range(0, size / (64 * KiB) - 1), (i) => content.bytesAt(start + i * 64 * KiB, 64 * KiB))

/** Saves a file with tensors of these sizes in bytes, with `content` as data. */
const saveTensors = (storage: Storage.Service, key: string, sizes: ReadonlyArray<number>) => {
  let at = 0
  const tensors = sizes.map((size, i) => {
    const start = at
    at += size
    return {
      name: `layers.${String(i).padStart(5, "0")}.weight`,
      dtype: "BF16",
      shape: [size / 2],
      data: bytesFrom(start, size)
    } as const
  })
  return run(storage, Safetensors.save(key, tensors))
}

const file = "model.safetensors"

const streamed = (name: string, what: string, sizes: ReadonlyArray<number>): Row => {
  const bytes = sizes.reduce((sum, size) => sum + size, 0)
  assert.equal(bytes, GiB)
  /** A storage with the file, and the offset of its data. */
  const opened = async (directory: string) => {
    const storage = await storageOn(directory)
    const { size } = await Effect.runPromise(storage.head(file))
    return { storage, dataStart: size - bytes }
  }
  return {
    name,
    work: `stream 1 GiB of ${what}`,
    amount: bytes / MiB,
    unit: "MiB",
    bytes,
    prepare: async (directory) => saveTensors(await storageOn(directory), file, sizes),
    ours: {
      what: "Safetensors.stream",
      open: async (directory) => {
        const { dataStart, storage } = await opened(directory)
        return {
          run: (see) =>
            run(
              storage,
              Effect.flatMap(Safetensors.open(file), (file) =>
                Stream.runForEachChunk(file.stream(), (tensors) =>
                  Effect.sync(() => {
                    for (const { bytes, range } of tensors) {
                      see(bytes, range.start - dataStart)
                    }
                  })))
            )
        }
      }
    },
    floors: [{
      what: "Storage.stream of the file",
      atLeast: 0.9,
      open: async (directory) => {
        const { dataStart, storage } = await opened(directory)
        return {
          run: (see) => {
            let at = -dataStart
            return storage.stream(file).pipe(
              Stream.runForEachChunk((chunks) =>
                Effect.sync(() => {
                  for (const chunk of chunks) {
                    const from = Math.max(0, -at)
                    see(chunk.subarray(from), at + from)
                    at += chunk.length
                  }
                })
              ),
              Effect.runPromise
            )
          }
        }
      }
    }]
  }
}

/** Nine layers of the size of those in a large model. */
const layer = [16, 16, 4, 4, 22, 22, 22].map((size) => size * MiB)
const layers = Array.from({ length: 9 }, () => [64 * KiB, ...layer, 64 * KiB]).flat()
const rest = GiB - layers.reduce((sum, size) => sum + size, 0)

const times = Array.from({ length: 1000 })

const headers: Row = {
  name: "header",
  work: "open a header with 1,000 tensors, 1,000 times",
  amount: 1000,
  unit: "loads",
  bytes: 0,
  prepare: async (directory) => {
    const tensors = Array.from({ length: 1000 }, (_, i) => ({
      name: `model.layers.${Math.floor(i / 9)}.self_attn.${i % 9}.weight`,
      dtype: "BF16",
      shape: [16, 64],
      data: new Uint8Array(2048)
    } as const))
    await run(await storageOn(directory), Safetensors.save(file, tensors))
  },
  ours: {
    what: "Safetensors.open",
    open: async (directory) => {
      const storage = await storageOn(directory)
      return {
        run: () =>
          run(
            storage,
            Effect.forEach(
              times,
              () => Effect.map(Safetensors.open(file), ({ tensors }) => assert.equal(tensors.size, 1000)),
              { discard: true }
            )
          )
      }
    }
  },
  floors: [{
    what: "the same read and JSON.parse",
    atLeast: 1 / 1.5,
    open: async (directory) => {
      const storage = await storageOn(directory)
      const whole = await run(storage, Storage.load(file))
      const end = 8 + Number(new DataView(whole.buffer, whole.byteOffset).getBigUint64(0, true))
      const decoder = new TextDecoder()
      // The first read includes the whole header.
      assert(end < 128 * KiB)
      const bare = storage.open(file, { range: ByteRange.make(0, 128 * KiB) }).pipe(
        Effect.flatMap(({ stream }) => Stream.runCollect(stream)),
        Effect.scoped,
        Effect.map((chunks) => {
          const [beginning = new Uint8Array()] = chunks
          const header: unknown = JSON.parse(decoder.decode(beginning.subarray(8, end)))
          assert(typeof header === "object" && header !== null && "model.layers.0.self_attn.0.weight" in header)
        })
      )
      return { run: () => Effect.runPromise(Effect.forEach(times, () => bare, { discard: true })) }
    }
  }]
}

/** The same storage over a link of so many bytes a second, which all its streams share. */
const linked = ({ backend }: Storage.Service, bytesPerSecond: number): Storage.Service => {
  let free = 0
  const pass = <A extends Uint8Array>(bytes: A) =>
    Effect.suspend(() => {
      const now = performance.now()
      free = Math.max(free, now) + 1000 * bytes.byteLength / bytesPerSecond
      return Effect.delay(Effect.succeed(bytes), free - now)
    })
  return Storage.make(StorageBackend.make({
    ...backend,
    open: (key, options) =>
      Effect.map(backend.open(key, options), ({ info, range, stream }) => ({
        info,
        range,
        stream: Stream.mapEffect(stream, pass)
      }))
  }))
}

/** Loads the one tensor of a file over a link of 50 MiB a second. */
const loadingOverLink = (key: string) => async (directory: string) => {
  const storage = linked(await storageOn(directory), 50 * MiB)
  return {
    run: async () => {
      const { bytes } = await run(storage, Effect.flatMap(Safetensors.open(key), (file) => file.load("w")))
      assert.equal(bytes.byteLength, 64 * MiB)
    }
  }
}

const compressedLoad: Row = {
  name: "compressed-load",
  work: "load 64 MiB of BF16 weights over 50 MiB a second",
  amount: 64,
  unit: "MiB",
  bytes: 0,
  prepare: async (directory) => {
    const data = weights(32 * MiB)
    const storage = await storageOn(directory)
    for (const compress of [false, true]) {
      const tensor = { name: "w", dtype: "BF16", shape: [32 * MiB], data } as const
      await run(storage, Safetensors.save(compress ? "compressed" : "plain", [tensor], { compress }))
    }
  },
  ours: { what: "compressed", open: loadingOverLink("compressed") },
  floors: [{ what: "as it is", atLeast: 1.4, open: loadingOverLink("plain") }]
}

/** So many BF16 weights. */
const weights = (count: number): Uint16Array => {
  const floats = Float32Array.from({ length: 4 * MiB }, randomWeight)
  const part = Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16)
  const data = new Uint16Array(count)
  for (let at = 0; at < count; at += part.length) data.set(part.subarray(0, count - at), at)
  return data
}

const elementsPerBlock = 256 * KiB
const huffman = { strategy: zlib.constants.Z_HUFFMAN_ONLY, memLevel: 9, chunkSize: elementsPerBlock + 64 }
const exponentsOf = (data: Uint16Array) => Uint8Array.from(data.subarray(0, elementsPerBlock), (bits) => bits >> 7)

/** Does it to each of 512 blocks, four at once. */
const blocks = (work: () => Promise<Uint8Array>) => ({
  run: () =>
    Effect.runPromise(Effect.forEach(Array(512), () => Effect.promise(work), { concurrency: 4, discard: true }))
})

const compressed = (data: Uint16Array) =>
  Safetensors.save("w", [{ name: "w", dtype: "BF16", shape: [data.length], data }], { compress: true })

const inMemory =
  <A, E>(open: (data: Uint16Array) => Effect.Effect<A, E, Storage.Storage>): Contestant["open"] => async () => {
    const storage = await Effect.runPromise(MemoryStorage.make())
    const data = weights(128 * MiB)
    await run(storage, compressed(data))
    const doing = open(data)
    return { run: () => run(storage, doing) }
  }

const compressedRow = (name: string, work: string, ours: Contestant, floor: Contestant): Row => ({
  name,
  work: `${work} 256 MiB of BF16 weights in memory`,
  amount: 256,
  unit: "MiB",
  bytes: 0,
  ours,
  floors: [floor]
})

const codecs: ReadonlyArray<Row> = [
  compressedRow("compressed-save", "compress", { what: "Safetensors.save", open: inMemory(compressed) }, {
    what: "bare: deflateRaw of the exponents",
    open: () => {
      const exponents = exponentsOf(weights(elementsPerBlock))
      return Promise.resolve(blocks(() => promisify(zlib.deflateRaw)(exponents, huffman)))
    }
  }),
  compressedRow("compressed-decode", "decode", {
    what: "Safetensors.load",
    open: inMemory(() => Effect.flatMap(Safetensors.open("w"), (file) => file.load("w")))
  }, {
    what: "bare: inflateRaw of the exponents",
    open: () => {
      const stored = zlib.deflateRawSync(exponentsOf(weights(elementsPerBlock)), huffman)
      return Promise.resolve(blocks(() => promisify(zlib.inflateRaw)(stored, huffman)))
    }
  })
]

/** Normally distributed, as most layers are. */
const randomWeight = (): number =>
  0.02 * Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random())

export const weightRows: ReadonlyArray<Row> = [
  streamed("tensors", "tensors as in a large model", [...layers, rest]),
  streamed("small-tensors", "4,096 tensors", Array.from({ length: 4096 }, () => 256 * KiB)),
  headers,
  compressedLoad,
  ...codecs
]
