/**
 * The README and the guides in examples/ show code that is compiled and run, link to what exists, and name options, commands and
 * failures as the code has them.
 */
import { describe, expect, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { StorageError } from "surfing-weights"
import ts from "typescript"
import manifest from "../package.json" with { type: "json" }

const root = resolve(import.meta.dirname, "..")

const read = (file: string): string => readFileSync(join(root, file), "utf8")

const namesIn = (folder: string, ending: string): ReadonlyArray<string> =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(ending))
    .map((name) => `${folder}/${name}`)
    .sort()

interface Block {
  readonly language: string
  readonly code: string
  /** The file, and perhaps a region of it, that the code is from, as named in a comment above it. */
  readonly source: string | undefined
}

const blocksOf = (text: string): ReadonlyArray<Block> =>
  [...text.matchAll(/(?:^<!-- (.*) -->\n\n)?^```(.*)\n([^]*?)\n```$/gm)].map(
    ([, source, language = "", code = ""]) => ({ language, code, source })
  )

/** A file, or the lines in it between `#region name` and the next `#endregion`, moved to the left margin. */
const excerpt = (source: string): string => {
  const [file = "", name] = source.split("#")
  const lines = read(file).split("\n")
  if (name === undefined) return lines.join("\n").trimEnd()
  const isMark = (line: string, mark: string) => /^\s*(?:\/\/|#|<!--) (#.*?)(?: -->)?$/.exec(line)?.[1] === mark
  const start = lines.findIndex((line) => isMark(line, `#region ${name}`))
  const length = lines.slice(start + 1).findIndex((line) => isMark(line, "#endregion"))
  if (start === -1 || length === -1) return `there is no region ${name} in ${file}`
  const code = lines.slice(start + 1, start + 1 + length)
  const margin = Math.min(...code.filter((line) => line !== "").map((line) => line.search(/\S/)))
  return code.map((line) => line.slice(margin)).join("\n")
}

/** The anchors of the headings of a page, as GitHub makes them. */
const anchorsOf = (text: string): ReadonlyArray<string> =>
  [...text.replaceAll(/^```[^]*?^```$/gm, "").matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
  )

/** The members of an interface, also of those that it extends in the same file. */
const membersOf = (file: string, name: string): ReadonlyArray<string> => {
  const source = ts.createSourceFile(file, read(file), ts.ScriptTarget.Latest)
  const found = source.statements.filter(ts.isInterfaceDeclaration).find((node) => node.name.text === name)
  if (found === undefined) return [`there is no interface ${name} in ${file}`]
  const own = found.members.flatMap((member) =>
    member.name !== undefined && ts.isIdentifier(member.name) ? member.name.text : []
  )
  const extended = (found.heritageClauses ?? []).flatMap(({ types }) => types).map(({ expression }) => expression)
  return [...own, ...extended.filter(ts.isIdentifier).flatMap(({ text }) => membersOf(file, text))]
}

const flags = new Set(
  namesIn("src/command", ".ts").flatMap((file) =>
    [...read(file).matchAll(/(?:flag|texts?|Options\.\w+)\(\s*"([\w-]+)"/g)].map(([, name]) => `--${name}`)
  )
).add("--help").add("--version").add("--completions")

const commands = new Set([...read("src/command/commands.ts").matchAll(/define\(\s*"(\w+)"/g)].map(([, name]) => name))

/** What each language's snippets must be from: a file, where there are several ways to write it. */
const sources: Readonly<Record<string, RegExp>> = {
  ts: /^(?:examples\/[\w/-]+\.tsx?|test\/[\w/.-]+\.test\.ts)(?:#[\w-]+)?$/,
  html: /^examples\/[\w/-]+\.html(?:#[\w-]+)?$/,
  dockerfile: /^examples\/Dockerfile$/,
  ini: /^examples\/[\w-]+\.service$/,
  nginx: /^(?:examples|test\/support)\/[\w-]+\.conf(?:#[\w-]+)?$/
}

for (const page of ["README.md", ...namesIn("examples", ".md")]) {
  const text = read(page)
  const blocks = blocksOf(text)

  describe(page, () => {
    it("has every snippet from a file that is compiled and run", () => {
      expect(text.match(/^```/gm) ?? []).toHaveLength(2 * blocks.length)
      for (const { code, language, source } of blocks) {
        const expected = sources[language]
        if (expected === undefined) {
          // What is typed into a shell, and what is printed; a test runs the Python code.
          expect(["sh", "", "text", "json", "python"], code).toContain(language)
        } else {
          expect(source, code).toMatch(expected)
          expect(code, source).toBe(excerpt(source ?? ""))
        }
      }
    })

    it("links only to what exists", () => {
      for (const [, file = "", anchor] of text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)) {
        const target = file === "" ? page : join(dirname(page), file)
        expect(existsSync(join(root, target)), target).toBe(true)
        if (anchor !== undefined) expect(anchorsOf(read(target)), target).toContain(anchor)
      }
    })

    it("names only npm scripts, commands and flags that exist", () => {
      const scripts = [...text.matchAll(/npm run (?:--silent )?([\w:]+)/g)].map(([, name]) => name)
      expect(Object.keys(manifest.scripts)).toEqual(expect.arrayContaining(scripts))
      const lines = blocks.flatMap(({ code, language }) =>
        ["sh", "text", ""].includes(language) ? code.replaceAll("\\\n", "").split("\n") : []
      )
      for (const line of lines) {
        const [, rest] = /(?:(?:npx|\$) surfing-weights|npm run (?:--silent )?weights --)(.*)$/.exec(line) ?? []
        if (rest === undefined) continue
        const [command] = rest.trim().split(/\s/)
        if (command?.startsWith("-") === false) expect([...commands], line).toContain(command)
        for (const [flag] of rest.matchAll(/(?<=\s)--[\w-]+/g)) expect([...flags], line).toContain(flag)
      }
      // In the text, a flag is one of this command.
      const prose = text.replaceAll(/^```[^]*?^```$/gm, "")
      for (const [flag] of prose.matchAll(/(?<=`)--[\w-]+/g)) expect([...flags], page).toContain(flag)
    })

    // A table of options has a comment above it that names them: <!-- options src/backends/S3Storage.ts Options -->
    const tables = [...text.matchAll(/^<!-- options (\S+) (\w+) -->\n\n((?:\|.*\n)+)/gm)]
    it.skipIf(tables.length === 0)("lists the options that each module has", () => {
      for (const [, file = "", name = "", table = ""] of tables) {
        const named = [...table.matchAll(/^\| `(\w+)\??`/gm)].map(([, option]) => option)
        expect(named.sort(), `${name} of ${file}`).toEqual([...new Set(membersOf(file, name))].sort())
      }
    })
  })
}

describe("README.md", () => {
  it("shows the commands for the quickstart and the tests", () => {
    const shown = blocksOf(read("README.md")).filter(({ language }) => language === "sh").map(({ code }) => code)
    expect(shown).toEqual(expect.arrayContaining(["npm ci && npm run quickstart", "npm ci && npm test"]))
  })

  it("has at most 200 lines", () => {
    expect(read("README.md").split("\n").length).toBeLessThanOrEqual(201)
  })

  it("links to every guide", () => {
    const linked = [...read("README.md").matchAll(/\]\((examples\/[\w-]+\.md)\)/g)].map(([, guide]) => guide)
    expect(linked).toEqual(expect.arrayContaining([...namesIn("examples", ".md")]))
  })
})

describe("The guide to failures", () => {
  it("lists every failure, and whether it is retried", () => {
    const guide = read("examples/retries-and-failures.md")
    const rows = [...guide.matchAll(/^\| `(\w+)` \| .+ \| (yes|no|if .+) \|$/gm)].map((
      [, tag, retried]
    ) => [tag, retried])
    expect(rows).toEqual(StorageError.StorageError.members.map(({ _tag }) => [_tag, retried(_tag)]))
  })
})

describe("The guide for contributors", () => {
  it("lists every public module in the tree of src/", () => {
    const [drawing = ""] = blocksOf(read("examples/contributing.md")).map(({ code }) => code).filter((code) =>
      code.startsWith("src/")
    )
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
