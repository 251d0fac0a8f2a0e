/**
 * The package in what its users have: the compilers, runtimes and bundlers that it does not use itself. They are installed
 * into a temporary directory; those that cannot be are skipped by name.
 */
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import { build } from "esbuild"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { installPacked, publicModules, run } from "./support/packed.js"

const root = resolve(import.meta.dirname, "..")

const tools = await realpath(await mkdtemp(join(tmpdir(), "surfing-weights-tools-")))

/** Installs packages into a folder of their own; returns its packages, or nothing where they cannot be had. */
const install = async (name: string, scripts: ReadonlyArray<string>, ...packages: ReadonlyArray<string>) => {
  const folder = join(tools, name)
  await mkdir(folder)
  const allowScripts = Object.fromEntries(scripts.map((name) => [name, true]))
  await writeFile(join(folder, "package.json"), JSON.stringify({ private: true, allowScripts }))
  const flags = ["--no-audit", "--no-fund", "--loglevel=error"]
  return run(folder, "npm", "install", ...flags, ...packages).then(
    () => join(folder, "node_modules"),
    () => undefined
  )
}

/** Where a file of packages is, if they could be installed. */
const fileIn = (folder: string | undefined, path: string): string | undefined =>
  folder !== undefined && existsSync(join(folder, path)) ? join(folder, path) : undefined

// The oldest and the newest; what is between is that of the project, in package.all.test.ts.
const compilers = ["5.7", "latest"].map((version) => [version, `typescript-${version}`] as const)

const [compilerFolder, node22, node24, webpackFolder, hasRuntimes] = await Promise.all([
  install("typescript", [], ...compilers.map(([version, name]) => `${name}@npm:typescript@${version}`)),
  install("node22", ["node"], "node@22"),
  install("node24", ["node"], "node@24"),
  install("webpack", [], "webpack@5"),
  run(root, "npx", "tsx", "test/support/install.ts", "test/runtimes").then(() => true, () => false)
])

let consumer = ""
let remove = () => Promise.resolve()

beforeAll(async () => {
  ;({ consumer, remove } = await installPacked())
})

afterAll(async () => {
  await remove()
  await rm(tools, { recursive: true, force: true })
})

/** A test that needs a program; without it, its title says that it was skipped. */
const withProgram = (title: string, program: string | undefined, body: (program: string) => Promise<void>): void =>
  it.skipIf(program === undefined)(
    program === undefined ? `${title} (skipped: it could not be installed)` : title,
    () => body(program ?? "")
  )

// It saves, streams, lists and fails, by modules of their own names and from the barrel.
const portable = `import { Chunk, Effect, Stream } from "effect"
import { ByteRange, Storage } from "surfing-weights"
import * as MemoryStorage from "surfing-weights/MemoryStorage"
import * as StorageCache from "surfing-weights/StorageCache"

const program = Effect.gen(function*() {
  const data = new Uint8Array([1, 2, 3, 4])
  yield* Storage.save("a/b", Stream.make(data.subarray(0, 2), data.subarray(2)))
  const last = yield* Storage.load("a/b", { range: ByteRange.last(2) })
  const streamed = Chunk.reduce(yield* Stream.runCollect(Storage.stream("a/b")), 0, (sum, part) => sum + part.length)
  const missing = yield* Effect.flip(Storage.load("none"))
  return [...last, streamed, ...(yield* Storage.list()), missing._tag].join(" ")
})
`

const result = "3 4 4 a/b ObjectNotFound"

const onMemory = `${portable}
console.log(await Effect.runPromise(program.pipe(
  Effect.provide(StorageCache.layer({ capacity: 1024 })),
  Effect.provide(MemoryStorage.layer())
)))
`

/** The same on files, in the directory that is its last argument. */
const onFiles = `import * as FileSystemStorage from "surfing-weights/FileSystemStorage"
${portable}
const [directory = ""] = process.argv.slice(-1)
console.log(await Effect.runPromise(Effect.provide(program, FileSystemStorage.layer({ directory }))))
`

describe("declarations", () => {
  const resolutions = [
    { module: "nodenext", moduleResolution: "nodenext" },
    { module: "esnext", moduleResolution: "bundler" }
  ]

  /** What a compiler says of a program that uses every module, with nothing left unchecked. */
  const check = async (
    tsc: string,
    name: string,
    resolution: (typeof resolutions)[number]
  ): Promise<ReadonlyArray<string>> => {
    const config = `tsconfig.${name}.${resolution.moduleResolution}.json`
    const compilerOptions = {
      ...resolution,
      target: "es2022",
      lib: ["es2023"],
      types: ["node"],
      typeRoots: [join(root, "node_modules/@types")],
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true
    }
    await writeFile(join(consumer, config), JSON.stringify({ compilerOptions, files: ["every.ts"] }))
    const output = await run(consumer, process.execPath, tsc, "-p", config, "--pretty", "false").catch(
      ({ stdout }: { readonly stdout: string }) => stdout
    )
    return output.split("\n").filter((line) => line !== "")
  }

  beforeAll(async () => {
    // StorageContract needs Vitest.
    const modules = (await publicModules()).map(([name]) => name).filter((name) => name !== "StorageContract")
    await writeFile(
      join(consumer, "every.ts"),
      `${modules.map((name) => `export * as ${name} from "surfing-weights/${name}"`).join("\n")}
${onMemory}
// @ts-expect-error the wrong type is noticed, so declarations are found, and are not any
Storage.load(1)
`
    )
  })

  const programs = [
    ["5.9", join(root, "node_modules/typescript/bin/tsc")] as const,
    ...compilers.map(([version, name]) => [version, fileIn(compilerFolder, `${name}/bin/tsc`)] as const)
  ]
  for (const [version, program] of programs) {
    withProgram(
      `compile with TypeScript ${version}, as NodeNext and Bundler, without skipLibCheck`,
      program,
      async (tsc) => {
        const said = await run(consumer, process.execPath, tsc, "--version")
        expect(said).toMatch(version === "latest" ? /^Version \d/ : new RegExp(`^Version ${version}\\.`))
        const lines = await Promise.all(resolutions.map((resolution) => check(tsc, version, resolution)))
        // Errors in the declarations of others are theirs to mend. Lines of explanation are indented.
        const isTheirs = (line: string) =>
          /^\s/.test(line) || /node_modules\/(?!surfing-weights\/)[^:]*\.d\.[mc]?ts\(\d/.test(line)
        expect(lines.flat().filter((line) => !isTheirs(line))).toEqual([])
      }
    )
  }
})

describe("the package runs", () => {
  const runtime = (name: string) =>
    hasRuntimes ? fileIn(join(root, "test/runtimes/node_modules"), `.bin/${name}`) : undefined
  const node = (folder: string | undefined) => fileIn(folder, "node/bin/node")
  const programs = [
    [`Node ${process.versions.node}`, process.execPath, []] as const,
    ["Node 22", node(node22), []] as const,
    ["Node 24", node(node24), []] as const,
    ["Bun", runtime("bun"), []] as const,
    ["Deno", runtime("deno"), ["run", "--allow-all", "--quiet"]] as const
  ]
  for (const [name, program, args] of programs) {
    withProgram(`under ${name}, from node_modules, on memory and on files`, program, async (program) => {
      await writeFile(join(consumer, "memory.mjs"), onMemory)
      await writeFile(join(consumer, "files.mjs"), onFiles)
      expect(await run(consumer, program, ...args, "memory.mjs")).toBe(`${result}\n`)
      const directory = join(consumer, `files-${name.replaceAll(" ", "-")}`)
      expect(await run(consumer, program, ...args, "files.mjs", directory)).toBe(`${result}\n`)
      expect(existsSync(join(directory, "a/b"))).toBe(true)
    })
  }
})

describe("the package is bundled", () => {
  it("for Node by esbuild, with files, and runs alone", async () => {
    const folder = await mkdtemp(join(tools, "esbuild-"))
    const outfile = join(folder, "app.mjs")
    const { warnings } = await build({
      stdin: { contents: onFiles, resolveDir: consumer },
      bundle: true,
      format: "esm",
      platform: "node",
      external: ["@aws-sdk/*"],
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
      outfile,
      logLevel: "silent"
    })
    expect(warnings).toEqual([])
    expect(await run(folder, process.execPath, outfile, join(folder, "weights"))).toBe(`${result}\n`)
  })

  withProgram(
    "for browsers by webpack, without a warning, and runs",
    fileIn(webpackFolder, "webpack/lib/index.js"),
    async (webpack) => {
      await writeFile(join(consumer, "webpack-app.mjs"), onMemory)
      const configuration = {
        mode: "production",
        context: consumer,
        entry: "./webpack-app.mjs",
        target: ["web", "es2022"],
        experiments: { outputModule: true },
        output: { path: join(consumer, "webpacked"), filename: "main.mjs", module: true },
        performance: { hints: false }
      }
      await writeFile(
        join(consumer, "webpack.cjs"),
        `require(${JSON.stringify(webpack)})(${JSON.stringify(configuration)}, (error, stats) => {
  const { errors, warnings } = error ? { errors: [error], warnings: [] } : stats.toJson({ errors: true, warnings: true })
  console.log(JSON.stringify([...errors, ...warnings].map(({ message }) => message)))
})
`
      )
      expect(await run(consumer, process.execPath, "webpack.cjs")).toBe("[]\n")
      expect(await run(consumer, process.execPath, "webpacked/main.mjs")).toBe(`${result}\n`)
    }
  )
})
