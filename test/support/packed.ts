/**
 * The package as its users get it: built, packed, and installed into an empty project beside `effect` and `@effect/platform`.
 */
import { execFile } from "node:child_process"
import { cp, mkdir, mkdtemp, readdir, realpath, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, dirname, join, relative, resolve } from "node:path"
import { promisify } from "node:util"
import manifest from "../../package.json" with { type: "json" }

const root = resolve(import.meta.dirname, "../..")
const publicFolders = [".", "backends", "wrappers", "weights", "server", "testing"]

/** Name and path of each public module, as it stands under src/. */
export const publicModules = async (): Promise<ReadonlyArray<readonly [name: string, path: string]>> => {
  const folders = await Promise.all(publicFolders.map(async (folder) =>
    (await readdir(join(root, "src", folder)))
      .filter((file) => file.endsWith(".ts") && !file.startsWith("index."))
      .map((file) => [basename(file, ".ts"), join(folder, basename(file, ".ts"))] as const)
  ))
  return folders.flat().sort(([a], [b]) => a < b ? -1 : 1)
}

/** What a command says, run in a directory. */
export const run = async (cwd: string, command: string, ...args: ReadonlyArray<string>): Promise<string> => {
  const { stdout } = await promisify(execFile)(command, args, { cwd, maxBuffer: 64 * 1024 * 1024 })
  return stdout
}

export interface Packed {
  /** The project that has the package installed. */
  readonly consumer: string
  readonly remove: () => Promise<void>
}

/** The build is of a copy, so that it disturbs nobody who is using dist/. */
export const installPacked = async (): Promise<Packed> => {
  const temporary = await realpath(await mkdtemp(join(tmpdir(), "surfing-weights-package-")))
  const copy = join(temporary, "copy")
  const left = /^((test\/\w+\/)?node_modules|dist|docs|coverage|\..*)$/
  await cp(root, copy, { recursive: true, filter: (path) => !left.test(relative(root, path)) })
  await symlink(join(root, "node_modules"), join(copy, "node_modules"))
  await run(copy, "npm", "run", "build")
  await run(copy, "npm", "pack", "--pack-destination", temporary)
  const tarball = join(temporary, `${manifest.name}-${manifest.version}.tgz`)

  const consumer = join(temporary, "consumer")
  await mkdir(consumer)
  await writeFile(join(consumer, "package.json"), JSON.stringify({ type: "module", private: true }))
  // What it depends on is here already, so that nothing has to be fetched.
  const dependencies = Object.keys(manifest.dependencies).map((name) => join(root, "node_modules", name))
  const install = ["install", "--offline", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
  await run(consumer, "npm", ...install, ...dependencies, tarball)
  for (const peer of ["effect", "@effect/platform"]) {
    const link = join(consumer, "node_modules", peer)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(root, "node_modules", peer), link)
  }
  return { consumer, remove: () => rm(temporary, { recursive: true, force: true }) }
}
