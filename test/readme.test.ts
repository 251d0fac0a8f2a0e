/**
 * README.md shows code that is compiled and run, and its tables match the code.
 */
import { describe, expect, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { StorageError } from "surfing-weights"
import manifest from "../package.json" with { type: "json" }

const root = resolve(import.meta.dirname, "..")
const readme = readFileSync(join(root, "README.md"), "utf8")

interface Block {
  readonly language: string
  readonly code: string
  /** The file and region that the code is from, as named in a comment above it. */
  readonly source: string | undefined
}

const blocks: ReadonlyArray<Block> = [...readme.matchAll(/(?:<!-- (.*) -->\n\n)?^```(.*)\n([^]*?)\n```$/gm)].map(
  ([, source, language = "", code = ""]) => ({ language, code, source })
)

/** The lines between `// #region name` and the next `// #endregion`, moved to the left margin. */
const region = (source: string): string => {
  const [file = "", name] = source.split("#")
  const lines = readFileSync(join(root, file), "utf8").split("\n")
  const start = lines.findIndex((line) => line.trim() === `// #region ${name}`)
  const length = lines.slice(start + 1).findIndex((line) => line.trim() === "// #endregion")
  if (start === -1 || length === -1) return `there is no region ${name} in ${file}`
  const code = lines.slice(start + 1, start + 1 + length)
  const margin = Math.min(...code.filter((line) => line !== "").map((line) => line.search(/\S/)))
  return code.map((line) => line.slice(margin)).join("\n")
}

describe("README.md", () => {
  it("shows the commands for the quickstart and the tests", () => {
    const commands = blocks.filter(({ language }) => language === "sh").map(({ code }) => code)
    expect(commands).toEqual(expect.arrayContaining(["npm ci && npm run quickstart", "npm ci && npm test"]))
  })

  it("names only npm scripts that exist", () => {
    const named = [...readme.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name)
    expect(named).not.toEqual([])
    expect(Object.keys(manifest.scripts)).toEqual(expect.arrayContaining(named))
  })

  it("links only to files that exist", () => {
    const files = [...readme.matchAll(/\]\((?!https:)([^)]+)\)/g)].flatMap(([, file]) => file ?? [])
    expect(files).not.toEqual([])
    expect(files.filter((file) => !existsSync(join(root, file)))).toEqual([])
  })

  it("has every snippet from a file that is compiled and run", () => {
    expect(readme.match(/```/g)).toHaveLength(2 * blocks.length)
    const snippets = blocks.filter(({ language }) => language !== "sh" && language !== "")
    expect(snippets.length).toBeGreaterThan(9)
    for (const { code, language, source } of snippets) {
      expect(language, code).toBe("ts")
      expect(source, code).toMatch(/^(?:examples\/[\w-]+\.ts|test\/[\w/.-]+\.test\.ts)#[\w-]+$/)
      expect(code, source).toBe(region(source ?? ""))
    }
  })

  it("lists every failure, and whether it is retried", () => {
    const rows = [...readme.matchAll(/^\| `(\w+)` \| .+ \| (.+) \|$/gm)].map(([, tag, retried]) => [tag, retried])
    expect(rows).toEqual(StorageError.StorageError.members.map(({ _tag }) => [_tag, retried(_tag)]))
  })

  it("lists every public module in the tree of src/", () => {
    const [drawing = ""] = blocks.filter(({ code }) => code.startsWith("src/")).map(({ code }) => code)
    expect([...drawing.matchAll(/[A-Z]\w+/g)].map(([name]) => `./${name}`).sort()).toEqual(
      Object.keys(manifest.exports).filter((name) => name !== ".").sort()
    )
  })
})

/** What the table must say of a failure: that it is retried always, never, or only with certain problems. */
const retried = (tag: string): string => {
  const problems = ["truncated", "size", "checksum", "frame"]
  const passing = problems.filter((problem) =>
    StorageError.isRetryable(
      Schema.decodeUnknownSync(StorageError.StorageError)({
        _tag: tag,
        backend: "Memory",
        operation: "load",
        key: "key",
        module: "MemoryStorage",
        option: "none",
        reason: "because",
        limit: Schema.encodeSync(Schema.Duration)(Duration.seconds(1)),
        problem
      })
    )
  )
  return passing.length === problems.length ? "yes" : passing.length === 0 ? "no" : `if ${passing.join(" or ")}`
}
