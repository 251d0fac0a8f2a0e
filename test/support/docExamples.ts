/**
 * Type-checks every `ts` block in the doc comments of src/, so that what the API docs show compiles. Each block is a
 * module of its own and imports the package by its name.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join, relative, resolve } from "node:path"
import ts from "typescript"

const root = resolve(import.meta.dirname, "../..")

// A block keeps its line numbers: what comes before it in the file is blank.
const blocks = (path: string): ReadonlyArray<readonly [name: string, code: string]> => {
  const lines = readFileSync(path, "utf8").split("\n")
  return lines.flatMap((line, start) => {
    if (!/^\s*\* ```ts$/.test(line)) return []
    const length = lines.slice(start + 1).findIndex((line) => /^\s*\* ```$/.test(line))
    const code = lines.slice(start + 1, start + 1 + length).map((line) => line.replace(/^\s*\* ?/, ""))
    return [[`${path}.${start + 1}.ts`, "\n".repeat(start + 1) + code.join("\n")] as const]
  })
}

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => join(root, "src", path))
const examples = new Map(sources.flatMap(blocks))

const config = ts.readConfigFile(join(root, "tsconfig.json"), (path) => ts.sys.readFile(path))
const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root, { noUnusedLocals: false })
const host = ts.createCompilerHost(options)
host.fileExists = (path) => examples.has(path) || ts.sys.fileExists(path)
host.readFile = (path) => examples.get(path) ?? ts.sys.readFile(path)

const program = ts.createProgram([...examples.keys()], options, host)
const problems = [...examples.keys()].flatMap((name) => {
  const file = program.getSourceFile(name)
  return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]
})
const withoutCode = sources.flatMap((path) => {
  const text = readFileSync(path, "utf8")
  return [...text.matchAll(/^\s*\* @example\n(?!\s*\* ```ts\n)/gm)].map(({ index }) =>
    `${relative(root, path)}:${text.slice(0, index).split("\n").length} an @example that does not begin with a ts block`
  )
})

const report = [
  ...problems.map(({ file, messageText, start = 0 }) => {
    const path = relative(root, file?.fileName ?? "").replace(/\.\d+\.ts$/, "")
    const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start).line + 1
    return `${path}:${line} ${ts.flattenDiagnosticMessageText(messageText, "\n")}`
  }),
  ...withoutCode
]
console.log([...report, `${examples.size} examples in doc comments, ${report.length} problems`].join("\n"))
if (report.length > 0) process.exitCode = 1
