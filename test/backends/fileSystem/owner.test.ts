/**
 * Which temporary files count as abandoned. With real processes of other users and containers: owner.all.test.ts.
 */
import { describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, Storage } from "surfing-weights"
import { expect } from "vitest"
import { Directory, temporaryFiles } from "../../support/directory.js"
import { bytes, inDirectory, isLinux, needs, on, onDirectory, put } from "../../support/fileSystem.js"

const yesterday = Date.now() / 1000 - 25 * 60 * 60

/** The owner of this process's temporary files: host, boot, number and start. */
const thisProcess = Effect.gen(function*() {
  const directory = yield* Directory
  const begun = yield* Deferred.make<void>()
  const source = Stream.concat(
    Stream.make(bytes("half")),
    Stream.drain(Stream.fromEffect(Effect.zipRight(Deferred.succeed(begun, void 0), Effect.never)))
  )
  const save = yield* Effect.fork(Storage.save("stalled", source))
  yield* Deferred.await(begun)
  const [name = ""] = temporaryFiles(directory)
  yield* Fiber.interrupt(save)
  return name.split("-")
})

describe("a temporary file", () => {
  needs("/proc", isLinux).live(
    "is removed if its process is known to be gone, and otherwise once it was left alone for a day",
    onDirectory((directory) =>
      Effect.gen(function*() {
        const [host = "", boot = "", pid = "", start = "", worker = ""] = yield* thisProcess
        expect(pid).toBe(String(process.pid))
        expect(start).toMatch(/^\d+$/)
        const gone = {
          "a dead process": [host, boot, "4194305", start],
          "an earlier process of a number in use": [host, boot, pid, String(Number(start) - 1)],
          "a process before the machine was started again": [host, "other", pid, start]
        }
        const unknown = {
          "a live process that did not know its start": [host, boot, pid, ""],
          "a process of another host": ["other", boot, pid, start],
          "a dead process of another host": ["other", boot, "4194305", start]
        }
        const live = { "this process": [host, boot, pid, start] }
        for (const [what, owner] of Object.entries({ ...gone, ...unknown, ...live })) {
          for (const [age, writtenAt] of [["recent", Date.now() / 1000], ["old", yesterday]] as const) {
            const file = path.join(directory, ".surfing-weights", [...owner, worker, "99"].join("-"))
            put(file, "half")
            fs.utimesSync(file, writtenAt, writtenAt)
            yield* FileSystemStorage.make({ directory })
            const stays = what in live || (what in unknown && age === "recent")
            expect(fs.existsSync(file), `${what}, ${age}`).toBe(stays)
            fs.rmSync(file, { force: true })
          }
        }
      })
    )
  )

  it.live(
    "of a save that has stalled for days in this process is kept",
    inDirectory((directory) =>
      Effect.gen(function*() {
        const begun = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const source = Stream.concat(
          Stream.make(bytes("half")),
          Stream.drain(
            Stream.fromEffect(Effect.zipRight(Deferred.succeed(begun, void 0), Deferred.await(go)))
          )
        )
        const save = yield* Effect.fork(Effect.provide(Storage.save("k", source), on(directory)))
        yield* Deferred.await(begun)
        for (const name of temporaryFiles(directory)) {
          fs.utimesSync(path.join(directory, ".surfing-weights", name), yesterday, yesterday)
        }
        if (isLinux) yield* FileSystemStorage.make({ directory })
        yield* Deferred.succeed(go, void 0)
        yield* Fiber.join(save)
        expect(fs.readFileSync(path.join(directory, "k"), "utf8")).toBe("half")
      })
    )
  )
})
