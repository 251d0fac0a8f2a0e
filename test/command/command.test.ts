/**
 * The command-line tool on files and over HTTP, in processes of its own.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { MemoryStorage } from "surfing-weights"
import manifest from "../../package.json" with { type: "json" }
import { certificate } from "../support/certificate.js"
import { outcomeOf, print, program, run, start } from "../support/command.js"
import { bytes, MiB, print as printBytes } from "../support/content.js"
import { temporaryDirectory, temporaryFiles } from "../support/directory.js"
import { saveLayeredModel } from "../support/layeredModel.js"
import { saveAll, text } from "../support/mirror.js"
import { ask, eventually, serveOf } from "../support/weightServer.js"

const nobody = { uid: 65534, gid: 65534 }

/** Whether the tool can be run as another user: a checkout may be for the eyes of its owner alone. */
const runsAsNobody = process.getuid?.() === 0 &&
  spawnSync(process.execPath, [...program, "--version"], { cwd: "/", ...nobody }).status === 0

/** A directory with these files. */
const folderOf = (files: Readonly<Record<string, string | Uint8Array>>) =>
  Effect.map(temporaryDirectory, (directory) => {
    for (const [name, content] of Object.entries(files)) {
      const file = path.join(directory, name)
      fs.mkdirSync(path.dirname(file), { recursive: true })
      fs.writeFileSync(file, content)
    }
    return directory
  })

/** The files below a directory, without the hidden folder. */
const filesOf = (directory: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    fs.readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
      .filter((name) => !name.startsWith(".surfing-weights"))
      .sort()
      .map((name) => [name, fs.readFileSync(path.join(directory, name), "utf8")])
  )

const model = { "a.txt": "text", "bert/config.json": "{}", "bert/layer 0.bin": "weights" }

const lines = (text: string): ReadonlyArray<unknown> =>
  text.trimEnd().split("\n").map((line) => JSON.parse(line) as unknown)

describe("surfing-weights", { concurrent: true }, () => {
  it.live("prints its version, and in its help every command", () =>
    Effect.gen(function*() {
      expect(yield* print(["--version"])).toBe(`${manifest.version}\n`)
      const help = yield* print(["--help"])
      for (const command of ["ls", "cat", "cp", "mv", "rm", "sync", "stat", "du", "inspect", "verify", "serve"]) {
        expect(help).toMatch(new RegExp(`- ${command} .*`))
      }
      expect(yield* print(["--completions", "bash"])).toMatch(/complete -F \S+ .* surfing-weights\n/)
      // No colours, as this is no terminal.
      expect(help).not.toContain("\u001b")
    }))

  it.scopedLive("is used wrongly with exit code 2 and one line that says what to do", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(model)
      const cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, message: RegExp]> = [
        [["ls"], /^surfing-weights: Missing argument <place>; see surfing-weights ls --help$/],
        [
          ["ls", "--bogus", "."],
          /^surfing-weights: ls has no option --bogus; see surfing-weights ls --help, and give a/
        ],
        [["rm", "bert"], /^surfing-weights: bert is a folder; to remove all objects in it, end its path in a slash$/],
        [["cat", "ftp://host"], /^surfing-weights: Storage.fromUrl: url must begin with file:, s3:.* \(got ftp:\)$/],
        [["cat", "s3://key:secret@bucket/a"], /^surfing-weights: Storage.fromUrl: url must not contain credentials/]
      ]
      yield* Effect.forEach(cases, ([args, message]) =>
        Effect.map(run(args, { cwd: directory }), ({ code, stderr, stdout }) => {
          expect([code, stdout.toString(), stderr.trimEnd()]).toEqual([2, "", expect.stringMatching(message)])
        }), { concurrency: 2 })
      expect(filesOf(directory)).toEqual(model)
    }))

  it.scopedLive("fails with exit code 1 and the message of the storage, with --verbose also its trace", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(model)
      const missing = yield* run(["cat", "bert/none"], { cwd: directory })
      expect(missing).toMatchObject({
        code: 1,
        stderr: "surfing-weights: head \"none\" on FileSystem(bert): there is no such object\n"
      })
      const typo = yield* run(["ls", "brt/"], { cwd: directory })
      expect([typo.code, typo.stderr]).toEqual([1, expect.stringMatching(/brt does not exist\n$/)])
      expect(fs.existsSync(path.join(directory, "brt"))).toBe(false)
      const verbose = yield* run(["cat", "bert/none", "--verbose"], { cwd: directory })
      expect(verbose.stderr).toMatch(/there is no such object\n(?:.*\n)*\s+at /)
    }))

  it.scopedLive("lists, measures and describes objects", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(model)
      const of = (...args: ReadonlyArray<string>) => print(args, { cwd: directory })
      expect(yield* of("ls", ".")).toMatch(/^ {35} {2}bert\/\n {13}4 {2}[\dT:-]{19} {2}a\.txt\n$/)
      const [config, layer] = lines(yield* of("ls", "--json", "bert"))
      expect(config).toMatchObject({ key: "config.json", size: 2, etag: expect.any(String) as string })
      expect(layer).toMatchObject({ key: "layer 0.bin", size: 7 })
      expect((yield* of("ls", "--recursive", "--json", ".")).match(/"key":"[^"]*"/g)).toEqual(
        Object.keys(model).map((key) => `"key":"${key}"`)
      )
      expect(yield* of("du", ".")).toBe("13 bytes (13 B) in 3 objects\n")
      expect(lines(yield* of("du", "bert", "--json"))).toEqual([{ objects: 2, bytes: 9 }])
      expect(yield* of("stat", "bert/config.json")).toMatch(
        /size +2 \(2 B\)\nmodified .*\netag .*\ncontentType +application\/json\n$/
      )
    }))

  it.scopedLive("copies objects and folders, selects by patterns, and leaves what is there", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(
        Object.fromEntries(Object.entries(model).map(([key, value]) => [`w/${key}`, value]))
      )
      const of = (...args: ReadonlyArray<string>) => print(args, { cwd: directory })
      expect(yield* of("cp", "w", "to", "--include", "*.bin", "--include=*.txt", "--exclude", "a.*")).toBe(
        "1 object copied (7 B), 0 unchanged\n"
      )
      expect(yield* of("cp", "w", "to")).toBe("2 objects copied (6 B), 1 unchanged\n")
      expect(lines(yield* of("cp", "w", "to", "--json"))).toEqual([
        { event: "unchanged", key: "a.txt", size: 4 },
        { event: "unchanged", key: "bert/config.json", size: 2 },
        { event: "unchanged", key: "bert/layer 0.bin", size: 7 },
        { event: "done", copied: 0, bytes: 0, unchanged: 3, removed: 0, failed: 0 }
      ])
      expect(filesOf(path.join(directory, "to"))).toEqual(model)
      expect(yield* of("cp", "w/a.txt", "one/", "--quiet")).toBe("")
      expect(yield* of("cp", "w/a.txt", "one/b.txt")).toBe("copied 4 B to b.txt\n")
      expect(filesOf(path.join(directory, "one"))).toEqual({ "a.txt": "text", "b.txt": "text" })
    }))

  it.scopedLive("reads standard input and writes standard output, byte for byte", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const content = bytes(5 * MiB + 1)
      yield* print(["cp", "-", "big file"], { cwd: directory, input: content })
      expect(yield* print(["cp", "-", "small", "--json"], { cwd: directory, input: text("three") })).toBe(
        "{\"event\":\"copied\",\"key\":\"small\",\"size\":5}\n"
      )
      const whole = yield* run(["cp", "big file", "-"], { cwd: directory })
      expect(printBytes(whole.stdout)).toBe(printBytes(content))
      const twice = yield* run(["cat", "big file", "./big file"], { cwd: directory })
      expect(printBytes(twice.stdout)).toBe(printBytes(Buffer.concat([content, content])))
    }))

  it.scopedLive("moves and removes objects and folders", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(model)
      const of = (...args: ReadonlyArray<string>) => print(args, { cwd: directory })
      expect(yield* of("mv", "a.txt", "bert/b.txt")).toMatch(/^moved a\.txt to /)
      expect(yield* of("mv", "bert", "gpt")).toBe("3 objects copied (13 B), 0 unchanged\n")
      const moved = { "gpt/b.txt": "text", "gpt/config.json": "{}", "gpt/layer 0.bin": "weights" }
      expect(filesOf(directory)).toEqual(
        expect.objectContaining(moved)
      )
      expect(yield* of("rm", "gpt/b.txt")).toBe("removed gpt/b.txt\n")
      expect(yield* of("rm", "gpt/")).toBe("removed 2 objects\n")
      expect((yield* run(["rm", "gpt/b.txt"], { cwd: directory })).code).toBe(1)
    }))

  it.scopedLive("syncs: a dry run changes nothing, --delete removes, --checksum compares bytes", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf({ "from/a": "new", "from/b": "same", "to/a": "old", "to/c": "extra" })
      const of = (...args: ReadonlyArray<string>) => print(["sync", "from", "to", ...args], { cwd: directory })
      // The file in `to` is the newer one.
      fs.utimesSync(path.join(directory, "from/a"), 1, 1)
      expect(yield* of("--dry-run", "--delete")).toBe(
        "copy b (4 B)\nremove c\n1 object to copy (4 B), 1 to remove, 1 unchanged\n"
      )
      expect(filesOf(path.join(directory, "to"))).toEqual({ a: "old", c: "extra" })
      expect(yield* of("--checksum")).toBe("2 objects copied (7 B), 0 unchanged\n")
      expect(yield* of("--delete")).toBe("0 objects copied (0 B), 1 removed, 2 unchanged\n")
      expect(filesOf(path.join(directory, "to"))).toEqual({ a: "new", b: "same" })
      yield* print(["sync", "from", "none", "--dry-run"], { cwd: directory })
      expect(fs.existsSync(path.join(directory, "none"))).toBe(false)
    }))

  it.scopedLive("takes common options before the command as well as after it", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(model)
      const json = yield* print(["--json", "du", directory])
      expect(json).toBe(yield* print(["du", directory, "--json"]))
      expect(lines(json)).toHaveLength(1)
      const wrong = yield* run(["--loud", "du", directory])
      expect([wrong.code, wrong.stderr]).toEqual([
        2,
        expect.stringMatching(/^surfing-weights: du has no option --loud; /)
      ])
    }))

  it.scopedLive("takes options from the arguments, the environment and a file, in that order", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf({ ...model, "options.json": "{\"ls\":{\"recursive\":true},\"json\":true}" })
      const of = (env: NodeJS.ProcessEnv, ...args: ReadonlyArray<string>) =>
        run(["ls", "bert", ...args], { cwd: directory, env })
      const file = { WEIGHTS_CONFIG: "options.json" }
      expect(lines((yield* of(file)).stdout.toString())).toHaveLength(2)
      expect((yield* of({ ...file, WEIGHTS_JSON: "false" })).stdout.toString()).toContain("  config.json\n")
      expect(lines((yield* of({ WEIGHTS_JSON: "false" }, "--json")).stdout.toString())).toHaveLength(2)
      const wrong = yield* of({ WEIGHTS_JSON: "yes" })
      expect([wrong.code, wrong.stderr]).toEqual([
        2,
        expect.stringMatching(/^surfing-weights: WEIGHTS_JSON, or json in .* true or false \(got yes\)\n$/)
      ])
      const none = yield* of({ WEIGHTS_CONFIG: "none.json" })
      expect([none.code, none.stderr]).toEqual([2, expect.stringMatching(/none\.json cannot be read\n$/)])
    }))

  it.scopedLive.skipIf(process.platform === "win32")(
    "ends quietly where a pipe is closed",
    () =>
      Effect.gen(function*() {
        const directory = yield* folderOf(Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`file ${i}`, ""])))
        const command = [process.execPath, ...program, "ls", directory].map((word) => `'${word}'`).join(" ")
        const { status, stderr, stdout } = yield* Effect.sync(() =>
          spawnSync("bash", ["-c", `${command} | head -n 1; echo "\${PIPESTATUS[0]}"`], { encoding: "utf8" })
        )
        expect([status, stdout.split("\n").slice(1), stderr]).toEqual([0, ["0", ""], ""])
      })
  )

  it.scopedLive("is interrupted with exit code 130 or 143 while it waits for its input, and leaves nothing", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      yield* Effect.forEach(
        [["SIGINT", 130], ["SIGTERM", 143]] as const,
        ([signal, expected]) =>
          Effect.gen(function*() {
            const child = yield* start(["cp", "-", "big", "--quiet"], { cwd: directory })
            child.stdin.on("error", () => {})
            child.stdin.write(bytes(5 * MiB))
            // It has saved a batch, and waits for more than it has been given.
            yield* eventually("a batch", () =>
              temporaryFiles(directory).some((name) =>
                fs.statSync(path.join(directory, ".surfing-weights", name)).size > 0
              ))
            yield* Effect.sleep("300 millis")
            child.kill(signal)
            const { code, stderr } = yield* outcomeOf(child)
            expect([code, stderr]).toEqual([expected, ""])
            expect(temporaryFiles(directory)).toEqual([])
            expect(filesOf(directory)).toEqual({})
          })
      )
    }))

  it.scopedLive.skipIf(!runsAsNobody)("says what it may not do", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf(model)
      fs.chmodSync(directory, 0o755)
      fs.chmodSync(path.join(directory, "a.txt"), 0o600)
      const asNobody = { cwd: directory, ...nobody }
      const read = yield* run(["cat", "a.txt"], asNobody)
      expect([read.code, read.stderr]).toEqual([1, expect.stringMatching(/^surfing-weights: .*permission denied.*\n$/)])
      const written = yield* run(["cp", "bert", "new"], asNobody)
      expect([written.code, written.stderr]).toEqual([
        1,
        expect.stringMatching(/^surfing-weights: .*permission denied.*\n$/)
      ])
    }))

  it.scopedLive.skipIf(process.getuid?.() !== 0)(
    "keeps out of the hidden folder that a stranger has put above",
    () =>
      Effect.gen(function*() {
        const directory = yield* folderOf({ "work/a.txt": "mine" })
        const planted = path.join(directory, ".surfing-weights")
        fs.mkdirSync(planted)
        fs.chmodSync(planted, 0o777)
        fs.chownSync(planted, 65534, 65534)
        yield* print(["cp", "a.txt", "copy.txt"], { cwd: path.join(directory, "work") })
        expect(fs.readFileSync(path.join(directory, "work/copy.txt"), "utf8")).toBe("mine")
        expect(fs.readdirSync(planted)).toEqual([])
        // One of its own is used.
        fs.chownSync(planted, 0, 0)
        fs.rmSync(path.join(directory, "work/.surfing-weights"), { recursive: true })
        yield* print(["cp", "a.txt", "copy.txt"], { cwd: path.join(directory, "work") })
        expect(fs.readdirSync(planted)).not.toEqual([])
      })
  )

  it.scopedLive("copies and moves one object over another of its size, whichever is newer", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf({ "from/a": "old a", "from/b": "old b", "to/a": "new a", "to/b": "new b" })
      for (const name of ["from/a", "from/b"]) fs.utimesSync(path.join(directory, name), 1e9, 1e9)
      for (const folder of ["from", "to"]) fs.mkdirSync(path.join(directory, folder, ".surfing-weights"))
      yield* print(["cp", "from/a", "to/a"], { cwd: directory })
      yield* print(["mv", "from/b", "to/b"], { cwd: directory })
      expect(filesOf(path.join(directory, "to"))).toEqual({ a: "old a", b: "old b" })
      expect(filesOf(path.join(directory, "from"))).toEqual({ a: "old a" })
    }))

  it.scopedLive("uses a weight server by the URLs of its objects, and says when an object cannot be copied", () =>
    Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveAll(storage, { "bert/100%.bin": "percent", "bert/a?b#c": "odd" })
      const { url } = yield* serveOf(storage, { writable: true })
      const directory = yield* folderOf(model)
      const of = (...args: ReadonlyArray<string>) => print(args, { cwd: directory })
      expect(yield* of("cat", `${url}/bert/100%25.bin`, `${url}/objects/bert/a%3Fb%23c`)).toBe("percentodd")
      expect(yield* of("sync", `${url}/bert`, "copy")).toBe("2 objects copied (10 B), 0 unchanged\n")
      expect(filesOf(path.join(directory, "copy"))).toEqual({ "100%.bin": "percent", "a?b#c": "odd" })
      yield* of("cp", "bert", `${url}/new/`)
      expect(yield* storage.list("new/")).toEqual(["new/config.json", "new/layer 0.bin"])
      yield* storage.save("new/config.json/deep", text("cannot stand beside a file"))
      const failed = yield* run(["cp", `${url}/new`, "files"], { cwd: directory })
      expect([failed.code, failed.stdout.toString()]).toEqual([
        1,
        expect.stringMatching(/^2 objects copied .*, 0 unch/)
      ])
      expect(failed.stderr.trimEnd().split("\n")).toEqual([
        expect.stringMatching(/^surfing-weights: save "config.json\/?[a-z]*" on .*/),
        "surfing-weights: 1 object could not be copied; give the command again to copy the rest"
      ])
    }))

  it.scopedLive("serves a folder with tokens from a file, and is a server to itself", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf({ ...model, tokens: "# who\nread reader-0123456789\n" })
      const limits = ["--token-file", "tokens", "--cache", "1MiB"]
      const args = ["serve", "bert", "--port", "0", ...limits, "--hub", "--access-log"]
      const server = yield* start(args, { cwd: directory })
      let log = ""
      server.stderr.on("data", (bytes: Buffer) => log += bytes.toString())
      yield* eventually("the server", () => log.includes("listening on"))
      const port = Number(/127\.0\.0\.1:(\d+)/.exec(log)?.[1])
      expect((yield* ask({ port }, "GET", "/objects/config.json")).status).toBe(401)
      const authorization = "Bearer reader-0123456789"
      expect((yield* ask({ port }, "GET", "/objects/config.json", { authorization })).text).toBe("{}")
      const missing = yield* ask({ port }, "GET", "/api/models/acme/none", { authorization })
      expect([missing.status, missing.headers["x-error-code"]]).toEqual([404, "RepoNotFound"])
      expect(log).not.toContain("reader-0123456789")
      server.kill("SIGTERM")
      const [code] = yield* Effect.promise(() => once(server, "close") as Promise<[number | null]>)
      expect(code).toBe(0)
    }))

  it.scopedLive("encrypts and compresses at URLs, and gives everything back", () =>
    Effect.gen(function*() {
      const tokenizer = JSON.stringify(Array.from({ length: 5000 }, (_, i) => `token ${i}`))
      const secret = Buffer.from(bytes(32)).toString("base64")
      const other = Buffer.from(bytes(32, 1)).toString("base64")
      const directory = yield* folderOf({
        "m/tokenizer.json": tokenizer,
        keys: `# made by hand\n2026-11 ${secret}\n`,
        others: `2026-11 ${other}\n`,
        wrong: "2026-11 short\n"
      })
      const url = (key: string) => `${pathToFileURL(path.join(directory, "stored")).href}/${key}`
      const of = (...args: ReadonlyArray<string>) =>
        print([...args, "--key-file", "keys", "--compress"], { cwd: directory })
      expect(yield* of("cp", "m", url(""))).toMatch(/^1 object copied /)
      expect(yield* of("sync", "m", url(""))).toMatch(/, 1 unchanged\n$/)
      expect(yield* of("cat", url("tokenizer.json"))).toBe(tokenizer)
      expect(yield* of("ls", url(""))).toContain(` ${tokenizer.length} `)
      yield* of("sync", url(""), "back")
      expect(filesOf(path.join(directory, "back"))).toEqual({ "tokenizer.json": tokenizer })
      const stored = fs.readFileSync(path.join(directory, "stored/tokenizer.json"))
      expect(stored.byteLength).toBeLessThan(tokenizer.length / 2)
      expect(stored.includes("token")).toBe(false)
      for (
        const [file, code, message] of [
          ["others", 1, /the master key "2026-11" does not decrypt/],
          ["wrong", 2, /--key-file must be a file of lines .*: key 1 is not one/],
          ["missing", 2, /--key-file must be a file of lines/]
        ] as const
      ) {
        const refused = yield* run(["cat", url("tokenizer.json"), "--key-file", file], { cwd: directory })
        expect([refused.code, refused.stderr]).toEqual([code, expect.stringMatching(message)])
        expect(refused.stderr).not.toContain("short")
      }
    }))

  it.scopedLive("serves HTTPS, to a client that trusts the certificate, and lets it save", () =>
    Effect.gen(function*() {
      const directory = yield* folderOf({ ...model, "cert.pem": certificate.cert, "key.pem": certificate.key })
      const args = ["serve", "bert", "--port=0", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--writable"]
      const server = yield* start(args, { cwd: directory })
      let log = ""
      server.stderr.on("data", (bytes: Buffer) => log += bytes.toString())
      yield* eventually("the server", () => log.includes("listening on"))
      const url = `https://127.0.0.1:${/127\.0\.0\.1:(\d+)/.exec(log)?.[1]}`
      const trusting = { cwd: directory, env: { NODE_EXTRA_CA_CERTS: "cert.pem" } }
      expect(yield* print(["cat", `${url}/config.json`], trusting)).toBe("{}")
      expect(yield* print(["cp", "a.txt", `${url}/`], trusting)).toBe("copied 4 B to a.txt\n")
      expect(fs.readFileSync(path.join(directory, "bert/a.txt"), "utf8")).toBe("text")
    }))

  it.scopedLive("splits, inspects and verifies a model", () =>
    Effect.gen(function*() {
      const file = fs.readFileSync(path.join(import.meta.dirname, "../support/safetensors/floats.safetensors"))
      const directory = yield* folderOf({ "model.safetensors": file })
      yield* saveLayeredModel(directory, "layers.safetensors")
      const of = (...args: ReadonlyArray<string>) => print(args, { cwd: directory })
      const tensors = yield* of("inspect", "model.safetensors")
      expect(tensors).toMatch(/^BF16 worth +F32 +\[657\] +2\.57 KiB\n/)
      expect(tensors).toMatch(/\n\d+ tensors, \d+ elements, [\d.]+ KiB in 1 file\n/)
      expect(yield* of("split", "layers.safetensors", "chunks")).toBe("3 chunks and manifest.json in chunks\n")
      expect(yield* of("inspect", "chunks")).toMatch(/^embeddings +\S+ KiB +1 tensor +sha256 [0-9a-f]{64}\nlayer_0 /)
      expect(yield* of("verify", "chunks")).toMatch(/^3 chunks verified \([\d.]+ KiB\)\n$/)
      const chunk = path.join(directory, "chunks/layer_1.safetensors")
      fs.appendFileSync(chunk, "x")
      const damaged = yield* run(["verify", "chunks"], { cwd: directory })
      expect(damaged.code).toBe(1)
      expect(damaged.stderr).toMatch(/layer_1.*\nsurfing-weights: 1 of 3 chunks do not match the manifest\n$/)
    }))

  it.scopedLive("pushes the files of a model, and not its other forms", () =>
    Effect.gen(function*() {
      const file = fs.readFileSync(path.join(import.meta.dirname, "../support/safetensors/floats.safetensors"))
      const directory = yield* folderOf({
        "m/model.safetensors": file,
        "m/pytorch_model.bin": "x",
        "m/config.json": "{}",
        "m/.git/HEAD": ""
      })
      yield* print(["push", "m", "to"], { cwd: directory })
      expect(Object.keys(filesOf(path.join(directory, "to")))).toEqual(["config.json", "model.safetensors"])
      const bench = lines(yield* print(["bench", "b", "--size", "1MiB", "--json"], { cwd: directory }))
      expect(bench).toHaveLength(6)
      expect(filesOf(path.join(directory, "b"))).toEqual({})
    }))
})
