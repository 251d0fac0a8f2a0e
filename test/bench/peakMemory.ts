/**
 * Memory: how much a piece of work takes at its peak, beyond what the process had before. It is done in a process of its
 * own, which is this file, run with the name of the work and a directory: of the files, or with a bucket (see `s3.ts`).
 */
import { Effect, Stream } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { FileSystemStorage, type Storage } from "surfing-weights"
import { bytesAt, GiB, streamOf } from "./content.js"
import { ownEach, ownIterable, ownPipeToFile, ownWeb, pipeToFile, readEach, readIterable, readWeb } from "./reading.js"
import { hasBucket, makeStorage } from "./s3.js"

const works = {
  /** Of an object named `object` that is there. */
  load: (storage: Storage.Service) => storage.load("object"),
  /** Likewise. */
  stream: (storage: Storage.Service) => Stream.runDrain(storage.stream("object")),
  each: (storage: Storage.Service) => readEach(storage.stream("object"), () => undefined),
  iterable: (storage: Storage.Service) => Effect.promise(() => readIterable(storage.stream("object"), () => undefined)),
  web: (storage: Storage.Service) => Effect.promise(() => readWeb(storage.stream("object"), () => undefined)),
  /** Into a file `copy`. */
  readable: (storage: Storage.Service, directory: string) =>
    Effect.promise(() => pipeToFile(storage.stream("object"), `${directory}/copy`)),
  "own-each": (storage: Storage.Service) => ownEach(storage.stream("object"), () => undefined),
  "own-iterable": (storage: Storage.Service) =>
    Effect.promise(() => ownIterable(storage.stream("object"), () => undefined)),
  "own-web": (storage: Storage.Service) => Effect.promise(() => ownWeb(storage.stream("object"), () => undefined)),
  "own-readable": (storage: Storage.Service, directory: string) =>
    Effect.promise(() => ownPipeToFile(storage.stream("object"), `${directory}/copy`)),
  /** Of all keys. */
  entries: (storage: Storage.Service) => Stream.runDrain(storage.entries()),
  /** 1 GiB of chunks, each a new array. */
  save: (storage: Storage.Service) => storage.save("saved", streamOf(GiB, (at, size) => bytesAt(at, size).slice()))
}

export type Work = keyof typeof works

const isWork = (name: string | undefined): name is Work => name !== undefined && name in works

/** The peak of a work in a directory, in bytes. */
export const peakOf = async (work: Work, directory: string): Promise<number> => {
  const { stdout } = await promisify(execFile)(process.execPath, [...process.execArgv, self, work, directory])
  return Number(stdout)
}

const self = fileURLToPath(import.meta.url)

// The maximum of getrusage counts what the parent had when it forked; Linux tells this process's own.
const peak = (): number => {
  const ownPeak = process.platform === "linux" && /VmHWM:\s*(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"))
  return ownPeak ? Number(ownPeak[1]) * 1024 : process.resourceUsage().maxRSS * 1024
}

const main = (work: Work, directory: string): Promise<void> =>
  Effect.gen(function*() {
    const storage = yield* hasBucket(directory) ? makeStorage(directory) : FileSystemStorage.make({ directory })
    v8.setFlagsFromString("--expose-gc")
    vm.runInNewContext("gc()")
    // The memory of what was collected is given back by another thread.
    yield* Effect.sleep("100 millis")
    const before = process.memoryUsage.rss()
    yield* works[work](storage, directory)
    console.log(peak() - before)
  }).pipe(Effect.scoped, Effect.runPromise)

if (process.argv[1] === self) {
  const [, , work, directory] = process.argv
  if (!isWork(work) || directory === undefined) throw new Error("give the name of a work, and where to do it")
  await main(work, directory)
}
