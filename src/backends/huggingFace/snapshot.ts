/**
 * The files of a model at one commit. A commit never changes, so that they are listed once and kept in memory.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Schema from "effect/Schema"
import { isListError } from "../../internal/errors.js"
import { encodeKey } from "../../internal/protocol.js"
import { retry } from "../../internal/retry.js"
import * as ObjectKey from "../../ObjectKey.js"
import type { RetryPolicy } from "../../RetryPolicy.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import * as E from "../../StorageError.js"
import { ask, isAtHome, type Peer, type Reply } from "../http/request.js"
import { notUnderstood, only } from "../http/responses.js"
import { failureOf } from "./responses.js"

/** More files than this are not held, which take about 100 MB. */
const maxFiles = 250_000

export interface File {
  readonly info: ObjectInfo
  /** Below the model. */
  readonly path: string
  /** In lower-case hexadecimal; the hub has it of files in Git LFS. */
  readonly sha256: string | undefined
}

/** A model at a commit. */
export interface Snapshot {
  readonly commit: string
  /** By key, in the order of keys. */
  readonly files: ReadonlyMap<string, File>
}

export interface Source {
  /** `<org>/<name>`. */
  readonly repo: string
  readonly revision: string
  /** What keys begin with; empty, or with a slash at its end. */
  readonly prefix: string
}

const hexadecimal = (length: number) => Schema.String.pipe(Schema.pattern(new RegExp(`^[0-9a-f]{${length}}$`)))

const Model = Schema.Struct({ sha: hexadecimal(40), lastModified: Schema.optional(Schema.Date) })

const Tree = Schema.Array(Schema.Struct({
  type: Schema.String,
  path: Schema.String,
  oid: Schema.String,
  size: Schema.optionalWith(Schema.NonNegativeInt, { default: () => 0 }),
  lfs: Schema.optionalWith(Schema.Struct({ oid: hexadecimal(64), size: Schema.NonNegativeInt }), { nullable: true })
}))

type TreeEntry = typeof Tree.Type[number]

type Failure = E.ListError

/** The JSON of a response to a `GET`, and where the next page is. */
const get = <A, I>(
  peer: Peer,
  policy: RetryPolicy,
  path: string | URL,
  schema: Schema.Schema<A, I>
): Effect.Effect<{ readonly value: A; readonly link: string | undefined }, Failure> => {
  const headers = { accept: "application/json" }
  const once = Effect.flatMap(ask(peer, { method: "GET", path, headers }), (reply: Reply) =>
    reply.status === 200
      ? Either.mapBoth(Schema.decodeEither(Schema.parseJson(schema))(reply.text), {
        onLeft: (): Failure => notUnderstood("is not that of a model hub; check the endpoint"),
        onRight: (value) => ({ value, link: reply.headers["link"] })
      })
      : Either.left(only(failureOf(reply), isListError)))
  return retry(once, policy)
}

/** Finds the commit of a revision, and lists its files. */
export const take = (peer: Peer, policy: RetryPolicy, source: Source): Effect.Effect<Snapshot, Failure> =>
  Effect.gen(function*() {
    const { prefix, repo, revision } = source
    const model = `/api/models/${encodeKey(repo)}`
    const named = `${model}/revision/${encodeURIComponent(revision)}?expand=sha&expand=lastModified`
    const { value: { lastModified, sha: commit } } = yield* get(peer, policy, named, Model)
    const found: Array<File> = []
    const paths = new Set<string>()
    let next: string | URL | undefined = `${model}/tree/${commit}?recursive=true&expand=false`
    while (next !== undefined) {
      const page: { readonly value: ReadonlyArray<TreeEntry>; readonly link: string | undefined } = yield* get(
        peer,
        policy,
        next,
        Tree
      )
      for (const entry of page.value) {
        if (paths.has(entry.path)) return yield* notUnderstood(`lists ${JSON.stringify(entry.path)} twice`)
        paths.add(entry.path)
        if (entry.type !== "file") continue
        const file = fileOf(entry, prefix, lastModified ?? new Date(0))
        if (ObjectKey.problem(file.info.key) === undefined) found.push(file)
        else yield* Effect.logWarning(`${repo}: ${JSON.stringify(entry.path)} is left out, since it cannot be a key`)
      }
      if (paths.size > maxFiles) {
        return yield* new E.UnsupportedOperation({ reason: `the model has more than ${maxFiles} files and folders` })
      }
      next = yield* nextPage(peer, page.link)
      if (next !== undefined && page.value.length === 0) return yield* notUnderstood("has a page without entries")
    }
    found.sort((a, b) => ObjectKey.compare(a.info.key, b.info.key))
    return { commit, files: new Map(found.map((file) => [file.info.key, file])) }
  })

const fileOf = ({ lfs, oid, path, size }: TreeEntry, prefix: string, lastModified: Date): File => {
  const info = { key: prefix + path, size: lfs?.size ?? size, lastModified, etag: lfs?.oid ?? oid }
  if (lfs === undefined) return { info, path, sha256: undefined }
  const value = Encoding.encodeBase64(Either.getOrElse(Encoding.decodeHex(lfs.oid), () => new Uint8Array(0)))
  return { info: { ...info, checksum: { algorithm: "SHA256", value } }, path, sha256: lfs.oid }
}

/** The next page of a listing, which must be of the same server. */
const nextPage = (peer: Peer, link = ""): Either.Either<URL | undefined, E.UnexpectedStorageError> => {
  const [, next] = /<([^>]*)>\s*;\s*rel="?next"?/i.exec(link) ?? []
  if (next === undefined) return Either.right(undefined)
  const url = URL.canParse(next, peer.url) ? new URL(next, peer.url) : undefined
  return url !== undefined && isAtHome(peer, url)
    ? Either.right(url)
    : Either.left(notUnderstood("has its next page on another server"))
}
