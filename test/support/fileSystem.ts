/**
 * Helpers for the tests of FileSystemStorage.
 */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { FileSystemStorage, type Storage } from "surfing-weights"
import { Directory, storageOnDirectory, temporaryDirectory } from "./directory.js"

export const isLinux = process.platform === "linux"
export const isRoot = process.getuid?.() === 0

/** A test that needs something of the machine; where it is missing, the test is skipped and its name says so. */
export const needs = (what: string, has: boolean) => ({
  live: <E>(name: string, self: () => Effect.Effect<void, E>) =>
    has ? it.live(name, self) : it.skip(`${name} (needs ${what})`, () => {})
})

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

/** The names of the temporary files in a directory. */
export const temporaryFiles = (directory: string): ReadonlyArray<string> => {
  const folder = path.join(directory, ".surfing-weights")
  return fs.existsSync(folder) ? fs.readdirSync(folder) : []
}
