/**
 * No answer of a weight server holds the directory, bucket, host or key of its storage, whatever fails; its log does.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Logger, Redacted, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, HttpStorage, S3Storage, type Storage, StorageFailover } from "surfing-weights"
import { temporaryDirectory } from "../support/directory.js"
import { askAll, placesOf } from "../support/requestKinds.js"
import { makeBucket, options as s3 } from "../support/s3Bucket.js"
import { serveOf } from "../support/weightServer.js"

const token = "writer-0123456789abcdef"
const headers = { authorization: `Bearer ${token}` }

/** A server with a token, and its log. */
const serveLogged = (storage: Storage.Service) =>
  Effect.gen(function*() {
    const lines: Array<string> = []
    const logger = Logger.replace(
      Logger.defaultLogger,
      Logger.map(Logger.logfmtLogger, (line) => void lines.push(line))
    )
    const auth = { tokens: [{ token: Redacted.make(token), scope: "write" }] } as const
    const served = yield* serveOf(storage, { writable: true, name: "weights of acme", auth }).pipe(
      Effect.provide(logger)
    )
    return { served, log: () => lines.join("\n") }
  })

/** Traces of the inside of any server. */
const stack = ["node:internal", "\n    at ", "node_modules"]

const fill = (storage: Storage.Service) =>
  Effect.forEach(["there", "layer_0.pt"], (key) => storage.save(key, new Uint8Array(100)), { discard: true })

describe("over a directory", () => {
  it.scopedLive("whole, removed, and with something else in its place", () =>
    Effect.gen(function*() {
      const parent = yield* temporaryDirectory
      const directory = path.join(parent, "tellingname")
      const storage = yield* FileSystemStorage.make({ directory })
      yield* fill(storage)
      fs.symlinkSync(parent, path.join(directory, "link"))
      const { log, served } = yield* serveLogged(storage)
      const words = [...stack, "tellingname", path.basename(parent), "/tmp"]

      const whole = yield* askAll(served, headers)
      expect(whole.statuses).toEqual(expect.arrayContaining([200, 206, 304, 400, 403, 404, 405, 412, 416, 501]))
      const stranger = yield* askAll(served)
      expect(stranger.statuses).toEqual(expect.arrayContaining([200, 401]))
      fs.rmSync(directory, { recursive: true })
      const removed = yield* askAll(served, headers)
      fs.writeFileSync(directory, "in the way")
      const replaced = yield* askAll(served, headers)
      expect(Math.max(...removed.statuses, ...replaced.statuses)).toBeGreaterThan(499)
      for (const { text } of [whole, stranger, removed, replaced]) {
        expect(placesOf(text, words)).toEqual([])
        expect(text).toContain(`"backend":"weights of acme"`)
      }
      expect(log()).toContain(directory)
    }))

  const canMount = process.getuid?.() === 0 && process.platform === "linux"
  it.scopedLive.skipIf(!canMount)("on a full disk (run by root, to mount one)", () =>
    Effect.gen(function*() {
      const disk = path.join(yield* temporaryDirectory, "tellingname")
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          fs.mkdirSync(disk)
          execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk])
        }),
        () => Effect.sync(() => execFileSync("umount", [disk]))
      )
      const storage = yield* FileSystemStorage.make({ directory: disk })
      yield* fill(storage)
      const { log, served } = yield* serveLogged(storage)
      const { statuses, text } = yield* askAll(served, headers)
      expect(statuses).toContain(507)
      expect(placesOf(text, [...stack, "tellingname"])).toEqual([])
      expect(log()).toMatch(/ENOSPC/)
    }))
})

describe("over a bucket", () => {
  it.scopedLive("whole, with a wrong key, and where no server is", () =>
    Effect.gen(function*() {
      const bucket = yield* makeBucket
      const storage = yield* S3Storage.make({ ...s3, bucket })
      yield* fill(storage)
      const { host } = new URL(s3.endpoint)
      const wrong = { accessKeyId: "TELLINGKEYID", secretAccessKey: Redacted.make("not-the-secret-of-this-key") }
      const denied = yield* S3Storage.make({ ...s3, bucket, credentials: wrong, verify: false })
      const endpoint = "http://telling.invalid:9"
      const down = yield* S3Storage.make({ ...s3, bucket, endpoint, verify: false, retry: Schedule.stop })
      const backends = {
        whole: storage,
        denied,
        down,
        stacked: yield* StorageFailover.make([down, storage])
      }
      const words = [...stack, bucket, host, "telling"]
      for (const [name, backend] of Object.entries(backends)) {
        const { log, served } = yield* serveLogged(backend)
        const { statuses, text } = yield* askAll(served, headers)
        expect([name, placesOf(text, words)]).toEqual([name, []])
        expect(log()).toContain(bucket)
        if (name === "down") expect(Math.max(...statuses)).toBeGreaterThan(499)
      }
    }))
})

describe("a client of this library", () => {
  it.scopedLive("receives neither in message, cause, reason nor stack of a failure", () =>
    Effect.gen(function*() {
      const directory = path.join(yield* temporaryDirectory, "tellingname")
      const storage = yield* FileSystemStorage.make({ directory })
      yield* fill(storage)
      const { served } = yield* serveLogged(storage)
      const client = yield* HttpStorage.make({ url: served.url, token: Redacted.make(token) }).pipe(
        Effect.provide(FetchHttpClient.layer)
      )
      fs.rmSync(directory, { recursive: true })
      fs.writeFileSync(directory, "in the way")
      const error = yield* Effect.flip(client.save("new", new Uint8Array(3)))
      const shown = [error.message, error.stack, JSON.stringify(error), String(error.cause), error.backend].join("\n")
      expect(shown).not.toContain("tellingname")
    }))
})
