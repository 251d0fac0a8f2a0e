/**
 * A directory as a backend.
 */
import * as Effect from "effect/Effect"
import * as StorageBackend from "../../StorageBackend.js"
import * as Directory from "./directory.js"
import { lister } from "./lister.js"
import * as Locks from "./locks.js"
import { reader } from "./reader.js"
import * as Records from "./records.js"
import { remover } from "./remover.js"
import { saver } from "./saver.js"
import * as TemporaryFiles from "./temporaryFiles.js"

/** The backend on a directory, once what dead processes have left is removed. */
export const open = (
  options: Directory.Options,
  name: string
): Effect.Effect<StorageBackend.StorageBackend, Directory.OpenError> =>
  Effect.gen(function*() {
    const directory = yield* Directory.open(options)
    yield* TemporaryFiles.reap(directory)
    yield* Locks.reap(directory)
    yield* Records.sweep(directory)
    const { open, ...reads } = reader(directory)
    const { entries, ...listings } = lister(directory)
    const { save, ...relocations } = saver(directory)
    return StorageBackend.make(
      { name, location: directory.path, capabilities, open, save, entries, ...remover(directory) },
      { ...reads, ...listings, ...relocations }
    )
  })

const capabilities: StorageBackend.Capabilities = { ...StorageBackend.full, objectsWithinObjects: false }
