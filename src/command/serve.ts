/**
 * `serve`: a folder over HTTP, until a signal stops the server, after the transfers that are under way.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as fs from "node:fs"
import * as http from "node:http"
import * as https from "node:https"
import * as WeightServer from "../server/WeightServer.js"
import * as Storage from "../Storage.js"
import * as StorageCache from "../wrappers/StorageCache.js"
import { CommandFailed, UsageError } from "./failures.js"
import * as Places from "./places.js"
import { parseDuration, parsePort, parseSize } from "./values.js"

interface Input {
  readonly place: string
  readonly host: string | undefined
  readonly port: string | undefined
  readonly writable: boolean
  readonly tokenFile: string | undefined
  readonly tlsCert: string | undefined
  readonly tlsKey: string | undefined
  readonly origin: ReadonlyArray<string>
  readonly redirect: string | undefined
  readonly cache: string | undefined
  readonly name: string | undefined
  readonly hub: boolean
  readonly accessLog: boolean
}

export const serve = (input: Input) =>
  Effect.gen(function*() {
    const address = {
      host: input.host ?? WeightServer.defaultAddress.host,
      port: input.port === undefined ? WeightServer.defaultAddress.port : yield* parsePort("port", input.port)
    }
    const options = yield* optionsOf(input)
    const createServer = yield* serverOf(input)
    const storage = yield* storageOf(input)
    const server = WeightServer.layer(options).pipe(
      Layer.provide(NodeHttpServer.layer(createServer, address)),
      // Last, so that the server listens once the storage is ready.
      Layer.provide(Layer.succeed(Storage.Storage, storage))
    )
    return yield* Layer.launch(server)
  }).pipe(
    Effect.catchTag("ServeError", ({ cause }) =>
      new CommandFailed({
        message: `cannot serve: ${
          cause instanceof Error ? cause.message : String(cause)
        }; choose another --host or --port`,
        cause
      })),
    // A server that a signal has stopped has done its work.
    Effect.onInterrupt(() =>
      Effect.sync(() => {
        process.exitCode = 0
      })
    )
  )

/** The storage to serve. One that does not exist or cannot be read fails now, not with the first request. */
const storageOf = ({ cache, place }: Input) =>
  Effect.gen(function*() {
    const capacity = cache === undefined ? undefined : yield* parseSize("cache", cache)
    const storage = yield* Effect.flatMap(Places.openFolder(place, "read"), Places.folderOf)
    if (storage.backend.capabilities.list) yield* Stream.runHead(storage.entries())
    return capacity === undefined ? storage : yield* StorageCache.make(storage, { capacity })
  })

const optionsOf = (input: Input) =>
  Effect.gen(function*() {
    const { accessLog, hub, name, origin, redirect, tokenFile, writable } = input
    const tokens = tokenFile === undefined ? undefined : yield* readTokens(tokenFile)
    const expiresIn = redirect === undefined ? undefined : yield* parseDuration("redirect", redirect)
    const options: WeightServer.Options = {
      accessLog,
      hub,
      name,
      origins: origin,
      writable,
      auth: tokens && { tokens },
      redirect: expiresIn && { expiresIn }
    }
    return options
  })

/** Lines such as `read <token>` and `write <token>`. */
const readTokens = (file: string): Effect.Effect<ReadonlyArray<WeightServer.Token>, UsageError> =>
  Effect.flatMap(readText("token-file", file), (text) =>
    Effect.forEach(
      text.split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#")),
      (line, index) => {
        const [, scope, token] = /^(read|write)\s+(\S+)$/.exec(line) ?? []
        return token === undefined
          ? Effect.fail(
            new UsageError({
              message: `--token-file must have lines such as "read <token>" and "write <token>"; token ${
                index + 1
              } of ${file} is not one`
            })
          )
          : Effect.succeed({
            token: Redacted.make(token),
            scope: scope === "write" ? "write" as const : "read" as const
          })
      }
    ))

const readText = (option: string, file: string): Effect.Effect<string, UsageError> =>
  Effect.try({
    try: () => fs.readFileSync(file, "utf8"),
    catch: (error) =>
      new UsageError({
        message: `--${option} must be a file that can be read (${
          error instanceof Error ? error.message : String(error)
        })`
      })
  })

/** Node's server. Uploads may take any time: the weight server cuts off idle ones. */
const serverOf = ({ tlsCert, tlsKey }: Input) =>
  Effect.gen(function*() {
    const limits = { headersTimeout: 10_000, requestTimeout: 0 }
    if (tlsCert === undefined && tlsKey === undefined) return () => http.createServer(limits)
    if (tlsCert === undefined || tlsKey === undefined) {
      return yield* new UsageError({ message: "--tls-cert and --tls-key must be given together" })
    }
    const tls = { cert: yield* readText("tls-cert", tlsCert), key: yield* readText("tls-key", tlsKey) }
    const server = yield* Effect.try({
      try: () => https.createServer({ ...limits, ...tls }),
      catch: (cause) =>
        new UsageError({
          message: `--tls-cert and --tls-key must be a certificate and its key in PEM (${
            cause instanceof Error ? cause.message : String(cause)
          })`
        })
    })
    return () => server
  })
