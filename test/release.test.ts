/**
 * What is released: the workflows, the version and the changelog agree.
 */
import { describe, expect, it } from "@effect/vitest"
import { Schema } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { parse } from "yaml"
import lock from "../package-lock.json" with { type: "json" }
import manifest from "../package.json" with { type: "json" }
import { problemsOf } from "./support/release.js"

const root = resolve(import.meta.dirname, "..")
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const changelog = read("CHANGELOG.md")

const Workflow = Schema.Struct({
  permissions: Schema.Struct({ contents: Schema.Literal("read") }),
  jobs: Schema.Record({
    key: Schema.String,
    value: Schema.Struct({
      permissions: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String })),
      steps: Schema.Array(Schema.Struct({ uses: Schema.optional(Schema.String), run: Schema.optional(Schema.String) }))
    })
  })
})

const workflows = readdirSync(join(root, ".github/workflows")).map((file) => {
  const { jobs } = Schema.decodeUnknownSync(Workflow)(parse(read(`.github/workflows/${file}`)))
  return { file, jobs: Object.values(jobs), steps: Object.values(jobs).flatMap(({ steps }) => steps) }
})

describe("the workflows", () => {
  it("run only scripts that package.json has, and files that exist", () => {
    const commands = workflows.flatMap(({ steps }) => steps.flatMap(({ run }) => run ?? []))
    const unknown = commands.filter((command) => {
      const [, script = ""] = /^npm run ([\w:]+)( --.*)?$/.exec(command) ?? []
      return !Object.keys(manifest.scripts).includes(script) &&
        !/^npm (ci|publish --provenance --access public)$/.test(command) &&
        !existsSync(join(root, command))
    })
    expect(unknown).toEqual([])
    expect(commands).toEqual(expect.arrayContaining([".ci/run", "npm run test:all"]))
  })

  it("pin each action by its commit", () => {
    const actions = workflows.flatMap(({ steps }) => steps.flatMap(({ uses }) => uses ?? []))
    expect(actions.length).toBeGreaterThan(0)
    expect(actions.filter((action) => !/^[\w-]+\/[\w-]+@[0-9a-f]{40}$/.test(action))).toEqual([])
  })

  it("give only the release an identity, and publish after the version and the tests are checked", () => {
    const identified = workflows.filter(({ jobs }) =>
      jobs.some(({ permissions }) => permissions?.["id-token"] === "write")
    )
    expect(identified.map(({ file }) => file)).toEqual(["release.yml"])
    const runs = identified.flatMap(({ steps }) => steps.flatMap(({ run }) => run ?? []))
    expect(runs).toEqual([
      "npm ci",
      "npm run release:check -- \"$GITHUB_REF_NAME\"",
      "npm run test:all",
      "npm run check",
      "npm publish --provenance --access public"
    ])
  })
})

describe("the version", () => {
  const { version } = manifest

  it("is the same in package.json, its lock file, the README and at the top of the changelog", () => {
    expect([lock.version, lock.packages[""].version]).toEqual([version, version])
    expect(/surfing-weights-(\d+\.\d+\.\d+)\.tgz/.exec(read("README.md"))?.[1] ?? version).toBe(version)
    expect(/^## \[(.*?)\]/m.exec(changelog)?.[1]).toBe(version)
    expect(problemsOf(`v${version}`, version, changelog)).toEqual([])
  })

  it("is not released under another tag, or without its part of the changelog", () => {
    expect(problemsOf("v9.9.9", version, changelog)).toEqual([expect.stringContaining("(got v9.9.9)")])
    expect(problemsOf("v9.9.9", "9.9.9", changelog)).toEqual([
      expect.stringContaining("must have a section"),
      expect.stringContaining("must have a link")
    ])
    const empty = "## [1.0.0] - 2027-01-01\n\n## [0.9.0] - 2026-12-01\n\n- Something\n\n[1.0.0]: https://example.com\n"
    expect(problemsOf("v1.0.0", "1.0.0", empty)).toEqual([expect.stringContaining("must list what has changed")])
  })
})
