/**
 * Directories of the tests' own, gone when their scope ends, and storages on them.
 */
import { Context, Effect, Layer } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { FileSystemStorage } from "surfing-weights"

/** An empty directory for as long as the scope is open. */
export const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "surfing-weights-test-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true, maxRetries: 3 }))
)

/** The directory that a storage under test is on. */
export class Directory extends Context.Tag("test/Directory")<Directory, string>() {}

/** A storage on a directory of its own, and that directory. */
export const storageOnDirectory = (options: Omit<FileSystemStorage.Options, "directory"> = {}) =>
  Layer.unwrapScoped(
    Effect.map(temporaryDirectory, (directory) =>
      Layer.merge(FileSystemStorage.layer({ ...options, directory }), Layer.succeed(Directory, directory)))
  )

/** What saves have left in the hidden folder, beside the attributes of objects. */
export const leftovers = Effect.map(Directory, (directory) => temporaryFiles(directory))

/** The names of the temporary files in a directory, but for what says whose locks are whose. */
export const temporaryFiles = (directory: string): ReadonlyArray<string> => {
  const folder = path.join(directory, ".surfing-weights")
  return fs.existsSync(folder)
    ? fs.readdirSync(folder).filter((name) => !/^(attributes|versions|badge-.*)$/.test(name))
    : []
}
