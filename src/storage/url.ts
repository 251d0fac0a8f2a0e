/**
 * Storages by URL: the scheme picks the backend, the query gives its options as text.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type { Service } from "../Storage.js"
import * as E from "../StorageError.js"
import { schemes } from "./schemes.js"

/** The failures of building a storage from a URL. */
export type OpenError = E.CommonError | E.InvalidOptions | E.StorageFull | E.UnsupportedOperation

/** A URL, taken apart. */
export interface Place {
  /** The URL without its query. */
  readonly href: string
  /** The host, bucket or the like, decoded. */
  readonly authority: string
  /** Decoded. */
  readonly path: string
  /** Options by name, as text. */
  readonly query: Readonly<Record<string, string>>
}

/** Loads the module of a scheme and builds its storage. */
export type Scheme = (place: Place) => Effect.Effect<Service, OpenError, Scope.Scope>

/** The storage at a URL, or in a directory given by its path. */
export const fromUrl = (url: string): Effect.Effect<Service, OpenError, Scope.Scope> =>
  Effect.gen(function*() {
    // A letter and a colon are a drive of Windows.
    const [, name, rest = ""] = /^([a-z][a-z0-9+.-]+):(.*)$/is.exec(url) ?? []
    if (name === undefined) return yield* schemes.file({ href: url, authority: "", path: url, query: {} })
    const scheme = name.toLowerCase()
    if (!isKnown(scheme)) {
      const known = Object.keys(schemes).map((known) => `${known}:`).join(", ")
      return yield* invalid("url", `must begin with ${known} or be the path of a directory (got ${name}:)`)
    }
    return yield* schemes[scheme](yield* parse(scheme, rest))
  })

const isKnown = (scheme: string): scheme is keyof typeof schemes => Object.hasOwn(schemes, scheme)

const parse = (scheme: string, rest: string): Either.Either<Place, E.InvalidOptions> =>
  Either.gen(function*() {
    const [before = "", authority = "", path = "", search = ""] =
      /^(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?/s.exec(rest) ?? []
    if (authority.includes("@")) return yield* invalid("url", `must not contain credentials; ${instead}`)
    const query = new URLSearchParams(search)
    const secret = [...query.keys()].find((name) => secrets.test(name))
    if (secret !== undefined) return yield* invalid(secret, `must not stand in a URL, as URLs are logged; ${instead}`)
    return {
      href: `${scheme}:${before.replace(/\?.*$/s, "")}`,
      authority: yield* decoded(authority),
      path: yield* decoded(path),
      query: Object.fromEntries(query)
    }
  })

const secrets = /secret|token|password|credential|signature|access-?key/i

const instead = "give them to the backend's own layer, or by the environment"

const decoded = (text: string): Either.Either<string, E.InvalidOptions> =>
  Either.orElse(
    Either.try(() => decodeURIComponent(text)),
    () => invalid("url", "has a percent-escape that is not UTF-8")
  )

/** A URL that cannot be used. */
export const invalid = (option: string, reason: string): Either.Either<never, E.InvalidOptions> =>
  Either.left(new E.InvalidOptions({ module: "Storage.fromUrl", option, reason: `${option} ${reason}` }))
