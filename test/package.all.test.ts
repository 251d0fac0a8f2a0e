/**
 * The package as its users get it: built, packed, installed into an empty project beside `effect` and
 * `@effect/platform`, and used from there by plain Node and by the TypeScript compiler.
 */
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises"
import { dirname, join, relative, resolve } from "node:path"
import { build as viteBuild, createLogger, createServer } from "vite"
import manifest from "../package.json" with { type: "json" }
import { installPacked, publicModules, run } from "./support/packed.js"

const root = resolve(import.meta.dirname, "..")
const tsc = join(root, "node_modules/typescript/bin/tsc")

let consumer = ""
let packed: ReadonlyArray<string> = []
let remove = () => Promise.resolve()

beforeAll(async () => {
  ;({ consumer, remove } = await installPacked())
  const installed = join(consumer, "node_modules/surfing-weights")
  packed = (await readdir(installed, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => relative(installed, join(entry.parentPath, entry.name)))
})

afterAll(() => remove())

describe("the package", () => {
  it("exports the barrel and every public module by its bare name, and nothing else", async () => {
    const files = (path: string) => ({ types: `./dist/${path}.d.ts`, default: `./dist/${path}.js` })
    expect(manifest.exports).toEqual({
      ".": { browser: files("index.browser"), ...files("index") },
      ...Object.fromEntries((await publicModules()).map(([name, path]) => [`./${name}`, files(path)]))
    })
  })

  it.each([
    ["index", ["StorageContract"]],
    ["index.browser", ["FileSystemStorage", "S3Storage", "StorageContract"]]
  ])("has in %s every public module but %j, each as a namespace, and nothing else", async (barrel, missing) => {
    const text = (await readFile(join(root, "src", `${barrel}.ts`), "utf8")).replaceAll(/\/\*\*.*?\*\//gs, "")
    expect(text.split("\n").filter((line) => line !== "").sort()).toEqual(
      (await publicModules())
        .filter(([name]) => !missing.includes(name))
        .map(([name, path]) => `export * as ${name} from "./${path}.js"`)
        .sort()
    )
  })

  it("ships compiled code, declarations, the maps of both, the sources they lead to and pages, and nothing else", async () => {
    const sources = (await readdir(join(root, "src"), { recursive: true }))
      .filter((path) => path.endsWith(".ts"))
      .map((path) => path.slice(0, -".ts".length))
    expect([...packed].sort()).toEqual([
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "llms.txt",
      "package.json",
      ...sources.map((path) => `src/${path}.ts`),
      ...sources.flatMap((path) => [".js", ".js.map", ".d.ts", ".d.ts.map"].map((end) => `dist/${path}${end}`))
    ].sort())
    for (const path of packed.filter((path) => path.endsWith(".map"))) {
      const map = await readFile(join(consumer, "node_modules/surfing-weights", path), "utf8")
      const [, source = ""] = /"sources":\["(.*?)"\]/.exec(map) ?? []
      expect(packed).toContain(join(dirname(path), source))
    }
  })

  it("type-checks and runs in a project that has only its required peers", async () => {
    await writeFile(
      join(consumer, "index.ts"),
      `import { Effect, Stream } from "effect"
import * as barrel from "surfing-weights"
import * as ByteRange from "surfing-weights/ByteRange"
import * as MemoryStorage from "surfing-weights/MemoryStorage"
import * as Storage from "surfing-weights/Storage"
import type { ListError, LoadError } from "surfing-weights/StorageError"

const saved: Effect.Effect<Uint8Array, LoadError | barrel.StorageError.SaveError, Storage.Storage> = Effect.zipRight(
  barrel.Storage.save("a/b", Stream.make(new Uint8Array([1, 2, 3]))),
  Storage.load("a/b", { range: ByteRange.last(2) })
)
const keys: Effect.Effect<ReadonlyArray<string>, ListError, Storage.Storage> = Storage.list()

// @ts-expect-error a load can fail
const cannotFail: Effect.Effect<Uint8Array, never, Storage.Storage> = Storage.load("a/b")
// @ts-expect-error a key is a string
Storage.load(1)
// @ts-expect-error what is internal cannot be imported
await import("surfing-weights/internal/bytes").catch((error: { readonly code: string }) => console.log(error.code))

console.log(Object.keys(barrel).join())
console.log(await Effect.runPromise(Effect.all([saved, keys]).pipe(Effect.provide(MemoryStorage.layer()))))
`
    )
    await writeFile(
      join(consumer, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          module: "nodenext",
          target: "es2022",
          lib: ["es2023"],
          strict: true,
          exactOptionalPropertyTypes: true,
          skipLibCheck: true,
          types: []
        }
      })
    )
    await writeFile(join(consumer, "console.d.ts"), "declare const console: { log(...values: Array<unknown>): void }")
    await run(consumer, process.execPath, tsc, "-p", ".").catch(({ stdout }: { readonly stdout: string }) =>
      expect.unreachable(stdout)
    )
    expect((await run(consumer, process.execPath, "index.js")).split("\n")).toEqual([
      "ERR_PACKAGE_PATH_NOT_EXPORTED",
      (await publicModules()).map(([name]) => name).filter((name) => name !== "StorageContract").join(),
      "[ Uint8Array(2) [ 2, 3 ], [ 'a/b' ] ]",
      ""
    ])
  })

  it("has a command that runs where it is installed", async () => {
    await writeFile(join(consumer, "weights.bin"), "weights")
    const command = (...args: ReadonlyArray<string>) => run(consumer, "npx", "--no-install", "surfing-weights", ...args)
    expect(await command("--version")).toBe(`${manifest.version}\n`)
    expect(await command("cp", "weights.bin", "copies/")).toBe("copied 7 B to copies/weights.bin\n")
    expect(await command("cat", "copies/weights.bin")).toBe("weights")
  })

  it.each([
    ["the container", "Dockerfile", /^CMD (\[.*\])$/m],
    ["the service of systemd", "surfing-weights.service", /^ExecStart=(.*)$/m]
  ])("has the program that %s starts, which a signal ends well", async (_, file, pattern) => {
    const line = pattern.exec(await readFile(join(root, "examples", file), "utf8"))?.[1] ?? ""
    const [, program = "", ...args] = line.startsWith("[") ? JSON.parse(line) as Array<string> : line.split(" ")
    const installed = program.replace(/^\/opt\/weights\//, "")
    const served = args.map((arg) => /^\/(srv\/)?weights$/.test(arg) ? join(consumer, "served") : arg)
    await mkdir(join(consumer, "served"), { recursive: true })
    const server = spawn(process.execPath, [installed, ...served, "--port", "0"], { cwd: consumer })
    const exited = once(server, "exit")
    let log = ""
    server.stderr.on("data", (text: Buffer) => {
      const wasListening = log.includes("listening on")
      log += text.toString()
      if (!wasListening && log.includes("listening on")) server.kill("SIGTERM")
    })
    expect([await exited, log]).toEqual([[0, null], expect.stringContaining("served")])
  })

  it.each([
    ["a runtime's types and no DOM", ["es2023"], ["node"]],
    ["the DOM and no runtime's types", ["es2023", "dom"], []]
  ])("has declarations that compile without skipLibCheck, with %s, and without the AWS SDK", async (_, lib, types) => {
    await writeFile(join(consumer, "all.ts"), "export * from \"surfing-weights\"\n")
    await writeFile(
      join(consumer, "tsconfig.declarations.json"),
      JSON.stringify({
        compilerOptions: {
          module: "nodenext",
          target: "es2022",
          lib,
          types,
          typeRoots: [join(root, "node_modules/@types")],
          strict: true,
          exactOptionalPropertyTypes: true,
          skipLibCheck: false,
          noEmit: true
        },
        files: ["all.ts"]
      })
    )
    const output = await run(consumer, process.execPath, tsc, "-p", "tsconfig.declarations.json").catch(
      ({ stdout }: { readonly stdout: string }) => stdout
    )
    // The declarations of others are theirs to mend.
    const ours = output.split("\n").filter((line) => line.startsWith("node_modules/surfing-weights/"))
    expect(ours).toEqual([])
  })

  const bundle = async (contents: string) => {
    const bundled = await build({
      stdin: { contents, resolveDir: consumer },
      bundle: true,
      format: "esm",
      platform: "browser",
      splitting: true,
      outdir: consumer,
      write: false,
      metafile: true,
      logLevel: "silent"
    })
    expect(bundled.warnings).toEqual([])
    const outputs = Object.values(bundled.metafile.outputs)
    expect(outputs.flatMap(({ imports }) => imports).filter(({ external }) => external)).toEqual([])
    return { exports: outputs.flatMap(({ exports }) => exports), inputs: Object.keys(bundled.metafile.inputs) }
  }

  // StorageContract needs Vitest.
  const forNode = ["FileSystemStorage", "S3Storage", "StorageContract"]

  const forBrowsers = async () =>
    (await publicModules()).map(([name]) => name).filter((name) => !forNode.includes(name))

  it("is bundled for browsers by esbuild, module by module and by its barrel, without anything of Node", async () => {
    const modules = await forBrowsers()
    const one = await bundle(modules.map((name) => `export * as ${name} from "surfing-weights/${name}"`).join("\n"))
    expect(one.exports).toEqual(expect.arrayContaining(modules))
    const barrel = await bundle("export * from \"surfing-weights\"")
    expect(barrel.exports).toEqual(expect.arrayContaining(modules))
    expect(barrel.inputs.filter((path) => /backends\/(FileSystem|S3|fileSystem|s3)/.test(path))).toEqual([])
  })

  it("is bundled for browsers by Vite, in its build and in its development server", async () => {
    const app = join(consumer, "app")
    await mkdir(app, { recursive: true })
    await writeFile(join(app, "index.html"), "<script type=\"module\" src=\"/main.js\"></script>")
    await writeFile(
      join(app, "main.js"),
      `import { Effect } from "effect"
import { HttpStorage, Storage, StorageCache } from "surfing-weights"

console.log(HttpStorage, StorageCache, await Effect.runPromise(Effect.provide(Storage.list(), Storage.layerUrl("memory:"))))
`
    )
    const warnings: Array<string> = []
    const customLogger = createLogger("warn")
    customLogger.warn = (message) => void warnings.push(message)
    customLogger.error = (message) => void warnings.push(message)
    const config = {
      root: app,
      configFile: false as const,
      customLogger,
      build: { target: "esnext", chunkSizeWarningLimit: Infinity, write: false },
      optimizeDeps: { esbuildOptions: { target: "esnext" } }
    }
    await viteBuild(config)
    const server = await createServer({ ...config, server: { port: 0, host: "127.0.0.1" } })
    try {
      await server.listen()
      const [url = ""] = server.resolvedUrls?.local ?? []
      const main = await (await fetch(`${url}main.js`)).text()
      const [, optimized = ""] = /from "([^"]*\/deps\/surfing-weights\.js[^"]*)"/.exec(main) ?? []
      expect(optimized, main).not.toBe("")
      const module = await fetch(new URL(optimized, url))
      expect(module.status).toBe(200)
      expect(await module.text()).toContain("HttpStorage")
    } finally {
      await server.close()
    }
    expect(warnings).toEqual([])
  })

  it("costs at most 20 ms more to import than effect and @effect/platform do", async () => {
    const time = async (...specifiers: ReadonlyArray<string>): Promise<number> => {
      // Time on the processor: it tells nothing of what else the machine does.
      const imports = specifiers.map((specifier) => `await import("${specifier}")\n`).join("")
      const code = `${imports}const { system, user } = process.cpuUsage()\nconsole.log((system + user) / 1000)\n`
      await writeFile(join(consumer, "import.js"), code)
      return Number(await run(consumer, process.execPath, "--single-threaded-gc", "import.js"))
    }
    const peers: Array<number> = []
    const barrel: Array<number> = []
    const isCheap = () => Math.min(...barrel) <= Math.min(...peers) + 20
    // The least of several is what the import costs; on a busy machine that takes more of them.
    for (let i = 0; i < 5 || (i < 50 && !isCheap()); i++) {
      peers.push(await time("effect", "@effect/platform"))
      barrel.push(await time("surfing-weights"))
    }
    expect(Math.min(...barrel)).toBeLessThanOrEqual(Math.min(...peers) + 20)
  })
})
