/**
 * Every file in examples/ runs as it stands: without a network, to its end, leaving nothing behind.
 */
import { describe, expect, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dirname, "..")
const examples = readdirSync(join(root, "examples")).filter((file) => file.endsWith(".ts"))

// What each has to say, among other things. An example that is not here has to say something.
const says: Readonly<Record<string, ReadonlyArray<string>>> = {
  "custom-backend.ts": ["Found both again after a restart", "Two saves on one etag: save \"bert/layer_0.bin\""],
  "quickstart.ts": [
    "Saved     9 objects",
    "4.0 MiB  sentence-encoder/group1-shard1of7",
    "every SHA-256 is that of the original",
    "\"a dog runs\" and \"the puppy is running\": 0.66",
    "\"a dog runs\" and \"tax law\": 0.15"
  ],
  "retry-schedules.ts": ["gave up after 3 attempts", "broke after each million, and came whole"],
  "save-load-stream-list.ts": ["Streamed 16777216 bytes", "On disk are now: layer_0.bin"],
  "swap-backends-in-tests.ts": ["on FileSystem(", "on Memory", "no space left"],
  "typed-errors.ts": ["200 found", "404 missing", "504 late", "Sent and received: load \"layer_1.bin\""]
}

// Whatever opens a connection fails.
const offline = `data:text/javascript,${
  encodeURIComponent(`
  import { Socket } from "node:net"
  Socket.prototype.connect = () => { throw new Error("there is no network") }
`)
}`

interface Outcome {
  readonly code: number | null
  readonly output: string
  /** What it left in the directory for temporary files. */
  readonly left: ReadonlyArray<string>
}

/** Runs a file as `npx tsx` does, for a minute at most. */
const run = async (file: string): Promise<Outcome> => {
  const temporary = await mkdtemp(join(tmpdir(), "surfing-weights-example-"))
  const child = spawn(process.execPath, ["--import", "tsx", "--import", offline, file], {
    cwd: root,
    env: { ...process.env, TMPDIR: temporary },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 60_000
  })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text
    })
  }
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve))
  // The compiled files that tsx keeps are its own.
  const left = (await readdir(temporary)).filter((name) => !name.startsWith("tsx-"))
  await rm(temporary, { recursive: true })
  return { code, output, left }
}

describe("examples", () => {
  it("are all there that README.md tells of", () => {
    expect(examples).toEqual(expect.arrayContaining(Object.keys(says)))
  })

  for (const example of examples) {
    it(`${example} runs, shows what it is about and leaves nothing behind`, async () => {
      const { code, left, output } = await run(join("examples", example))
      expect(output.trim()).not.toBe("")
      for (const text of says[example] ?? []) expect(output).toContain(text)
      expect(output.split("\n").length).toBeLessThanOrEqual(24)
      expect({ code, left }, output).toEqual({ code: 0, left: [] })
    }, 90_000)
  }

  describe("are seen to fail", () => {
    const runInstead = async (source: string): Promise<Outcome> => {
      const folder = await mkdtemp(join(tmpdir(), "surfing-weights-example-"))
      await symlink(join(root, "node_modules"), join(folder, "node_modules"))
      await writeFile(join(folder, "example.mts"), source)
      const outcome = await run(join(folder, "example.mts"))
      await rm(folder, { recursive: true })
      return outcome
    }

    it("when something does not hold", async () => {
      const source = await readFile(join(root, "examples/save-load-stream-list.ts"), "utf8")
      const { code, left, output } = await runInstead(source.replace("size, 16 * 1024 * 1024)", "size, 17)"))
      expect({ code, left }, output).toEqual({ code: 1, left: [] })
      expect(output).toContain("16777216 !== 17")
    }, 90_000)

    it("when they need a network", async () => {
      const { code, output } = await runInstead("await fetch(\"http://127.0.0.1:65000\")")
      expect(code, output).toBe(1)
      expect(output).toContain("there is no network")
    }, 90_000)

    it("when they leave a file behind", async () => {
      const { code, left } = await runInstead(`
        import { mkdtempSync } from "node:fs"
        import { tmpdir } from "node:os"
        mkdtempSync(tmpdir() + "/forgotten-")
      `)
      expect({ code, left }).toEqual({ code: 0, left: [expect.stringContaining("forgotten-")] })
    }, 90_000)
  })
})
