/**
 * The definition of a server as an OpenAPI document for programs, and as a page for people. Loaded when one of them is asked
 * for, as the scripts of the page are large.
 */
import * as HttpApiSwagger from "@effect/platform/HttpApiSwagger"
import * as HttpBody from "@effect/platform/HttpBody"
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

/** Swagger UI's tables are wider than a phone: there, each cell is on a line of its own. */
const style = `
.swagger-ui .response-col_links { display: none }
.swagger-ui .renderedMarkdown pre > code { color: inherit; font-weight: 400; white-space: pre; display: block; overflow-x: auto }
.swagger-ui table.headers { display: block; overflow-x: auto }
@media (max-width: 640px) {
  .swagger-ui .wrapper, .swagger-ui .opblock-body .opblock-section-header { padding-left: 8px; padding-right: 8px }
  .swagger-ui .responses-inner, .swagger-ui .parameters-container .table-container { padding: 8px }
  .swagger-ui .parameters > thead, .swagger-ui .responses-table > thead { display: none }
  .swagger-ui .parameters, .swagger-ui .parameters > tbody, .swagger-ui .parameters > tbody > tr,
  .swagger-ui .parameters > tbody > tr > td, .swagger-ui .responses-table, .swagger-ui .responses-table > tbody,
  .swagger-ui .responses-table > tbody > tr, .swagger-ui .responses-table > tbody > tr > td
    { display: block; width: auto; max-width: 100%; padding-bottom: 4px }
  .swagger-ui .parameters input, .swagger-ui .parameters select { width: 100%; max-width: 100% }
}
`

/** The page with a style of our own after that of Swagger UI. */
const styled = (page: Response): Response =>
  page.body._tag === "Uint8Array"
    ? HttpServerResponse.setBody(
      page,
      HttpBody.text(
        new TextDecoder().decode(page.body.body).replace("</head>", () => `<style>${style}</style></head>`),
        page.body.contentType
      )
    )
    : page

/** The page of Swagger UI, which the platform offers as a route. */
export const docsResponse = (api: Api, request: Request): Answer =>
  HttpLayerRouter.toHttpEffect(HttpApiSwagger.layerHttpLayerRouter({ api, path: "/docs" })).pipe(
    Effect.flatten,
    Effect.provideService(HttpServerRequest.HttpServerRequest, request),
    Effect.map(styled),
    Effect.map(HttpServerResponse.setHeaders({ ...noSniff, "content-security-policy": policy })),
    Effect.catchTag("RouteNotFound", () => Effect.succeed(refusal(404, "there is nothing at this path")))
  )
