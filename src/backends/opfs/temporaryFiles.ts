/**
 * Files that are written before they get the name of an object. Each is locked as long as its tab or worker writes it, so
 * that those of tabs that were closed or crashed can be told, and removed. Browsers have temporary files of their own beside
 * them, with an extension (`.crswap`).
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { StorageTimeout } from "../../StorageError.js"
import type { FileHandle } from "./browser.js"
import type { Directory } from "./directory.js"
import { call, type FileSystemError, fileSystemError, isInUse } from "./errors.js"
import { isFree, withLocks } from "./locks.js"

const lockOf = ({ path }: Directory, id: string): string => `surfing-weights/${path}/temporary/${id}`

/** Runs an effect with a new file, which is removed unless the effect succeeds. */
export const withFile = <A, E>(
  directory: Directory,
  use: (file: FileHandle) => Effect.Effect<A, E>
): Effect.Effect<A, E | FileSystemError | StorageTimeout> =>
  Effect.suspend(() => {
    const id = crypto.randomUUID()
    return Effect.acquireUseRelease(
      call(() => directory.temporary.getFileHandle(id, { create: true })),
      use,
      (_, exit) => Exit.isSuccess(exit) ? Effect.void : remove(directory, id)
    ).pipe(withLocks(directory.browser, [lockOf(directory, id)]))
  })

/** A browser holds a file for some milliseconds after its writer was aborted. What it holds for longer is reaped another time. */
const remove = ({ temporary }: Directory, name: string): Effect.Effect<void> =>
  Effect.ignore(Effect.retry(call(() => temporary.removeEntry(name)), {
    while: isInUse,
    schedule: Schedule.intersect(Schedule.spaced("5 millis"), Schedule.recurs(200))
  }))

/** Removes the files that no tab or worker writes any more. */
export const reap = (directory: Directory): Effect.Effect<void, FileSystemError> =>
  Effect.gen(function*() {
    const names = yield* Stream.runCollect(entriesOf(directory))
    yield* Effect.forEach(names, (name) =>
      Effect.flatMap(
        isFree(directory.browser, lockOf(directory, name.replace(/\..*$/, ""))),
        // Another tab may have removed it.
        (free) => free ? remove(directory, name) : Effect.void
      ), { concurrency: 16, discard: true })
  })

const entriesOf = ({ temporary }: Directory): Stream.Stream<string, FileSystemError> =>
  Stream.map(Stream.fromAsyncIterable(temporary.values(), fileSystemError), ({ name }) => name)
