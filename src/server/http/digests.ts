/**
 * Digests in the header of an upload, against which its body is checked: `Content-Digest` and `Repr-Digest` (RFC 9530), and
 * `Content-MD5`. All three are of the bytes that are sent, as an upload is a whole object in its content encoding.
 */
import * as Chunk from "effect/Chunk"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Hash from "../../internal/hash.js"
import type { Headers } from "../../internal/httpHeaders.js"

/** Those that can be checked; a server ignores others. */
const algorithms: Readonly<Record<string, { readonly name: Hash.Algorithm; readonly size: number }>> = {
  "sha-512": { name: "sha512", size: 64 },
  "sha-256": { name: "sha256", size: 32 },
  "sha": { name: "sha1", size: 20 },
  "md5": { name: "md5", size: 16 }
}

export interface Digest {
  readonly field: string
  readonly algorithm: string
  readonly value: Uint8Array
}

/** The digests of an upload that can be checked, or which header is malformed. */
export const parseDigests = (headers: Headers): Either.Either<ReadonlyArray<Digest>, string> =>
  Either.gen(function*() {
    const md5 = headers["content-md5"]
    const digests = md5 === undefined ? [] : [yield* digestOf("content-md5", "md5", md5.trim())]
    for (const field of ["content-digest", "repr-digest"]) {
      for (const { algorithm, value } of yield* parseDictionary(field, headers[field])) {
        if (Object.hasOwn(algorithms, algorithm)) digests.push(yield* digestOf(field, algorithm, value))
      }
    }
    return digests
  })

const malformed = (field: string): string => `${field} is malformed`

interface Member {
  readonly algorithm: string
  /** In base64. */
  readonly value: string
}

/** A dictionary of byte sequences (RFC 9651), which may have parameters. */
const parseDictionary = (field: string, header = ""): Either.Either<ReadonlyArray<Member>, string> => {
  if (header.trim() === "") return Either.right([])
  const members = header.split(",").map((member) =>
    /^[ \t]*([a-z*][a-z0-9_.*-]*)=:([a-z0-9+/=]*):(?:[ ]*;[^,:]*)?[ \t]*$/i.exec(member)
  )
  return Either.all(members.map((member) => {
    const [, algorithm, value] = member ?? []
    return algorithm === undefined || value === undefined
      ? Either.left(malformed(field))
      : Either.right({ algorithm: algorithm.toLowerCase(), value })
  }))
}

const digestOf = (field: string, algorithm: string, base64: string): Either.Either<Digest, string> =>
  Encoding.decodeBase64(base64).pipe(
    Either.filterOrLeft((value) => value.byteLength === algorithms[algorithm]?.size, () => undefined),
    Either.mapBoth({ onLeft: () => malformed(field), onRight: (value) => ({ field, algorithm, value }) })
  )

/** The bytes received are not those that the client meant. */
export class WrongDigest extends Data.TaggedError("WrongDigest")<Pick<Digest, "field" | "algorithm">> {}

type Pull<E> = Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<E>>

/**
 * The same bytes, which end in a failure unless they have these digests. The last chunk is held back until that is known, so
 * that no storage has received a whole object that is wrong.
 */
export const checked = <E>(pull: Pull<E>, digests: ReadonlyArray<Digest>): Effect.Effect<Pull<E | WrongDigest>> => {
  if (digests.length === 0) return Effect.succeed(pull)
  const hashOf = ({ algorithm }: Digest) => Hash.make(algorithms[algorithm]?.name ?? "sha256")
  return Effect.map(Effect.forEach(digests, hashOf), (hashes) => {
    let held = Chunk.empty<Uint8Array>()
    let isEnded = false
    const wrong = (): Option.Option<WrongDigest> => {
      const index = digests.findIndex(({ value }, i) => !Hash.isEqual(value, hashes[i]?.digest()))
      return Option.map(Option.fromNullable(digests[index]), (digest) => new WrongDigest(digest))
    }
    const end = Effect.suspend((): Pull<E | WrongDigest> => {
      isEnded = true
      const failure = wrong()
      return Option.isSome(failure) ? Effect.fail(failure) : Effect.succeed(held)
    })
    const next: Pull<E | WrongDigest> = Effect.suspend(() =>
      isEnded ? Effect.fail(Option.none()) : Effect.matchEffect(pull, {
        onFailure: (failure): Pull<E | WrongDigest> => Option.isSome(failure) ? Effect.fail(failure) : end,
        onSuccess: (chunk) => {
          for (const bytes of chunk) for (const hash of hashes) hash.update(bytes)
          const before = held
          held = chunk
          return Effect.succeed(before)
        }
      })
    )
    return next
  })
}
