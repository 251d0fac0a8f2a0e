/**
 * The command-line tool against S3, with many objects, killed at random times, and in a pseudo-terminal.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { FileSystemStorage, Safetensors } from "surfing-weights"
import { outcomeOf, print, program, run, start } from "../support/command.js"
import { bucketUrls, credentials as env } from "../support/commandS3.js"
import { bytes, MiB } from "../support/content.js"
import { temporaryDirectory, temporaryFiles } from "../support/directory.js"
import { canMount } from "../support/fileSystem.js"
import { isInstalled } from "../support/programs.js"
import { normal, tensorsAs } from "../support/realWeights.js"
import { server, unfinishedUploads } from "../support/s3Bucket.js"

/** A directory with small files, and some of 9 MiB. */
const source = (small: number, large: number) =>
  Effect.map(temporaryDirectory, (directory) => {
    for (let i = 0; i < small; i++) {
      const folder = path.join(directory, `folder ${i % 20}`)
      fs.mkdirSync(folder, { recursive: true })
      fs.writeFileSync(path.join(folder, `small-${i}`), bytes(4096, i % 256))
    }
    for (let i = 0; i < large; i++) fs.writeFileSync(path.join(directory, `large-${i}`), bytes(9 * MiB, i))
    return directory
  })

/** The SHA-1 of each file below a directory, without the hidden folder. */
const digestsOf = (directory: string): ReadonlyMap<string, string> =>
  new Map(
    fs.readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
      .filter((name) => !name.startsWith(".surfing-weights"))
      .sort()
      .map((name) => [name, createHash("sha1").update(fs.readFileSync(path.join(directory, name))).digest("hex")])
  )

describe("surfing-weights on S3", () => {
  it.scopedLive("copies, lists, describes, moves and removes, with odd keys", () =>
    Effect.gen(function*() {
      const { bucket, urlOf } = yield* bucketUrls
      const directory = yield* source(3, 1)
      fs.writeFileSync(path.join(directory, "100% é+#?.bin"), "odd")
      const of = (...args: ReadonlyArray<string>) => print(args, { env })
      expect(yield* of("cp", directory, urlOf("models/"))).toMatch(/^5 objects copied .*, 0 unchanged\n$/)
      expect(yield* of("cp", directory, urlOf("models/"))).toMatch(/^0 objects copied .*, 5 unchanged\n$/)
      expect(yield* of("cat", urlOf("models/100%25 é+%23%3F.bin"))).toBe("odd")
      expect(yield* of("du", urlOf("models"))).toMatch(/ in 5 objects\n$/)
      expect(yield* of("stat", urlOf("models/large-0"))).toMatch(/size +9437184 \(9\.00 MiB\)\n/)
      yield* of("mv", urlOf("models/large-0"), urlOf("moved"))
      yield* of("mv", urlOf("models/folder 0"), urlOf("other/"))
      expect(yield* of("ls", urlOf(""))).toMatch(/^ +models\/\n +other\/\n +9437184 {2}\S+ {2}moved\n$/)
      const presigned = yield* of("presign", urlOf("moved"), "--expires", "1 minute")
      const response = yield* Effect.promise(() => fetch(presigned.trim()))
      expect((yield* Effect.promise(() => response.arrayBuffer())).byteLength).toBe(9 * MiB)
      yield* of("rm", urlOf("models/"), urlOf("other/"), urlOf("moved"))
      expect(yield* of("ls", urlOf(""))).toBe("")
      expect(yield* unfinishedUploads(bucket)).toEqual([])
      const denied = yield* run(["ls", urlOf("")], { env: { ...env, AWS_SECRET_ACCESS_KEY: "another" } })
      if (server.kind !== "emulator") {
        expect([denied.code, denied.stderr.trimEnd().split("\n").length]).toEqual([1, 1])
        expect(denied.stderr).not.toContain("another")
      }
    }))

  it.scopedLive("syncs a thousand small objects both ways, and then finds nothing to do", () =>
    Effect.gen(function*() {
      const { urlOf } = yield* bucketUrls
      const directory = yield* source(1000, 0)
      const target = yield* temporaryDirectory
      expect(yield* print(["sync", directory, urlOf("a")], { env })).toMatch(/^1000 objects copied/)
      expect(yield* print(["sync", directory, urlOf("a")], { env })).toMatch(/^0 objects copied .*, 1000 unchanged/)
      expect(yield* print(["sync", urlOf("a"), target], { env })).toMatch(/^1000 objects copied/)
      expect(digestsOf(target)).toEqual(digestsOf(directory))
    }))
})

describe("surfing-weights on many files", () => {
  it.scopedLive("syncs 3,000 small files, and then finds nothing to do", () =>
    Effect.gen(function*() {
      const directory = yield* source(3_000, 0)
      const target = yield* temporaryDirectory
      expect(yield* print(["sync", directory, target])).toMatch(/^3000 objects copied/)
      expect(digestsOf(target)).toEqual(digestsOf(directory))
      expect(yield* print(["sync", directory, target])).toBe("0 objects copied (0 B), 3000 unchanged\n")
    }))
})

describe("surfing-weights on a large file", () => {
  it.scopedLive.runIf(process.platform === "linux")(
    "copies 5 GiB, with no more memory than for a small one",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporaryDirectory
        const file = path.join(directory, "from.bin")
        const size = 5 * 1024 * MiB + 1
        const marks = [0, 2 ** 31 - 2, 2 ** 32 - 2, size - 4]
        yield* Effect.acquireUseRelease(
          Effect.sync(() => fs.openSync(file, "w")),
          (descriptor) => Effect.sync(() => marks.forEach((at, i) => fs.writeSync(descriptor, `${i}abc`, at))),
          (descriptor) => Effect.sync(() => fs.closeSync(descriptor))
        )
        const child = yield* start(["cp", "from.bin", "to.bin"], { cwd: directory })
        let peak = 0
        const watch = setInterval(() => peak = Math.max(peak, peakOf(child.pid)), 100)
        const { code, stdout } = yield* Effect.ensuring(outcomeOf(child), Effect.sync(() => clearInterval(watch)))
        expect([code, stdout.toString()]).toEqual([0, "copied 5.00 GiB to to.bin\n"])
        expect(execFileSync("cmp", [file, path.join(directory, "to.bin")]).toString()).toBe("")
        expect(peak).toBeGreaterThan(50 * MiB)
        expect(peak).toBeLessThan(384 * MiB)
      })
  )
})

describe("surfing-weights --compress", () => {
  it.scopedLive("makes a large file of weights smaller, too, and leaves nothing else behind", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const [tensor] = tensorsAs("BF16", new Map([["w", { shape: [MiB], values: normal(MiB) }]]))
      const part = tensor !== undefined && "buffer" in tensor.data ? new Uint8Array(tensor.data.buffer) : bytes(0)
      yield* Safetensors.save("model.safetensors", [
        { name: "w", dtype: "BF16", shape: [40, MiB], data: Stream.map(Stream.range(1, 40), () => part) }
      ]).pipe(Effect.provide(FileSystemStorage.layer({ directory })))
      const url = (key: string) => `${pathToFileURL(path.join(directory, "stored")).href}/${key}`
      const scratch = yield* temporaryDirectory
      const of = (...args: ReadonlyArray<string>) =>
        print([...args, "--compress"], { cwd: directory, env: { TMPDIR: scratch } })
      yield* of("cp", "model.safetensors", url(""))
      const [original, stored] = ["model.safetensors", "stored/model.safetensors"].map((file) =>
        fs.statSync(path.join(directory, file)).size
      )
      expect((stored ?? 0) / (original ?? 0)).toBeLessThan(0.67)
      yield* of("cp", url("model.safetensors"), "back.safetensors")
      expect(execFileSync("cmp", ["model.safetensors", "back.safetensors"], { cwd: directory }).toString()).toBe("")
      expect(fs.readdirSync(scratch)).toEqual([])
    }))
})

/** The most memory that a process has had so far, in bytes; 0 once it has ended. */
const peakOf = (pid: number | undefined): number => {
  try {
    return Number(/^VmHWM:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

describe.skipIf(!canMount)("surfing-weights on a full disk", () => {
  it.scopedLive("says so in one line, and leaves what was there", () =>
    Effect.gen(function*() {
      const directory = yield* source(0, 1)
      const disk = yield* temporaryDirectory
      yield* Effect.acquireRelease(
        Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", disk])),
        () => Effect.sync(() => execFileSync("umount", ["-l", disk]))
      )
      yield* print(["cp", "-", path.join(disk, "large-0")], { input: bytes(1000) })
      const before = digestsOf(disk)
      for (const args of [["cp", path.join(directory, "large-0"), `${disk}/`], ["sync", directory, disk]]) {
        const { code, stderr } = yield* run(args)
        const full = /^surfing-weights: save "large-0" on .*: the file system of .* is full; free some space$/
        expect([args[0], code, stderr.trimEnd().split("\n")]).toEqual([args[0], 1, [expect.stringMatching(full)]])
        expect(digestsOf(disk)).toEqual(before)
        expect(temporaryFiles(disk)).toEqual([])
      }
    }))
})

/** A folder with the shards of a model, and a file that is none of it. */
const shards = Effect.map(temporaryDirectory, (directory) => {
  const names = Array.from({ length: 4 }, (_, i) => `model-0000${i + 1}-of-00004.safetensors`)
  for (const [i, name] of names.entries()) fs.writeFileSync(path.join(directory, name), bytes(9 * MiB, i))
  const index = { weight_map: Object.fromEntries(names.map((name, i) => [`layer.${i}.weight`, name])) }
  fs.writeFileSync(path.join(directory, "model.safetensors.index.json"), JSON.stringify(index))
  fs.writeFileSync(path.join(directory, "config.json"), "{}")
  return directory
})

describe("surfing-weights that is killed", () => {
  for (const command of ["cp", "sync", "pull"]) {
    it.scopedLive(`leaves only whole files in ${command}, and goes on when it is run again`, () =>
      Effect.gen(function*() {
        const directory = yield* (command === "pull" ? shards : source(300, 3))
        const expected = digestsOf(directory)
        const target = yield* temporaryDirectory
        let seen = 0
        for (let kills = 0; kills < 12 || (seen === 0 && kills < 50); kills++) {
          const child = yield* start([command, directory, target])
          const exited = once(child, "exit")
          // From before it begins to when it has copied most.
          yield* Effect.sleep(350 + 60 * kills * Math.random())
          child.kill("SIGKILL")
          yield* Effect.promise(() => exited)
          for (const [name, digest] of digestsOf(target)) {
            expect([name, digest]).toEqual([name, expected.get(name)])
            seen++
          }
          // A target that is complete tells nothing more.
          if (digestsOf(target).size === expected.size) {
            fs.rmSync(target, { recursive: true })
            fs.mkdirSync(target)
          }
        }
        expect(seen).toBeGreaterThan(0)
        expect(yield* print([command, directory, target])).toMatch(/ unchanged\n$/)
        expect(digestsOf(target)).toEqual(expected)
        expect(temporaryFiles(target)).toEqual([])
      }))
  }
})

const hasScript = isInstalled("script", "--version")

describe.skipIf(!hasScript)("surfing-weights in a terminal", () => {
  it.scopedLive("shows its progress in one line that is redrawn and gone at the end, and nothing with --quiet", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const shown = (...args: ReadonlyArray<string>) =>
        Effect.promise(async () => {
          const tool = [process.execPath, ...program, "cp", "-", "big", ...args].map((word) => `'${word}'`).join(" ")
          const input = "for i in 1 2 3 4 5 6; do head -c 1000000 /dev/zero; sleep 0.4; done"
          const child = spawn("script", ["-qec", `(${input}) | ${tool}`, "/dev/null"], { cwd: directory })
          let output = ""
          child.stdout.on("data", (bytes: Buffer) => output += bytes.toString())
          await once(child, "close")
          return output
        })
      const output = yield* shown()
      const draws = output.split("\r").filter((part) => /^[\d.]+ MiB, [\d.]+ [KM]iB\/s, 0 files/.test(part))
      expect(draws.length).toBeGreaterThan(3)
      expect(output.split("\u001b[K").at(-1)?.trim()).toBe("copied 5.72 MiB to big")
      expect(yield* shown("--quiet")).toBe("")
    }))

  it.scopedLive("prints plain lines and events where there is no terminal", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const fed = (...args: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          const child = yield* start(["cp", "-", "big", ...args], { cwd: directory })
          let [stdout, stderr] = ["", ""]
          child.stdout.on("data", (bytes: Buffer) => stdout += bytes.toString())
          child.stderr.on("data", (bytes: Buffer) => stderr += bytes.toString())
          child.stdin.write(bytes(MiB))
          yield* Effect.sleep("2500 millis")
          child.stdin.end()
          yield* Effect.promise(() => once(child, "close"))
          return { stdout, stderr }
        })
      const [plain, json] = yield* Effect.all([fed(), fed("--json")], { concurrency: 2 })
      expect(plain.stderr).toMatch(/^1\.00 MiB, [\d.]+ \w+\/s, 0 files\n$/)
      expect(json.stdout).toMatch(/^\{"event":"progress","bytes":1048576,"files":0,"rate":\d+\}\n\{"event":"copied"/)
    }))
})
