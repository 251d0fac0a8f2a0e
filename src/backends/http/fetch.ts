/**
 * What a client over `fetch` is told with each request: to leave redirects to the storage, and to use the proxy of the
 * environment. Other clients do not look at it.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import type { InvalidOptions } from "../../StorageError.js"
import { isBrowser } from "./transport.js"

/** The same client, which follows no redirect by itself and uses the proxy of the environment, as far as it can be told. */
export const prepareClient = (
  client: HttpClient.HttpClient
): Effect.Effect<HttpClient.HttpClient, InvalidOptions> =>
  // A browser does not show where a redirect leads, and has a proxy of its own.
  isBrowser ? Effect.succeed(client) : Effect.map(proxyInit, (proxy) => {
    const telling = FiberRef.update(FiberRef.currentContext, (context) => {
      const given: object = Option.getOrElse(Context.getOption(context, FetchHttpClient.RequestInit), () => ({}))
      const init = Object.assign({}, proxy, given, { redirect: "manual" } as const)
      return Context.add(context, FetchHttpClient.RequestInit, init)
    })
    // There the context of the client's own layer is known, whose options stay.
    const told = HttpClient.mapRequestEffect(client, (request) => Effect.as(telling, request))
    // As a whole, so that no other transformation separates the two.
    return HttpClient.makeWith(
      (request: Effect.Effect<HttpClientRequest>) => Effect.flatMap(request, (request) => told.execute(request)),
      (request) => Effect.succeed(request)
    )
  })

const names = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"]

/** The option of Node's `fetch` for a proxy, if there is one. */
const proxyInit: Effect.Effect<object, InvalidOptions> = Effect.suspend(() => {
  // Bun and Deno use it by themselves.
  const isNode = "process" in globalThis && !("Bun" in globalThis) && !("Deno" in globalThis)
  return isNode && names.some((name) => (process.env[name] ?? "") !== "")
    ? Effect.flatMap(
      Effect.promise(() => import("../../internal/proxy.js")),
      ({ sharedProxy }) => Effect.map(sharedProxy(), (dispatcher) => dispatcher === undefined ? {} : { dispatcher })
    )
    : Effect.succeed({})
})
