/**
 * What clients of a model hub ask (https://huggingface.co/docs/hub/api), over objects under `<org>/<name>/<file>`. There is
 * one revision of each model, the current one: `main`. Each request lists the model, to know it.
 */
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { formatEtag } from "../../../internal/protocol.js"
import * as ObjectKey from "../../../ObjectKey.js"
import { type StorageError, StorageUnavailable } from "../../../StorageError.js"
import { getObject, headObject } from "../download.js"
import { refusal, serverName } from "../responses.js"
import type { Answer, Request, Response, Server } from "../server.js"
import { entriesJson, Page, Paths, siblingsJson } from "./entries.js"
import { Hashes } from "./hashes.js"
import { patientJson } from "./patience.js"
import { type File, type Repository, requireRevision, scan } from "./repository.js"
import {
  type ApiTarget,
  isOtherFile,
  nextLink,
  parseApiPath,
  parseFilePath,
  parseTreeQuery,
  receivePaths,
  type Target,
  wantsBlobs
} from "./requests.js"
import { Missing, missing } from "./responses.js"

type HubAnswer = Effect.Effect<Response, StorageError | Missing, Scope.Scope>

type Handler = (request: Request, rest: string, query: string) => Answer

/** The handlers of a hub: of what is below `/api/models/`, and of all files. */
export interface Hub {
  readonly api: Handler
  readonly files: Handler
}

export const make = (server: Server): Effect.Effect<Hub, never, Scope.Scope> =>
  Effect.map(Effect.scope, (scope) => {
    const hashes = new Hashes(server.storage, scope)
    return {
      api: (request, rest, query) =>
        answered(
          request,
          Option.match(Option.filter(parseApiPath(rest), isModel), {
            onNone: () => Effect.fail(new Missing({ code: "RepoNotFound" })),
            onSome: (target) => answerApi(server, hashes, request, target, query)
          })
        ),
      files: (request, rest) =>
        answered(
          request,
          Option.match(parseFilePath(rest), {
            onNone: () =>
              isOtherFile(rest) || rest.startsWith("api/")
                ? Effect.fail(new Missing({ code: "RepoNotFound" }))
                : Effect.succeed(refusal(404, "there is nothing at this path")),
            onSome: (target) => sendFile(server, hashes, request, target)
          })
        )
    }
  })

const answered = (request: Request, answer: HubAnswer): Answer =>
  Effect.catchTag(answer, "Missing", (error) => Effect.succeed(missing(request, error)))

const isModel = ({ id }: Target): boolean => ObjectKey.problem(id) === undefined && id.split("/").length === 2

// The API

/** More siblings are not listed: clients then list the tree. */
const maxSiblings = 50_001

const answerApi = (
  server: Server,
  hashes: Hashes,
  request: Request,
  target: ApiTarget,
  query: string
): HubAnswer => {
  const isPost = request.method === "POST"
  if (isPost !== (target.what === "paths-info")) {
    const allow = isPost ? "GET, HEAD" : "POST"
    return Effect.succeed(refusal(405, `${request.method} is not supported here; use ${allow}`, { allow }))
  }
  switch (target.what) {
    case "info":
      return sendInfo(server, hashes, request, target, wantsBlobs(query))
    case "tree":
      return sendTree(server, hashes, request, target, query)
    case "paths-info":
      return sendPaths(server, hashes, request, target)
  }
}

const sendInfo = (
  server: Server,
  hashes: Hashes,
  request: Request,
  { id, revision }: Target,
  withBlobs: boolean
): HubAnswer =>
  Effect.gen(function*() {
    const transfer = yield* server.transfers.begin(request)
    const files: Array<File> = []
    const repository = yield* scan(server.storage, id, (file) => {
      if (files.length < maxSiblings) files.push(file)
    })
    yield* requireRevision(repository, revision)
    // A client asks for the hash of each file next, and does not wait for it as long.
    const described = siblingsJson(hashes, files)
    const siblings = withBlobs
      ? described
      : Effect.as(Effect.ignore(described), files.map(({ path }) => ({ rfilename: path })))
    return yield* patientJson(
      server,
      request,
      transfer,
      noStore,
      Effect.map(unchanged(siblings), (siblings) => infoJson(server, repository, siblings))
    )
  })

const infoJson = ({ settings }: Server, repository: Repository, siblings: ReadonlyArray<unknown>) => {
  const { commit, id, lastModified, size } = repository
  return {
    _id: commit.slice(0, 24),
    id,
    modelId: id,
    author: id.split("/")[0],
    sha: commit,
    lastModified,
    private: settings.auth !== undefined,
    gated: false,
    disabled: false,
    downloads: 0,
    likes: 0,
    tags: [],
    usedStorage: size,
    siblings
  }
}

/** A link depends on the address that the client used. */
const noStore = { "cache-control": "no-store" }

const sendTree = (
  server: Server,
  hashes: Hashes,
  request: Request,
  { id, path, revision }: Target,
  query: string
): HubAnswer =>
  Effect.gen(function*() {
    const { isExpanded, ...selected } = parseTreeQuery(query)
    const page = new Page({ folder: path, ...selected })
    const transfer = yield* server.transfers.begin(request)
    const repository = yield* scan(server.storage, id, (file) => page.visit(file))
    yield* requireRevision(repository, revision)
    if (!page.isFound) return yield* new Missing({ code: "EntryNotFound" })
    const headers = { ...noStore, ...(page.next !== undefined && { link: nextLink(request, page.next) }) }
    const entries = entriesJson(hashes, repository, page.entries, isExpanded)
    return yield* patientJson(server, request, transfer, headers, unchanged(entries))
  })

const sendPaths = (server: Server, hashes: Hashes, request: Request, { id, revision }: Target): HubAnswer =>
  Effect.gen(function*() {
    const transfer = yield* server.transfers.begin(request)
    const query = yield* receivePaths(request, transfer)
    if (Option.isNone(query)) {
      return refusal(400, "the body must have up to 1000 paths, as JSON or a form, within 1 MiB")
    }
    const paths = new Paths(query.value.paths)
    const repository = yield* scan(server.storage, id, (file) => paths.visit(file))
    yield* requireRevision(repository, revision)
    const entries = entriesJson(hashes, repository, paths.entries, query.value.isExpanded)
    return yield* patientJson(server, request, transfer, noStore, unchanged(entries))
  })

/** A file that is replaced while it is hashed belongs to no revision. */
const unchanged = <A>(effect: Effect.Effect<A, StorageError>): Effect.Effect<A, StorageError> =>
  Effect.mapError(effect, (error) => isChange(error) ? changing() : error)

const isChange = ({ _tag }: StorageError): boolean => _tag === "PreconditionFailed" || _tag === "ObjectNotFound"

const changing = () =>
  new StorageUnavailable({
    backend: serverName,
    reason: "files of the model are being replaced",
    retryAfter: Duration.seconds(1)
  })

// Files

/** How often a file that is replaced between the listing and its response is looked at. */
const maxAttempts = 5

/** A response to `GET` waits no longer for the hash of the file: clients that need it ask for it before. */
const hashTimeout = "5 seconds"

const sendFile = (server: Server, hashes: Hashes, request: Request, target: Target): HubAnswer => {
  const attempt = (left: number): HubAnswer =>
    Effect.flatMap(
      tryFile(server, hashes, request, target),
      Option.match({
        onNone: () => left > 1 ? attempt(left - 1) : Effect.fail(changing()),
        onSome: (response) => Effect.succeed(response)
      })
    )
  return attempt(maxAttempts)
}

/** `None` where the file was replaced since the listing. */
const tryFile = (
  server: Server,
  hashes: Hashes,
  request: Request,
  { id, path, revision }: Target
): Effect.Effect<Option.Option<Response>, StorageError | Missing, Scope.Scope> =>
  Effect.gen(function*() {
    let found: File | undefined
    const repository = yield* scan(server.storage, id, (file) => {
      if (file.path === path) found = file
    })
    yield* requireRevision(repository, revision)
    if (found === undefined) return yield* new Missing({ code: "EntryNotFound" })
    const { info } = found
    const isHead = request.method === "HEAD"
    const hashing = Effect.asSome(hashes.of(info))
    const hash = yield* isHead ? hashing : Effect.map(Effect.timeoutOption(hashing, hashTimeout), Option.flatten)
    const response = yield* isHead ? headObject(server, request, info.key) : getObject(server, request, info.key)
    const { etag } = response.headers
    if (etag !== undefined && etag !== formatEtag(info.etag)) return Option.none()
    return Option.some(describe(response, repository, info.size, hash))
  }).pipe(
    Effect.catchIf((error) => error._tag === "ObjectNotFound", () => Effect.succeedNone)
  )

const describe = (
  response: Response,
  { commit }: Repository,
  size: number,
  hash: Option.Option<string>
): Response =>
  HttpServerResponse.setHeaders(response, {
    // The bytes are those that were saved, and are hashed: no client must decode them.
    ...(response.headers["content-encoding"] !== undefined && { "content-encoding": "identity" }),
    "x-repo-commit": commit,
    "x-linked-size": String(size),
    ...(Option.isSome(hash) && { "x-linked-etag": `"${hash.value}"` })
  })
