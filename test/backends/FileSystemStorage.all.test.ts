/**
 * FileSystemStorage beside other processes, in large folders, and with large objects.
 */
import { describe, expect } from "@effect/vitest"
import { it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Fiber, Stream } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { ByteRange, Storage } from "surfing-weights"
import { temporaryFiles } from "../support/directory.js"
import { bytes, inDirectory, isRoot, needs, on, onDirectory, put, text } from "../support/fileSystem.js"
import { child, childProgram, output, untilReady } from "../support/fileSystemProcesses.js"
import { eventually } from "../support/timing.js"

describe("FileSystemStorage", () => {
  describe("a folder that is removed with its last object", () => {
    it.live(
      "does not disturb concurrent removals and saves of an object with its name",
      onDirectory(() =>
        Effect.gen(function*() {
          for (let i = 0; i < 300; i++) {
            yield* Storage.save("a/b/c", bytes("c"))
            expect((yield* Storage.removeAll(["a/b/c", "a/b", "a"])).failed).toEqual([])
            yield* Storage.save("a/b/c", bytes("c"))
            const saved = yield* Effect.zipRight(
              Storage.remove("a/b/c"),
              Effect.either(Storage.save("a/b", bytes("b"))),
              { concurrent: true }
            )
            // It came too early, or the place was free.
            if (saved._tag === "Left") expect(saved.left._tag).toBe("UnsupportedOperation")
            else expect(text(yield* Storage.load("a/b"))).toBe("b")
            yield* Storage.remove("a/b")
          }
        }), { durability: "relaxed" })
    )
  })

  describe("temporary files", () => {
    it.live(
      "of a killed process are removed when the next storage is built",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const stalled = yield* Effect.scoped(Effect.gen(function*() {
            const process = yield* child("stall", directory)
            yield* untilReady(process)
            yield* eventually(() => expect(temporaryFiles(directory).length).toBe(1))
            return temporaryFiles(directory)
          }))
          expect(temporaryFiles(directory)).toEqual(stalled)
          expect(yield* Effect.provide(Storage.list(), on(directory))).toEqual([])
          expect(temporaryFiles(directory)).toEqual([])
        })
      )
    )

    it.live(
      "of live processes, this one and another, are kept",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const process = yield* child("stall", directory)
          yield* untilReady(process)
          const begun = yield* Deferred.make<void>()
          const source = Stream.concat(
            Stream.make(bytes("half")),
            Stream.drain(Stream.fromEffect(Effect.zipRight(Deferred.succeed(begun, void 0), Effect.never)))
          )
          const ours = yield* Effect.forkScoped(Effect.provide(Storage.save("ours", source), on(directory)))
          yield* Deferred.await(begun)
          yield* eventually(() => expect(temporaryFiles(directory).length).toBe(2))
          const before = temporaryFiles(directory)
          yield* Effect.provide(Storage.list(), on(directory))
          expect(temporaryFiles(directory)).toEqual(before)
          yield* Fiber.interrupt(ours)
        }).pipe(Effect.scoped)
      )
    )
  })

  describe("other processes", () => {
    it.live(
      "killed during fifty saves leave each key with its old or its new content",
      inDirectory((directory) =>
        Effect.gen(function*() {
          for (const delay of [30, 90, 170]) {
            yield* Effect.scoped(Effect.gen(function*() {
              const process = yield* child("saveForever", directory)
              yield* untilReady(process)
              yield* Effect.sleep(delay)
            }))
            yield* Effect.gen(function*() {
              const keys = yield* Storage.list("model/")
              for (const key of keys) {
                const content = yield* Storage.load(key)
                expect(content.byteLength).toBe(64 * 1024 + Number(/\d+/.exec(key)?.[0]))
                expect(content.every((byte) => byte === content[0])).toBe(true)
              }
              if (delay === 170) expect(keys.length).toBeGreaterThan(0)
            }).pipe(Effect.provide(on(directory)))
            expect(temporaryFiles(directory)).toEqual([])
          }
        })
      )
    )

    it.live(
      "racing to create the same keys never create one twice",
      inDirectory((directory) =>
        Effect.gen(function*() {
          const rounds = 200
          const processes = yield* Effect.all([1, 2, 3].map(() => child("createMany", directory, String(rounds))))
          const outputs = yield* Effect.forEach(processes, output, { concurrency: "unbounded" })
          const results = outputs.map((line) => JSON.parse(line) as { won: Array<number>; lost: number })
          const won = results.flatMap(({ won }) => won)
          expect(won.length).toBe(rounds)
          expect(new Set(won).size).toBe(rounds)
          for (const { lost, won } of results) expect(won.length + lost).toBe(rounds)
        }).pipe(Effect.scoped)
      )
    )
  })

  describe("listings", () => {
    it.live(
      "of a folder too large to be read at once are complete and in order, in bounded memory",
      onDirectory((directory) =>
        Effect.gen(function*() {
          const count = 120_000
          const name = (i: number) => `layer_with_a_rather_long_name_${String(i).padStart(6, "0")}.bin`
          fs.mkdirSync(path.join(directory, "big"))
          for (let i = 0; i < count; i++) fs.closeSync(fs.openSync(path.join(directory, "big", name(i)), "w"))
          let next = 0
          yield* Stream.runForEachChunk((yield* Storage.Storage).backend.keys({}), (keys) =>
            Effect.sync(() => {
              expect(keys.length).toBeLessThanOrEqual(1024)
              for (const key of keys) {
                if (key !== `big/${name(next)}`) expect(key).toBe(`big/${name(next)}`)
                next++
              }
            }))
          expect(next).toBe(count)
          const tail = yield* Stream.runCollect(
            Storage.entries({ prefix: "big/", startAfter: `big/${name(count - 3)}` })
          )
          expect(Chunk.toReadonlyArray(tail).map(({ key }) => key)).toEqual([
            `big/${name(count - 2)}`,
            `big/${name(count - 1)}`
          ])
        })
      )
    )
  })

  describe("large objects", () => {
    const size = 5 * 1024 ** 3

    it.live(
      "of more than 4 GiB can be streamed, and loaded in ranges",
      onDirectory((directory) =>
        Effect.gen(function*() {
          const file = fs.openSync(path.join(directory, "large"), "w")
          fs.ftruncateSync(file, size)
          fs.writeSync(file, "beyond", size - 1024 ** 3)
          fs.writeSync(file, "end", size - 3)
          fs.closeSync(file)
          expect((yield* Storage.head("large")).size).toBe(size)
          expect(text(yield* Storage.load("large", { range: ByteRange.make(size - 1024 ** 3, size - 1024 ** 3 + 6) })))
            .toBe("beyond")
          expect(text(yield* Storage.load("large", { range: ByteRange.last(3) }))).toBe("end")
          let total = 0
          yield* Stream.runForEachChunk(Storage.stream("large"), (chunk) =>
            Effect.sync(() => {
              for (const part of chunk) total += part.byteLength
            }))
          expect(total).toBe(size)
        })
      )
    )

    const roomy = os.freemem() > 5 * 1024 ** 3 &&
      fs.statfsSync(os.tmpdir()).bavail * fs.statfsSync(os.tmpdir()).bsize > 6 * 1024 ** 3

    needs("5 GiB of free memory and 6 GiB of disk", roomy).live(
      "of more than 2 GiB can be saved and loaded",
      onDirectory(() =>
        Effect.gen(function*() {
          const part = new Uint8Array(8 * 1024 * 1024).map((_, i) => i % 251)
          const tail = bytes("tail")
          const source = Stream.concat(Stream.take(Stream.repeatValue(part), 257), Stream.make(tail))
          const whole = 257 * part.byteLength + tail.byteLength
          expect((yield* Storage.save("large", source, { size: whole })).size).toBe(whole)
          const loaded = yield* Storage.load("large")
          expect(loaded.byteLength).toBe(whole)
          expect(text(loaded.subarray(whole - 4))).toBe("tail")
          expect(Buffer.compare(loaded.subarray(256 * part.byteLength, 257 * part.byteLength), part)).toBe(0)
          expect((yield* Storage.save("again", loaded)).size).toBe(whole)
          expect(text(yield* Storage.load("again", { range: ByteRange.last(4) }))).toBe("tail")
        }), { durability: "relaxed" })
    )
  })

  describe("an error of the system", () => {
    needs("root", isRoot).live(
      "is AccessDenied with the path where the process has no permission",
      inDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, "k"), "x")
          put(path.join(directory, "closed/k"), "x")
          fs.chmodSync(path.join(directory, "k"), 0o600)
          fs.chmodSync(path.join(directory, "closed"), 0o700)
          fs.chmodSync(directory, 0o755)
          const lines = yield* Effect.flatMap(
            child("asNobody", directory, "load:k", "load:closed/k", "save:k", "save:new", "remove:k", "list"),
            output
          )
          const outcomes = lines.trim().split("\n")
          expect(outcomes.length).toBe(6)
          for (const outcome of outcomes) expect(outcome).toMatch(/^\S+ AccessDenied: .*(EACCES|EPERM)/)
          expect(outcomes[0]).toContain(`${fs.realpathSync(directory)}/k`)
          expect(fs.readFileSync(path.join(directory, "k"), "utf8")).toBe("x")
        }).pipe(Effect.scoped)
      )
    )

    needs("root", isRoot).live(
      "is none where the process has given up its privileges, and may read; links are still refused",
      inDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, "folder/k"), "x")
          fs.symlinkSync("/etc/hostname", path.join(directory, "folder/leak"))
          fs.chmodSync(directory, 0o755)
          const lines = yield* Effect.flatMap(
            child("asNobody", directory, "load:folder/k", "load:folder/leak", "list"),
            output
          )
          const [loaded, leaked, listed] = lines.trim().split("\n")
          expect(loaded).toBe("load:folder/k success")
          expect(leaked).toMatch(/^load:folder\/leak AccessDenied: .*symbolic link/)
          expect(listed).toBe("list success")
        }).pipe(Effect.scoped)
      )
    )

    needs("a shell with ulimit", process.platform !== "win32").live(
      "is StorageUnavailable with the limit where too many files are open",
      inDirectory((directory) =>
        Effect.gen(function*() {
          put(path.join(directory, "k"), "x")
          const lines = yield* Effect.sync(() =>
            execFileSync("sh", [
              "-c",
              "ulimit -n 256; exec \"$0\" --import tsx \"$1\" withoutDescriptors \"$2\" load:k list",
              process.execPath,
              childProgram,
              directory
            ], { encoding: "utf8" })
          )
          const outcomes = lines.trim().split("\n")
          expect(outcomes.length).toBe(2)
          for (const outcome of outcomes) expect(outcome).toMatch(/^\S+ StorageUnavailable: .*ulimit -n/)
        })
      )
    )
  })
})
