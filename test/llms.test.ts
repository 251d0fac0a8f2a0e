/**
 * llms.txt is what `npm run llms` makes of the README, the guides and the examples.
 */
import { describe, expect, it } from "@effect/vitest"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { llms } from "./support/llms.js"

const root = resolve(import.meta.dirname, "..")

describe("llms.txt", () => {
  const text = readFileSync(join(root, "llms.txt"), "utf8")
  const links = [...text.matchAll(/^- \[(.*)\]\(https:\/\/github\.com\/[^/]+\/[^/]+\/blob\/main\/(.*?)\)(: .*)?$/gm)]
    .map(
      ([, title = "", path = "", description = ""]) => ({ title, path, description })
    )

  it("is up to date (npm run llms)", () => {
    expect(text).toBe(llms())
  })

  it("links to the README and to every guide and example, each of which exists and is described", () => {
    const examples = readdirSync(join(root, "examples")).filter((file) => /\.(md|ts)$/.test(file))
    expect(links.map(({ path }) => path).sort()).toEqual(
      ["README.md", "CHANGELOG.md", ...examples.map((file) => `examples/${file}`)].sort()
    )
    expect(links.filter(({ path }) => !existsSync(join(root, path)))).toEqual([])
    expect(links.filter(({ description, title }) => title === "" || !/^: .*\.$/.test(description))).toEqual([])
  })

  it("begins with the name and a summary, as llmstxt.org asks for", () => {
    expect(text).toMatch(/^# surfing-weights\n\n> \S.*\n\n/)
  })
})
