/**
 * The files that saves are written to before they are renamed into place. They are in the hidden folder, so on the same file
 * system as most keys' files, and are named after the process that writes them (see `owner.ts`).
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as nodeFs from "./nodeFs.js"
import * as Owner from "./owner.js"
import type { Directory } from "./paths.js"

/** A temporary file, open for writing. */
export interface TemporaryFile {
  readonly path: string
  readonly descriptor: nodeFs.Descriptor
}

// Two workers of one process have the same owner.
const worker = Math.random().toString(36).slice(2, 10)

let count = 0

/** Creates a temporary file, closed when the scope ends, and removed unless it was renamed. */
export const create = (directory: Directory): Effect.Effect<TemporaryFile, nodeFs.SystemError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const path = `${directory.hidden}/${directory.owner}-${worker}-${count++}`
      const file = Effect.map(nodeFs.create(path), (descriptor) => ({ path, descriptor }))
      return Effect.catchIf(
        file,
        nodeFs.hasCode("ENOENT"),
        () => Effect.zipRight(nodeFs.makeFolder(directory.hidden), file)
      )
    }),
    ({ descriptor, path }) =>
      Effect.zipRight(Effect.ignore(nodeFs.close(descriptor)), Effect.ignore(nodeFs.unlink(path)))
  )

/** Removes what killed processes left; never what a live one is writing. */
export const reap = (directory: Directory): Effect.Effect<void> =>
  // A folder that does not exist or cannot be read has nothing to remove; a save will say what is wrong with it.
  Effect.flatMap(Effect.orElseSucceed(nodeFs.readFolder(directory.hidden), () => undefined), (entries = []) =>
    Effect.forEach(entries, ({ name }) => Effect.ignore(reapFile(directory, name)), { discard: true }))

const reapFile = (directory: Directory, name: string): Effect.Effect<void, nodeFs.SystemError> =>
  Effect.gen(function*() {
    const [, owner] = /^([^-]+-[^-]*-\d+-\d*)-[^-]+-\d+$/.exec(name) ?? []
    if (owner === undefined) return
    const path = `${directory.hidden}/${name}`
    const { mtimeMs } = yield* nodeFs.lstat(path)
    if (yield* Owner.isGone(directory.owner, owner, Number(mtimeMs))) yield* nodeFs.unlink(path)
  })
