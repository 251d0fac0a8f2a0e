/**
 * Caches whose second tier is a file system: the contract suite, and processes that are killed.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { FileSystemStorage, MemoryStorage, StorageCache } from "surfing-weights"
import * as StorageContract from "surfing-weights/StorageContract"
import { bytes } from "../support/content.js"
import { Directory, leftovers, temporaryDirectory } from "../support/directory.js"

const MiB = 1024 * 1024
const GiB = 1024 * MiB

const program = fileURLToPath(new URL("../support/cacheChild.ts", import.meta.url))

/** A process that streams a large object through a cache of blocks, and what it prints. */
const stream = (...args: ReadonlyArray<string>) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["--import", "tsx", program, ...args], { stdio: ["ignore", "pipe", "inherit"] })
      ),
      (child) =>
        Effect.promise(async () => {
          if (child.exitCode === null && child.signalCode === null && child.kill("SIGKILL")) await once(child, "exit")
        })
    ),
    (child) => ({
      child,
      line: Effect.promise(async () => {
        for await (const line of child.stdout) return String(line)
        return expect.fail("it has printed nothing")
      })
    })
  )

/** Writes a file that never repeats; returns its SHA-1. */
const writeLarge = (file: string, size: number): string => {
  const hash = createHash("sha1")
  const descriptor = fs.openSync(file, "w")
  for (let at = 0; at < size; at += 64 * MiB) {
    const piece = bytes(64 * MiB, at / (64 * MiB))
    hash.update(piece)
    fs.writeSync(descriptor, piece)
  }
  fs.closeSync(descriptor)
  return hash.digest("hex")
}

describe("StorageCache of blocks on a file system", () => {
  it.scopedLive("fetches only the rest after a process was killed at 3.9 of 4 GiB", () =>
    Effect.gen(function*() {
      const size = 4 * GiB
      const blocks = 4 * MiB
      const [origin, tier] = yield* Effect.all([temporaryDirectory, temporaryDirectory])
      const sha1 = writeLarge(path.join(origin, "large"), size)

      const first = yield* stream(origin, tier, `${blocks}`, `${3.9 * GiB}`)
      const seen = Number(/^seen (\d+)\n$/.exec(yield* first.line)?.[1])
      expect(seen).toBeGreaterThanOrEqual(3.9 * GiB)
      first.child.kill("SIGKILL")
      yield* Effect.promise(() => once(first.child, "exit"))

      const second = yield* stream(origin, tier, `${blocks}`)
      const [, fetched, hash] = /^fetched (\d+) sha1 (\w+)\n$/.exec(yield* second.line) ?? []
      expect(hash).toBe(sha1)
      expect(Number(fetched)).toBeGreaterThan(0)
      expect(Number(fetched)).toBeLessThanOrEqual(size - seen + blocks)
    }))
})

StorageContract.suite("StorageCache(Memory) with a second tier on a file system", {
  layer: Layer.unwrapScoped(Effect.map(temporaryDirectory, (directory) =>
    StorageCache.layer({
      capacity: 1,
      freshness: "immutable",
      tier: { layer: FileSystemStorage.layer({ directory, durability: "relaxed" }), capacity: 100 * MiB }
    }).pipe(
      Layer.provide(MemoryStorage.layer()),
      Layer.merge(Layer.succeed(Directory, directory))
    ))),
  leftovers
})

StorageContract.suite("StorageCache(Memory) of blocks with a second tier on a file system", {
  layer: Layer.unwrapScoped(Effect.map(temporaryDirectory, (directory) =>
    StorageCache.layer({
      // Room for two blocks, so that both tiers are read.
      capacity: 100_000,
      freshness: "immutable",
      blocks: 50_000,
      tier: { layer: FileSystemStorage.layer({ directory, durability: "relaxed" }), capacity: 100 * MiB }
    }).pipe(
      Layer.provide(MemoryStorage.layer()),
      Layer.merge(Layer.succeed(Directory, directory))
    ))),
  leftovers
})
