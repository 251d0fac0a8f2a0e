/**
 * `npm run llms`: writes `llms.txt` (https://llmstxt.org), by which language models find their way: what the package is, its
 * guides and its examples, each with the first sentence that it says of itself.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import manifest from "../../package.json" with { type: "json" }

const root = resolve(import.meta.dirname, "../..")

const base = `${manifest.homepage.replace(/#.*$/, "")}/blob/main`

const read = (path: string): string => readFileSync(join(root, path), "utf8").replaceAll("\r\n", "\n")

/** Markdown as one line of plain text: links become their texts. */
const plain = (markdown: string): string =>
  markdown.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll(/\s+/g, " ").trim()

/** The first sentence. A full stop after an abbreviation such as "e.g." does not end it. */
const firstSentence = (text: string): string => /^.*?[^.\s]{3}\.(?= [A-Z`[]|$)/.exec(text)?.[0] ?? text

/** The first paragraph of prose after the title of a page. */
const firstParagraph = (markdown: string): string =>
  plain(
    markdown.split(/\n{2,}/).find((block) => !/^(#|<|```|\||!\[|[-*] )/.test(block.trim()) && block.trim() !== "") ?? ""
  )

const titleOf = (markdown: string): string => plain(/^# (.*)$/m.exec(markdown)?.[1] ?? "")

/** What a program says of itself in the comment at its top. */
const commentOf = (code: string): string =>
  plain((/^\/\*\*([^]*?)\*\//.exec(code)?.[1] ?? "").replaceAll(/^ *\* ?/gm, ""))

const link = (title: string, path: string, description: string): string =>
  `- [${title}](${base}/${path})${description === "" ? "" : `: ${firstSentence(description)}`}`

/** The text of the file. */
export const llms = (): string => {
  const readme = read("README.md")
  const examples = readdirSync(join(root, "examples")).sort()
  const section = (title: string, links: ReadonlyArray<string>) => [`## ${title}`, links.join("\n")]
  const guides = examples.filter((file) => file.endsWith(".md")).map((file) => {
    const path = `examples/${file}`
    const guide = read(path)
    return link(titleOf(guide), path, firstParagraph(guide))
  })
  const programs = examples.filter((file) => file.endsWith(".ts")).map((file) =>
    link(file, `examples/${file}`, commentOf(read(`examples/${file}`)))
  )
  const blocks = [
    `# ${manifest.name}`,
    `> ${firstParagraph(readme)}`,
    "It is for Effect 3 and ESM only; the README says how to install it and its peer dependencies. Each public module is " +
    `imported by its name, as in \`${manifest.name}/S3Storage\`, or from \`${manifest.name}\` with the others.`,
    ...section("Docs", [link("README", "README.md", firstParagraph(readme)), ...guides]),
    ...section("Examples", programs),
    ...section("Optional", [link("Changelog", "CHANGELOG.md", "What has changed, version by version.")])
  ]
  return `${blocks.join("\n\n")}\n`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) writeFileSync(join(root, "llms.txt"), llms())
