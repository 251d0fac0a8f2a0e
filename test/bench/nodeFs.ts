/**
 * The same work by `node:fs` alone: the floors that ours is held against and, named `bare…`, about the least that the
 * work can be made of.
 */
import * as fs from "node:fs"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { chunks, MiB } from "./content.js"

/** Takes what was read, as it comes, and where it stood. */
export type See = (bytes: Uint8Array, position: number) => void

type Callback<A> = (error: Error | null, value: A) => void

const call = <A>(run: (done: Callback<A>) => void): Promise<A> =>
  new Promise((resolve, reject) => run((error, value) => error === null ? resolve(value) : reject(error)))

/** Does the work for each item, so many at once. */
export const forEach = async <A>(
  items: Iterable<A>,
  atOnce: number,
  work: (item: A) => Promise<unknown>
): Promise<void> => {
  const left = items[Symbol.iterator]()
  const worker = async () => {
    for (let next = left.next(); next.done !== true; next = left.next()) await work(next.value)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

const multiples = (of: number, below: number): Array<number> =>
  Array.from({ length: Math.ceil(below / of) }, (_, i) => i * of)

// Loads

export const readFile = async (path: string, see: See): Promise<void> => see(await fs.promises.readFile(path), 0)

export const bareLoad = async (path: string, size: number, see: See): Promise<void> => {
  const pieceSize = 8 * MiB
  const file = await call<number>((done) => fs.open(path, done))
  const bytes = Buffer.allocUnsafeSlow(size)
  await forEach(multiples(pieceSize, size), 4, async (at) => {
    await call<number>((done) => fs.read(file, bytes, at, Math.min(pieceSize, size - at), at, done))
  })
  await call<void>((done) => fs.close(file, done))
  see(bytes, 0)
}

export const readFiles = (paths: ReadonlyArray<string>, size: number, atOnce: number, see: See): Promise<void> =>
  forEach(paths.entries(), atOnce, async ([i, path]) => see(await fs.promises.readFile(path), i * size))

/** Open, read and close, without a promise or a question about the size between them. */
export const bareReadFiles = (paths: ReadonlyArray<string>, size: number, atOnce: number, see: See): Promise<void> =>
  forEach(paths.entries(), atOnce, ([i, path]) =>
    call<void>((done) =>
      fs.open(path, (error, file) => {
        if (error !== null) return done(error)
        const bytes = Buffer.allocUnsafeSlow(size)
        fs.read(file, bytes, 0, size, 0, (error) => {
          if (error !== null) return done(error)
          see(bytes, i * size)
          fs.close(file, (error) => done(error ?? null))
        })
      })
    ))

export const readRanges = (path: string, starts: ReadonlyArray<number>, size: number, atOnce: number, see: See) =>
  forEach(starts, atOnce, async (start) => {
    const file = await fs.promises.open(path)
    const bytes = Buffer.allocUnsafe(size)
    await file.read(bytes, 0, size, start)
    await file.close()
    see(bytes, start)
  })

// Streams

export const readStream = async (path: string, see: See): Promise<void> => {
  const stream: AsyncIterable<Uint8Array> = fs.createReadStream(path)
  let at = 0
  for await (const chunk of stream) {
    see(chunk, at)
    at += chunk.length
  }
}

export const bareStream = async (path: string, size: number, see: See): Promise<void> => {
  const file = await call<number>((done) => fs.open(path, done))
  await call<void>((done) => {
    const next = (at: number) => {
      if (at === size) return fs.close(file, (error) => done(error ?? null))
      const bytes = Buffer.allocUnsafeSlow(Math.min(MiB, size - at))
      fs.read(file, bytes, 0, bytes.length, at, (error, count) => {
        if (error !== null) return done(error)
        see(bytes, at)
        next(at + count)
      })
    }
    next(0)
  })
}

// Saves

export const writeFile = (path: string, bytes: Uint8Array): Promise<void> => fs.promises.writeFile(path, bytes)

export const writeStream = (path: string, size: number): Promise<void> => {
  const left = chunks(size)
  const source = new Readable({
    read() {
      const next = left.next()
      this.push(next.done === true ? null : next.value)
    }
  })
  return pipeline(source, fs.createWriteStream(path))
}

/** Large writes with the flush following them, ended by one of the whole file: what the disk itself allows. */
export const bareSave = async (path: string, source: Iterable<Uint8Array>): Promise<void> => {
  const file = await call<number>((done) => fs.open(path, "wx", done))
  const flushes = new Set<Promise<unknown>>()
  let batch: Array<Uint8Array> = []
  let size = 0
  let position = 0
  let flushed = 0
  const write = async () => {
    position += await call<number>((done) => fs.writev(file, batch, position, done))
    batch = []
    size = 0
    if (position - flushed < 16 * MiB || flushes.size === 2) return
    flushed = position
    const flush: Promise<unknown> = call<void>((done) => fs.fdatasync(file, done)).then(() => flushes.delete(flush))
    flushes.add(flush)
  }
  for (const bytes of source) {
    batch.push(bytes)
    size += bytes.length
    if (size >= 4 * MiB) await write()
  }
  if (size > 0) await write()
  await Promise.all(flushes)
  await call<void>((done) => fs.fsync(file, done))
  await call<void>((done) => fs.close(file, done))
}

export const flushFolder = async (path: string): Promise<void> => {
  const folder = await fs.promises.open(path)
  await folder.sync()
  await folder.close()
}

// Listings

export const readFolders = (path: string): Promise<Array<string>> => fs.promises.readdir(path, { recursive: true })

/** In order where no name needs the order of UTF-8 or of folders among files. */
export const bareList = async (path: string, prefix = "", keys: Array<string> = []): Promise<Array<string>> => {
  const entries = await call<Array<fs.Dirent>>((done) => fs.readdir(path, { withFileTypes: true }, done))
  for (const entry of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
    if (entry.isDirectory()) await bareList(`${path}/${entry.name}`, `${prefix}${entry.name}/`, keys)
    else keys.push(prefix + entry.name)
  }
  return keys
}
