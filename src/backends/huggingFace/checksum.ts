/**
 * Checks whole files against their SHA-256.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Hash from "../../internal/hash.js"
import { mapStream, type OpenedObject } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"

const wrong = () =>
  new E.CorruptObject({ problem: "checksum", reason: "the bytes do not have the SHA-256 that the hub lists" })

/** The same whole file, which fails at its end unless it has this hash, if one is known. */
export const verified = (
  opened: OpenedObject,
  sha256: string | undefined
): Effect.Effect<OpenedObject, E.CorruptObject> => {
  if (sha256 === undefined) return Effect.succeed(opened)
  const { bytes } = opened
  return Effect.flatMap(Hash.load("sha256"), (newHash) =>
    bytes === undefined
      ? Effect.succeed(mapStream(opened, (stream) =>
        Stream.suspend(() => {
          const hash = newHash()
          const check = Stream.suspend(() => Hash.hexDigest(hash) === sha256 ? Stream.empty : Stream.fail(wrong()))
          return Stream.concat(Stream.tap(stream, (part) => Hash.update(hash, part)), check)
        })))
      : Effect.flatMap(
        Hash.hashOf(newHash, bytes),
        (hash) => hash === sha256 ? Effect.succeed(opened) : Effect.fail(wrong())
      ))
}
