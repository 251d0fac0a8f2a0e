/**
 * Every file in examples/ runs as it stands: without a network, to its end, leaving nothing behind. The quickstart also
 * runs against the S3 server of the tests.
 */
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir, userInfo } from "node:os"
import { join, resolve } from "node:path"
import { makeBucket, server } from "./support/s3Bucket.js"

const root = resolve(import.meta.dirname, "..")
// But one that serves until it is told to end: see examples/team-server.all.test.ts.
const examples = readdirSync(join(root, "examples"))
  .filter((file) => file.endsWith(".ts") && file !== "team-server.ts")

// What each has to say, among other things. An example that is not here has to say something.
const says: Readonly<Record<string, ReadonlyArray<string>>> = {
  "app.ts": ["bert/layer_0.bin", "4096000 bytes"],
  "cache-in-front-of-s3.ts": ["From memory: ", "After a restart, from disk: ", "1 hits, 0 misses so far"],
  "compression.ts": [
    "Saved in 66.",
    "a row of it: 1 x 512",
    "layer_0: 524376 bytes, stored in 34",
    "Stored in 66."
  ],
  "credentials.ts": [
    "Given as an option: GIVEN",
    "From Config: CONFIG",
    "From a profile: PROFILE",
    "From a client: CLIENT",
    "Found in the environment: FOUND"
  ],
  "custom-wrapper.ts": ["write save drafts/layer_0.bin: done", "releases are kept"],
  "custom-backend.ts": ["Found both again after a restart", "Two saves on one etag: save \"bert/layer_0.bin\""],
  "mirror.ts": [
    "From the hub: 3 files",
    "From the mirror: 3 files",
    "The hub is gone; from the mirror: 3 files, every SHA-256 as before"
  ],
  "model-chunks.ts": [
    "bert/chunks/layer_3.safetensors: 33024 bytes, 2 tensors",
    "A pass over 6 chunks has the same result as the whole model",
    "Failed layer_2, 115600 of 165136 bytes",
    "chunk \"layer_2\" has the SHA-256"
  ],
  "observability.ts": ["cache=miss attempts=3 bytes=1000", "cache=hit", "storage_operations (load, success): 2"],
  "edge-client.ts": ["From the server: ", "The server is down; from the disk: ", "Not on the disk: StorageUnavailable"],
  "encryption.ts": [
    "the disk and the bucket have encrypted bytes only",
    "master key \"2026-12\", which is not among",
    "1 call to encrypt, 1 to decrypt"
  ],
  "file-system.ts": [
    "Objects: bert/config.json, bert/notes.txt",
    "cannot hold \"bert/config.json/layers\" beside \"bert/config.json\"",
    "leads out of the directory, to /etc/hostname"
  ],
  "failover.ts": ["only the first 3 tried the bucket", "Writes fail: save \"layer_1.bin\""],
  "quickstart.ts": [
    "Saved     9 objects",
    "4.0 MiB  sentence-encoder/group1-shard1of7",
    "every SHA-256 is that of the original",
    "\"a dog runs\" and \"the puppy is running\": 0.66",
    "\"a dog runs\" and \"tax law\": 0.15"
  ],
  "retry-schedules.ts": ["gave up after 3 attempts", "broke after every million, and arrived whole"],
  "s3.ts": [
    "Saved config.json and layer_0.bin: 20971520 bytes in parts",
    "the SHA-256 is that of the original",
    "Fetched { \"layers\": 1 } by a presigned URL",
    "Handled: load \"layer_1.bin\" on S3(model-weights/bert): there is no such object"
  ],
  "safetensors.ts": [
    "embeddings.weight: F32 [256,1024]",
    "layer_0.bias as floats: 1, -2",
    "Rows 7 and 8: 8192 bytes",
    "Streamed 262148 parameters",
    "Rejected, data: safetensors \"bad.safetensors\": data: the tensors end at byte 10, but the file has 18 bytes"
  ],
  "save-load-stream-list.ts": ["Streamed 16777216 bytes", "On disk now: layer_0.bin"],
  "static-files.ts": ["Streamed 1000000 bytes", "listing is not supported", "there is no such object"],
  "swap-backends-in-tests.ts": ["on FileSystem(", "on Memory", "no space left"],
  "sync.ts": ["- bert/layer_9.bin", "6 MiB so far", "Again: 3 objects are unchanged"],
  "tensorflow.ts": ["Loaded a model of 61 weights", "Saved it as 8 objects", "Saved it over itself: new shards"],
  "transformers-cache.ts": [
    "From the server: 4 files, 4 requests so far",
    "From the storage: 4 files, 4 requests so far",
    "A range of a file: bytes 100-199/4194304"
  ],
  "troubleshooting.ts": [
    "S3(model-weights): the server refused the connection",
    "retry 1 in 0",
    "start the server, or correct host and port; gave up after 2 attempts"
  ],
  "weight-server.ts": [
    "Fetched 3000000 bytes, and the SHA-256 is that of the original",
    "A range: 206 bytes 0-7/3000000",
    "With its etag: 304",
    "Saved without the token, with it, and only if it is new: 401, 200, 412"
  ],
  "wrappers.ts": [
    "The stack: Cache(Retry(Limit(Timeout(Chaos(Memory)))))",
    "1 miss, which took three attempts, and 1 hit",
    "no answer within 1s"
  ],
  "typed-errors.ts": ["200 found", "404 missing", "504 late", "Sent and received: load \"layer_1.bin\""]
}

// Whatever opens a connection to another machine fails.
const offline = `data:text/javascript,${
  encodeURIComponent(`
  import { Socket } from "node:net"
  const { connect } = Socket.prototype
  Socket.prototype.connect = function(...args) {
    const [options] = args.flat()
    if (options.host !== "127.0.0.1") throw new Error("there is no network")
    return connect.apply(this, args)
  }
`)
}`

// What this machine has of its own must not decide how an example ends.
const machine = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("AWS_") && !name.startsWith("STORAGE_"))
)

/** What tsx has compiled, in a folder of the directory for temporary files. It is kept from one example to the next. */
const cacheName = `tsx-${process.geteuid?.() ?? userInfo().username}`

const compiled = await mkdtemp(join(tmpdir(), "surfing-weights-tsx-"))
afterAll(() => rm(compiled, { recursive: true }))

interface Outcome {
  readonly code: number | null
  readonly output: string
  /** What it left in the directory for temporary files. */
  readonly left: ReadonlyArray<string>
}

/** Runs a file as `npx tsx` does, without a network unless there are `variables` for one, for four minutes at most. */
const run = async (file: string, variables?: Readonly<Record<string, string>>): Promise<Outcome> => {
  const temporary = await mkdtemp(join(tmpdir(), "surfing-weights-example-"))
  await symlink(compiled, join(temporary, cacheName))
  const child = spawn(process.execPath, [
    "--import",
    "tsx",
    ...(variables === undefined ? ["--import", offline] : []),
    file
  ], {
    cwd: root,
    env: { ...machine, ...variables, TMPDIR: temporary },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 240_000
  })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text
    })
  }
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve))
  const left = (await readdir(temporary)).filter((name) => name !== cacheName)
  await rm(temporary, { recursive: true })
  return { code, output, left }
}

describe("examples", () => {
  it("include every one that is checked here", () => {
    expect(examples).toEqual(expect.arrayContaining(Object.keys(says)))
  })

  for (const example of examples) {
    it(`${example} runs, shows what it is about and leaves nothing behind`, async () => {
      const { code, left, output } = await run(join("examples", example))
      expect(output.trim()).not.toBe("")
      for (const text of says[example] ?? []) expect(output).toContain(text)
      expect(output.split("\n").length).toBeLessThanOrEqual(24)
      expect({ code, left }, output).toEqual({ code: 0, left: [] })
    })
  }

  describe("with STORAGE_URL", () => {
    const urlOf = (bucket: string) =>
      `s3://${bucket}/from%20the%20tests?endpoint=${encodeURIComponent(server.endpoint)}&region=${server.region}`
    const credentials = { AWS_ACCESS_KEY_ID: server.accessKeyId, AWS_SECRET_ACCESS_KEY: server.secretAccessKey }

    for (const example of ["quickstart.ts", "s3.ts"]) {
      it.scopedLive(`${example} uses that bucket`, () =>
        Effect.gen(function*() {
          const bucket = yield* makeBucket
          const variables = { ...credentials, STORAGE_URL: urlOf(bucket) }
          const { code, left, output } = yield* Effect.promise(() => run(join("examples", example), variables))
          expect(output).toContain(`S3(${bucket}/from the tests)`)
          for (const text of says[example] ?? []) {
            expect(output).toContain(text.replace("S3(model-weights/bert)", `S3(${bucket}/from the tests)`))
          }
          expect({ code, left }, output).toEqual({ code: 0, left: [] })
        }))
    }

    it("the quickstart fails if the bucket does not exist, and says so", async () => {
      const variables = { ...credentials, STORAGE_URL: urlOf("no-such-bucket") }
      const { code, left, output } = await run("examples/quickstart.ts", variables)
      expect({ code, left }, output).toEqual({ code: 1, left: [] })
      expect(output).toContain("the bucket \"no-such-bucket\" does not exist")
    })
  })

  describe("fail visibly", () => {
    const runInstead = async (source: string): Promise<Outcome> => {
      const folder = await mkdtemp(join(tmpdir(), "surfing-weights-example-"))
      await symlink(join(root, "node_modules"), join(folder, "node_modules"))
      await writeFile(join(folder, "example.mts"), source)
      const outcome = await run(join(folder, "example.mts"))
      await rm(folder, { recursive: true })
      return outcome
    }

    it("if an assertion fails", async () => {
      const source = await readFile(join(root, "examples/save-load-stream-list.ts"), "utf8")
      const { code, left, output } = await runInstead(source.replace("size, 16 * 1024 * 1024)", "size, 17)"))
      expect({ code, left }, output).toEqual({ code: 1, left: [] })
      expect(output).toContain("16777216 !== 17")
    })

    it("if they need a network", async () => {
      const { code, output } = await runInstead("await fetch(\"http://192.0.2.1\")")
      expect(code, output).toBe(1)
      expect(output).toContain("there is no network")
    })

    it("if they leave a file behind", async () => {
      const { code, left } = await runInstead(`
        import { mkdtempSync } from "node:fs"
        import { tmpdir, userInfo } from "node:os"
        mkdtempSync(tmpdir() + "/forgotten-")
      `)
      expect({ code, left }).toEqual({ code: 0, left: [expect.stringContaining("forgotten-")] })
    })
  })
})
