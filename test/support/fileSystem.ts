/**
 * Helpers for the tests of FileSystemStorage.
 */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { FileSystemStorage, type Storage } from "surfing-weights"
import { Directory, storageOnDirectory, temporaryDirectory } from "./directory.js"

export const isLinux = process.platform === "linux"
/** The runtime that runs the test; see test/runtimes. */
export const runtime = "bun" in process.versions ? "bun" : "deno" in process.versions ? "deno" : "node"
export const isRoot = process.getuid?.() === 0

/** Whether this process can mount file systems. */
export const canMount = isLinux && isRoot && (() => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "surfing-weights-mount-"))
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], { stdio: "ignore" })
    execFileSync("umount", [directory])
    return true
  } catch {
    return false
  } finally {
    fs.rmdirSync(directory)
  }
})()

/**
 * What this process holds open of a file or below a folder, by `/proc`. Other descriptors of the process are left out:
 * those of other tests are closed whenever the garbage collector finds them.
 */
export const descriptorsOf = (place: string): ReadonlyArray<string> => {
  const real = fs.realpathSync(place)
  return fs.readdirSync("/proc/self/fd").flatMap((descriptor) => {
    try {
      const opened = fs.readlinkSync(`/proc/self/fd/${descriptor}`)
      return opened === real || opened.startsWith(`${real}/`) ? [opened] : []
    } catch {
      return []
    }
  }).sort()
}

/** Whether there is a command of this name. */
export const hasCommand = (name: string): boolean =>
  (process.env["PATH"] ?? "").split(path.delimiter).some((folder) => fs.existsSync(path.join(folder, name)))

/** A test that needs something of the machine; where it is missing, the test is skipped and its name says so. */
export const needs = (what: string, has: boolean) => ({
  live: <E>(name: string, self: () => Effect.Effect<void, E>) =>
    has ? it.live(name, self) : it.skip(`${name} (needs ${what})`, () => {})
})

/** Runs an effect as a user who owns nothing. Needs root; other fibers of the process must wait. */
export const asNobody = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => process.seteuid?.(65534)),
    () => effect,
    () => Effect.sync(() => process.seteuid?.(0))
  )

export const bytes = (text: string) => new TextEncoder().encode(text)
export const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

/** Runs a test on a storage on an empty directory. */
export const onDirectory = <E>(
  test: (directory: string) => Effect.Effect<void, E, Storage.Storage | Directory>,
  options: Omit<FileSystemStorage.Options, "directory"> = {}
) =>
() => Effect.provide(Effect.flatMap(Directory, test), storageOnDirectory(options))

/** Runs a test on an empty directory without a storage. */
export const inDirectory = <E>(test: (directory: string) => Effect.Effect<void, E>) => () =>
  Effect.scoped(Effect.flatMap(temporaryDirectory, test))

export const on = (directory: string, options: Omit<FileSystemStorage.Options, "directory"> = {}) =>
  FileSystemStorage.layer({ ...options, directory })

export const put = (file: string, content: string | Uint8Array) => {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, content)
}

/** The failure of an effect that must fail, by its tag and with its message. */
export const failure = <A, E extends { readonly _tag: string; readonly message: string }, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.map(Effect.flip(effect), (error) => ({ tag: error._tag, message: error.message, error }))

/** The paths of the files that keep attributes in a directory, in its hidden folder. */
export const attributeFiles = (directory: string): ReadonlyArray<string> => {
  const folder = path.join(directory, ".surfing-weights/attributes")
  const buckets = fs.existsSync(folder) ? fs.readdirSync(folder) : []
  return buckets.flatMap((bucket) =>
    fs.readdirSync(path.join(folder, bucket)).map((name) => path.join(folder, bucket, name))
  )
}
