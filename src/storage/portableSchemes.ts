/**
 * The schemes of storage URLs that work on every platform.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Query from "./query.js"
import { invalid, type Scheme } from "./url.js"

const httpQuery = Schema.Struct({ static: Query.boolean, idleTimeout: Query.duration, verify: Query.boolean })

/** With the app's `HttpClient` where it has one, else with `fetch`. */
export const http: Scheme = ({ href, query }) =>
  Effect.gen(function*() {
    const options = yield* Query.options(httpQuery, query)
    const { make } = yield* Effect.promise(() => import("../backends/HttpStorage.js"))
    const making = make({ url: href, ...options })
    return yield* Option.match(yield* Effect.serviceOption(HttpClient.HttpClient), {
      onNone: () => Effect.provide(making, FetchHttpClient.layer),
      onSome: (client) => Effect.provideService(making, HttpClient.HttpClient, client)
    })
  })

export const memory: Scheme = ({ query }) =>
  Effect.gen(function*() {
    const [option] = Object.keys(query)
    if (option !== undefined) return yield* invalid(option, "is not an option of memory:, which has none")
    const { make } = yield* Effect.promise(() => import("../backends/MemoryStorage.js"))
    return yield* make()
  })
