/**
 * What a storage URL says, and how its scheme is used.
 */
import type * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Scope from "effect/Scope"
import type { Service } from "../Storage.js"
import * as E from "../StorageError.js"

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

/** A URL that cannot be used. */
export const invalid = (option: string, reason: string): Either.Either<never, E.InvalidOptions> =>
  Either.left(new E.InvalidOptions({ module: "Storage.fromUrl", option, reason: `${option} ${reason}` }))
