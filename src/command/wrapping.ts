/**
 * What `--key-file` and `--compress` add to the storages of URLs. Paths are what other programs read, and stay as they are.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import type * as Storage from "../Storage.js"
import type { SecretKey } from "../wrappers/StorageEncryption.js"
import { UsageError } from "./failures.js"

/** The options that all commands have for that. */
export interface Settings {
  readonly keyFile: string | undefined
  readonly compress: boolean
}

export class Wrapping extends Context.Tag("surfing-weights/command/Wrapping")<Wrapping, Settings>() {}

/** The same storage with what the options add; nothing where they add nothing. */
export const wrap = (
  storage: Storage.Service
): Effect.Effect<Storage.Service | undefined, Storage.UrlError | UsageError, Scope.Scope | Wrapping> =>
  Effect.gen(function*() {
    const { compress, keyFile } = yield* Wrapping
    if (keyFile === undefined && !compress) return undefined
    const encrypted = keyFile === undefined ? storage : yield* encrypt(storage, keyFile)
    // What is encrypted cannot be compressed any more.
    return compress ? yield* compressed(encrypted) : encrypted
  })

/** Files that are larger than the memory for them wait in the directory for temporary files while they are compressed. */
const compressed = (storage: Storage.Service) =>
  Effect.gen(function*() {
    const Compression = yield* Effect.promise(() => import("../wrappers/StorageCompression.js"))
    const FileSystem = yield* Effect.promise(() => import("../backends/FileSystemStorage.js"))
    const directory = yield* Effect.acquireRelease(
      Effect.try({
        try: () => fs.mkdtempSync(path.join(tmpdir(), "surfing-weights-")),
        catch: (error) =>
          new UsageError({
            message: `--compress needs a directory for temporary files; set TMPDIR to one that can be written (${
              error instanceof Error ? error.message : String(error)
            })`
          })
      }),
      (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
    )
    const scratch = yield* FileSystem.make({ directory, durability: "relaxed" })
    return yield* Compression.make(storage, { scratch })
  })

const encrypt = (storage: Storage.Service, keyFile: string) =>
  Effect.gen(function*() {
    const [first, ...others] = yield* readKeys(keyFile)
    if (first === undefined) return yield* wrongKeys(keyFile, "it has none")
    const { make } = yield* Effect.promise(() => import("../wrappers/StorageEncryption.js"))
    return yield* make(storage, { keys: [first, ...others] })
  })

/** Lines such as `2026-11 <32 bytes in Base64>`. */
const readKeys = (keyFile: string): Effect.Effect<ReadonlyArray<SecretKey>, UsageError> =>
  Effect.flatMap(
    Effect.try({
      try: () => fs.readFileSync(keyFile, "utf8"),
      catch: (error) => wrongKeys(keyFile, error instanceof Error ? error.message : String(error))
    }),
    (text) =>
      Effect.forEach(
        text.split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#")),
        (line, index) => {
          const [, id, secret] = /^(\S+)\s+([A-Za-z0-9+/]{43}=)$/.exec(line) ?? []
          return id === undefined || secret === undefined
            ? Effect.fail(wrongKeys(keyFile, `key ${index + 1} is not one`))
            : Effect.succeed({ id, secret: Redacted.make(secret) })
        }
      )
  )

const wrongKeys = (keyFile: string, problem: string): UsageError =>
  new UsageError({
    message:
      `--key-file must be a file of lines such as "2026-11 <32 bytes in Base64>", the key for new objects first ` +
      `(got ${keyFile}: ${problem}); openssl rand -base64 32 makes a key`
  })
