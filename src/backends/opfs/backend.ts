/**
 * A folder of the origin private file system as a backend.
 */
import * as Effect from "effect/Effect"
import * as StorageBackend from "../../StorageBackend.js"
import type * as E from "../../StorageError.js"
import { browser } from "./browser.js"
import * as Directory from "./directory.js"
import { writeFailed } from "./errors.js"
import { lister } from "./lister.js"
import { reader } from "./reader.js"
import { remover } from "./remover.js"
import { saver } from "./saver.js"
import * as TemporaryFiles from "./temporaryFiles.js"

/** The backend on the folder at `path`, once what closed tabs have left of saves is removed. */
export const open = (
  path: string,
  name: string
): Effect.Effect<StorageBackend.StorageBackend, E.CommonError | E.StorageFull | E.UnsupportedOperation> =>
  Effect.gen(function*() {
    const directory = yield* Directory.open(yield* browser, path)
    yield* TemporaryFiles.reap(directory)
    const { open, ...reads } = reader(directory)
    const { entries, ...listings } = lister(directory)
    const { save, ...relocations } = saver(directory)
    return StorageBackend.make(
      { name, capabilities: StorageBackend.full, open, save, entries, ...remover(directory) },
      { ...reads, ...listings, ...relocations }
    )
  }).pipe(Effect.catchTag("FileSystemError", writeFailed))
