/**
 * Storages by URL: the scheme selects the backend, the query contains its options.
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type { Service } from "../Storage.js"
import type { InvalidOptions } from "../StorageError.js"
import { invalid, type OpenError, type Place } from "./place.js"
import { schemes } from "./schemes.js"

/** The storage at a URL, or in a directory given by its path. */
export const fromUrl = (text: string): Effect.Effect<Service, OpenError, Scope.Scope> =>
  Effect.gen(function*() {
    // White space around a variable of the environment is a mistake; as a directory it would show what follows in each message.
    const url = text.trim()
    // A single letter and a colon are a drive of Windows.
    const [, name, rest = ""] = /^([a-z][a-z0-9+.-]+):(.*)$/is.exec(url) ?? []
    if (/^(https?|s3):?\/\//i.test(url) && name === undefined) {
      return yield* invalid("url", "must have a colon after its scheme, as in https://host")
    }
    if (name === undefined) return yield* schemes.file({ href: url, authority: "", path: url, query: {} })
    const scheme = name.toLowerCase()
    if (!isKnown(scheme)) {
      const known = Object.keys(schemes).map((known) => `${known}:`).join(", ")
      return yield* invalid("url", `must begin with ${known} or be the path of a directory (got ${name}:)`)
    }
    return yield* schemes[scheme](yield* parse(scheme, rest))
  })

const isKnown = (scheme: string): scheme is keyof typeof schemes => Object.hasOwn(schemes, scheme)

const parse = (scheme: string, rest: string): Either.Either<Place, InvalidOptions> =>
  Either.gen(function*() {
    const [before = "", authority = "", path = "", search = ""] =
      /^(?:\/\/([^/?#]*))?([^?#]*)(?:\?([^#]*))?/s.exec(rest) ?? []
    if (authority.includes("@")) return yield* invalid("url", `must not contain credentials; ${instead}`)
    const query = new URLSearchParams(search)
    const secret = [...query.keys()].find((name) => secrets.test(name))
    if (secret !== undefined) return yield* invalid(secret, `must not be in a URL, since URLs are logged; ${instead}`)
    return {
      href: `${scheme}:${before.replace(/\?.*$/s, "")}`,
      authority: yield* decoded(authority),
      path: yield* decoded(path),
      query: Object.fromEntries(query)
    }
  })

const secrets = /secret|token|password|credential|signature|access-?key/i

const instead = "use the layer of the backend, or the environment"

const decoded = (text: string): Either.Either<string, InvalidOptions> =>
  Either.orElse(
    Either.try(() => decodeURIComponent(text)),
    () => invalid("url", "has a percent-escape that is not UTF-8")
  )
