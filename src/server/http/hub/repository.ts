/**
 * A model of a hub: the objects under `<org>/<name>/`, and the revision that they make up.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Hash from "../../../internal/hash.js"
import type * as Storage from "../../../Storage.js"
import type { ObjectInfo } from "../../../StorageBackend.js"
import type { ListError } from "../../../StorageError.js"
import { Missing } from "./responses.js"

export interface Repository {
  /** `<org>/<name>`. */
  readonly id: string
  /** In the form of a commit of Git. It changes when, and only when, a path, size or etag does. */
  readonly commit: string
  readonly lastModified: Date
  /** In bytes. */
  readonly size: number
}

export interface File {
  /** Below the model. */
  readonly path: string
  readonly info: ObjectInfo
}

/** Lists a model, in the order of its paths, and shows each file to `visit`: a model may have more than can be held. */
export const scan = (
  storage: Storage.Service,
  id: string,
  visit: (file: File) => void
): Effect.Effect<Repository, ListError | Missing> =>
  Effect.gen(function*() {
    const prefix = `${id}/`
    const encoder = new TextEncoder()
    const hash = yield* Hash.make("sha1")
    let lastModified = -Infinity
    let size = 0
    yield* Stream.runForEachChunk(storage.entries({ prefix }), (infos) =>
      Effect.sync(() => {
        const lines: Array<string> = []
        for (const info of infos) {
          const path = info.key.slice(prefix.length)
          lines.push(`${JSON.stringify([path, info.size, info.etag])}\n`)
          lastModified = Math.max(lastModified, info.lastModified.getTime())
          size += info.size
          visit({ path, info })
        }
        hash.update(encoder.encode(lines.join("")))
      }))
    if (lastModified === -Infinity) return yield* new Missing({ code: "RepoNotFound" })
    return { id, commit: Hash.hexDigest(hash), lastModified: new Date(lastModified), size }
  })

/** Fails unless the revision is the one there is: `main`, `HEAD`, or the current commit. */
export const requireRevision = ({ commit }: Repository, revision: string): Effect.Effect<void, Missing> =>
  revision === commit || revision === "main" || revision === "HEAD"
    ? Effect.void
    : Effect.fail(new Missing({ code: "RevisionNotFound" }))
