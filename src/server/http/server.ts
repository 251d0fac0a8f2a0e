/**
 * What the routes of a server share.
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import type * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Storage from "../../Storage.js"
import type { ObjectInfo } from "../../StorageBackend.js"
import type { StorageError } from "../../StorageError.js"
import type { Token } from "./authorization.js"
import type { Repetitions } from "./repetitions.js"
import type { Limits, Transfers } from "./transfers.js"

export type Request = HttpServerRequest.HttpServerRequest

export type Response = HttpServerResponse.HttpServerResponse

export type App = HttpApp.Default<never, Scope.Scope>

/** The options of a server, decoded. Sizes are in bytes, durations in milliseconds. */
export interface Settings extends Limits {
  /** What clients see instead of the name of the storage. */
  readonly name: string
  readonly writable: boolean
  readonly auth?: { readonly tokens: ReadonlyArray<Token> } | ((app: App) => App) | undefined
  readonly origins: ReadonlyArray<string>
  readonly cacheControl: string
  readonly maxBodySize?: number | undefined
  readonly accessLog: boolean
  /** Whether the objects are also those of a model hub. */
  readonly hub: boolean
  readonly redirect?: { readonly expiresIn: number } | undefined
  readonly webSocket: {
    readonly toKey: (component: string, id: string) => string
    readonly maxObjectSize: number
  }
  /**
   * Whether each response goes to its connection unseen: then its body may be read into one array, which is written again
   * once it is sent.
   */
  readonly isUnseen: boolean
}

/** The `cache-control` of objects without one: without any, caches would guess how long an object stays current. */
export const defaultCacheControl = "no-cache"

export interface Server {
  readonly storage: Storage.Service
  readonly settings: Settings
  readonly transfers: Transfers
  /** Those that carry an id. */
  readonly saves: Repetitions<ObjectInfo>
  readonly removals: Repetitions<void>
}

export type Answer = Effect.Effect<Response, StorageError, Scope.Scope>

/** The path and query of a request, as they were sent. */
export interface Target {
  readonly path: string
  readonly query: string
}

/** A request may also name the server before the path (RFC 9112, section 3.2.2). */
export const targetOf = ({ url }: Pick<Request, "url">): Target => {
  const target = url.startsWith("/") ? url : url.replace(/^https?:\/\/[^/?]*/i, "")
  const question = target.indexOf("?")
  return question === -1
    ? { path: target, query: "" }
    : { path: target.slice(0, question), query: target.slice(question + 1) }
}
