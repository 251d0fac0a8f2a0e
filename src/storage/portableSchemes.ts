/**
 * The schemes of storage URLs that work on every platform.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { invalid, type Scheme } from "./place.js"
import * as Query from "./query.js"

const httpQuery = Schema.Struct({ static: Query.boolean, idleTimeout: Query.duration, verify: Query.boolean })

/** With the app's `HttpClient` where it has one, else with `fetch`. */
const withClient = <A, E>(making: Effect.Effect<A, E, HttpClient.HttpClient>): Effect.Effect<A, E> =>
  Effect.flatMap(
    Effect.serviceOption(HttpClient.HttpClient),
    Option.match({
      onNone: () => Effect.provide(making, FetchHttpClient.layer),
      onSome: (client) => Effect.provideService(making, HttpClient.HttpClient, client)
    })
  )

export const http: Scheme = ({ href, query }) =>
  Effect.gen(function*() {
    const options = yield* Query.options(httpQuery, query)
    const { make } = yield* Effect.promise(() => import("../backends/HttpStorage.js"))
    return yield* withClient(make({ url: href, ...options }))
  })

const hfQuery = Schema.Struct({ endpoint: Query.text, idleTimeout: Query.duration })

/** `hf://org/name@revision`. */
export const hf: Scheme = ({ authority, path, query }) =>
  Effect.gen(function*() {
    const [, name, revision] = /^\/([^/@]+)(?:@(.+))?$/s.exec(path.replace(/\/+$/, "")) ?? []
    if (authority === "" || name === undefined) {
      return yield* invalid("url", "must be hf://<org>/<name> or hf://<org>/<name>@<revision>")
    }
    const options = yield* Query.options(hfQuery, query)
    const { make } = yield* Effect.promise(() => import("../backends/HuggingFaceStorage.js"))
    return yield* withClient(make({ repo: `${authority}/${name}`, revision, ...options }))
  })

export const memory: Scheme = ({ query }) =>
  Effect.gen(function*() {
    const [option] = Object.keys(query)
    if (option !== undefined) return yield* invalid(option, "is not an option of memory:, which has none")
    const { make } = yield* Effect.promise(() => import("../backends/MemoryStorage.js"))
    return yield* make()
  })
