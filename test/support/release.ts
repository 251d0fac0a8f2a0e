/**
 * `npm run release:check -- v1.2.3`: whether this version can be released under that tag.
 */
import { readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import manifest from "../../package.json" with { type: "json" }

const root = resolve(import.meta.dirname, "../..")

/** What is wrong with a release of a version under a tag. */
export const problemsOf = (tag: string, version: string, changelog: string): ReadonlyArray<string> => {
  const section = changelog.split(/^(?=## )/m).find((section) => section.startsWith(`## [${version}] - `))
  return [
    ...(tag === `v${version}` ? [] : [`the tag must be v${version}, as in package.json (got ${tag})`]),
    ...(section === undefined
      ? [`CHANGELOG.md must have a section "## [${version}] - <date>"`]
      : /^- /m.test(section)
      ? []
      : [`the section of ${version} in CHANGELOG.md must list what has changed`]),
    ...(changelog.includes(`\n[${version}]: https://`) ? [] : [`CHANGELOG.md must have a link for [${version}]`])
  ]
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const problems = problemsOf(process.argv[2] ?? "", manifest.version, readFileSync(join(root, "CHANGELOG.md"), "utf8"))
  for (const problem of problems) console.error(problem)
  if (problems.length > 0) process.exitCode = 1
}
