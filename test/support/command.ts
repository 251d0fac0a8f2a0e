/**
 * The command-line tool in processes of its own, as its users run it.
 */
import { Effect } from "effect"
import { build } from "esbuild"
import { type ChildProcessWithoutNullStreams, spawn, type SpawnOptionsWithoutStdio } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "../..")

/**
 * The compiled tool, with its dependencies in it: to compile it in each process, and to load a thousand files, would take most of
 * the time of a test. How it is installed is for the test of the package. It is below `node_modules`, where it finds the AWS SDK.
 */
const compiled = await (async () => {
  const cache = path.join(root, "node_modules/.cache")
  fs.mkdirSync(cache, { recursive: true })
  const folder = fs.mkdtempSync(path.join(cache, "surfing-weights-"))
  // Also for tests as another user.
  fs.chmodSync(folder, 0o755)
  process.once("exit", () => fs.rmSync(folder, { recursive: true, force: true }))
  fs.copyFileSync(path.join(root, "package.json"), path.join(folder, "package.json"))
  await build({
    entryPoints: [path.join(root, "src/command/main.ts")],
    outdir: path.join(folder, "dist/command"),
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "es2022",
    external: ["@aws-sdk/*", "@parcel/watcher"],
    banner: { js: "import { createRequire } from \"node:module\"; const require = createRequire(import.meta.url)" },
    logLevel: "error"
  })
  return path.join(folder, "dist/command/main.js")
})()

/** What Node is given before the arguments of the tool. */
export const program = [compiled]

/** How the tool ended. */
export interface Outcome {
  /** The exit code, or the name of the signal that ended the process. */
  readonly code: number | string | null
  readonly stdout: Buffer
  readonly stderr: string
}

/** Without what this machine has of its own. */
const environment = (variables: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:AWS|WEIGHTS)_/.test(name))),
  XDG_CONFIG_HOME: "/nonexistent",
  ...variables
})

/** Starts the tool; the process ends with the scope. */
export const start = (args: ReadonlyArray<string>, { env, ...options }: SpawnOptionsWithoutStdio = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [...program, ...args], { ...options, env: environment(env) })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** Waits for the end of a process. */
export const outcomeOf = (child: ChildProcessWithoutNullStreams): Effect.Effect<Outcome> =>
  Effect.promise(async () => {
    const stdout: Array<Buffer> = []
    let stderr = ""
    child.stdout.on("data", (bytes: Buffer) => stdout.push(bytes))
    child.stderr.on("data", (bytes: Buffer) => stderr += bytes.toString())
    const [code, signal] = await once(child, "close") as [number | null, NodeJS.Signals | null]
    return { code: code ?? signal, stdout: Buffer.concat(stdout), stderr }
  })

/** Runs the tool to its end. */
export const run = (
  args: ReadonlyArray<string>,
  { input, ...options }: SpawnOptionsWithoutStdio & { readonly input?: Uint8Array } = {}
): Effect.Effect<Outcome> =>
  Effect.scoped(Effect.gen(function*() {
    const child = yield* start(args, options)
    const ended = outcomeOf(child)
    // It may end before it has read all.
    child.stdin.on("error", () => {})
    child.stdin.end(input)
    return yield* ended
  }))

/** Runs the tool, which must succeed, and returns what it prints. */
export const print = (...args: Parameters<typeof run>): Effect.Effect<string> =>
  Effect.map(run(...args), ({ code, stderr, stdout }) => {
    if (code !== 0) throw new Error(`surfing-weights ${args[0].join(" ")} ended with ${code}: ${stderr}`)
    return stdout.toString()
  })
