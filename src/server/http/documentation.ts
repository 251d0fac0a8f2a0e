/**
 * The definition of a server as an OpenAPI document for programs, and as a page for people. Loaded when one of them is asked
 * for, as the scripts of the page are large.
 */
import * as HttpApiSwagger from "@effect/platform/HttpApiSwagger"
import * as HttpLayerRouter from "@effect/platform/HttpLayerRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Effect from "effect/Effect"
import type { makeApi } from "./api.js"
import { json, noSniff, refusal } from "./responses.js"
import type { Answer, Request, Response } from "./server.js"

type Api = ReturnType<typeof makeApi>

export const openApiResponse = (api: Api): Response => json(JSON.stringify(OpenApi.fromApi(api)))

/** The page has its scripts and styles in it, and asks no other server. */
const policy =
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"

/** The page of Swagger UI, which the platform offers as a route. */
export const docsResponse = (api: Api, request: Request): Answer =>
  HttpLayerRouter.toHttpEffect(HttpApiSwagger.layerHttpLayerRouter({ api, path: "/docs" })).pipe(
    Effect.flatten,
    Effect.provideService(HttpServerRequest.HttpServerRequest, request),
    Effect.map(HttpServerResponse.setHeaders({ ...noSniff, "content-security-policy": policy })),
    Effect.catchTag("RouteNotFound", () => Effect.succeed(refusal(404, "there is nothing at this path")))
  )
