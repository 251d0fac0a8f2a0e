/**
 * Lists objects with the sizes that their users see.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { unexpected } from "../../internal/errors.js"
import type { ListOptions, ObjectInfo, StorageBackend } from "../../StorageBackend.js"
import type { ListError } from "../../StorageError.js"
import type { Reader } from "./reader.js"

/** How many objects are looked at at once. */
const concurrency = 16

export class Lister {
  constructor(private readonly inner: StorageBackend, private readonly reader: Reader) {}

  readonly entries = (options: ListOptions): Stream.Stream<ObjectInfo, ListError> =>
    Stream.mapChunksEffect(
      this.inner.entries(options),
      (page) => Effect.map(this.describeAll(page), Chunk.unsafeFromArray)
    )

  readonly listDirectory: StorageBackend["listDirectory"] = (prefix) =>
    Effect.flatMap(
      this.inner.listDirectory(prefix),
      ({ objects, prefixes }) => Effect.map(this.describeAll(objects), (objects) => ({ objects, prefixes }))
    )

  /** An object that is removed meanwhile is left out. */
  private describeAll(infos: Iterable<ObjectInfo>): Effect.Effect<Array<ObjectInfo>, ListError> {
    return Effect.map(
      Effect.forEach(
        infos,
        (info) =>
          Effect.map(this.reader.describe(info), (info) => [info]).pipe(
            Effect.catchTags({ ObjectNotFound: () => Effect.succeed([]), InvalidKey: unexpected })
          ),
        { concurrency }
      ),
      (found) => found.flat()
    )
  }
}
