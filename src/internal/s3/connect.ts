/**
 * From the SDK's settings to a connection: an `S3Client`, of which the SDK finds credentials, region and endpoint as it
 * does for everybody, and what it takes to send requests to one bucket with it.
 */
import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as E from "../../StorageError.js"
import { type Connection, type Endpoint, noCredentials } from "./exchange.js"
import { overHandler, type Transport } from "./transport.js"

/** The SDK, loaded when it is needed. */
const sdk = (backend: string) =>
  Effect.tryPromise({
    try: () => import("@aws-sdk/client-s3"),
    catch: (cause) =>
      new E.UnexpectedStorageError({
        backend,
        operation: "open",
        reason:
          "@aws-sdk/client-s3 cannot be loaded; install it beside surfing-weights: npm install @aws-sdk/client-s3",
        cause
      })
  })

/** An `S3Client` that goes with the scope. */
export const makeClient = (
  backend: string,
  config: S3ClientConfig
): Effect.Effect<S3Client, E.UnexpectedStorageError, Scope.Scope> =>
  Effect.gen(function*() {
    const { S3Client } = yield* sdk(backend)
    const make = (config: S3ClientConfig) =>
      Effect.acquireRelease(
        Effect.try({
          try: () => new S3Client(config),
          catch: (cause) =>
            new E.UnexpectedStorageError({
              backend,
              operation: "open",
              reason: `the options do not make a client: ${messageOf(cause)}`,
              cause
            })
        }),
        (client) => Effect.sync(() => client.destroy())
      )
    const client = yield* make(config)
    if (config.endpoint === undefined) return client
    // A server of one's own seldom knows regions, but a signature needs one.
    return yield* Effect.matchEffect(Effect.tryPromise(() => client.config.region()), {
      onSuccess: () => Effect.succeed(client),
      onFailure: () => make({ ...config, region: "us-east-1" })
    })
  })

/**
 * What sends requests for this client: connections of our own, which go with the scope. They need more of Node than Bun and
 * Deno have; there it is what the client has itself.
 */
export const makeTransport = (
  backend: string,
  client: S3Client
): Effect.Effect<Transport, E.UnexpectedStorageError, Scope.Scope> =>
  "Bun" in globalThis || "Deno" in globalThis
    ? Effect.succeed(overHandler(client.config.requestHandler))
    : Effect.gen(function*() {
      const connections = yield* Effect.tryPromise({
        try: () => import("./connections.js"),
        catch: (cause) =>
          new E.UnexpectedStorageError({
            backend,
            operation: "open",
            reason: `undici cannot be loaded: ${messageOf(cause)}; it needs Node.js 20.18.1 or newer`,
            cause
          })
      })
      const { transport } = yield* Effect.acquireRelease(
        Effect.sync(connections.make),
        ({ close }) => Effect.sync(close)
      )
      return transport
    })

/** What sends requests to `bucket`, signed by this client; `idleLimit` in milliseconds. */
export const connect = (
  backend: string,
  client: S3Client,
  bucket: string,
  idleLimit: number,
  transport: Transport,
  profile?: string
): Effect.Effect<Connection, E.CommonError | E.UnsupportedOperation> =>
  Effect.flatMap(
    Effect.zipRight(authenticate(backend, client, bucket, profile), resolve(backend, client, bucket)),
    (endpoint) =>
      Effect.map(
        Effect.tryPromise({
          try: () =>
            client.config.signer({
              name: "sigv4",
              signingName: endpoint.signingName,
              signingRegion: endpoint.signingRegion,
              properties: {}
            }),
          catch: (cause) =>
            new E.UnexpectedStorageError({
              backend,
              operation: "open",
              reason: `the client has no signer for its requests: ${messageOf(cause)}`,
              cause
            })
        }),
        (signer) => ({
          transport,
          endpoint,
          signer,
          idleLimit,
          clockOffset: 0,
          bareEtags: false
        })
      )
  ).pipe(
    Effect.timeoutFail({
      duration: idleLimit,
      onTimeout: () => new E.StorageTimeout({ backend, operation: "open", limit: Duration.millis(idleLimit) })
    })
  )

/** Finds credentials, which are asked for again with each request. */
const authenticate = (backend: string, client: S3Client, bucket: string, profile: string | undefined) =>
  Effect.tryPromise({
    try: () => client.config.credentials(),
    catch: (cause) => noCredentials({ backend, bucket, operation: "open" }, cause, profile)
  })

/** Where the bucket is: a command goes through the SDK as far as that is known, and no further. */
const resolve = (
  backend: string,
  client: S3Client,
  bucket: string
): Effect.Effect<Endpoint, E.StorageNotFound | E.UnsupportedOperation | E.UnexpectedStorageError> =>
  Effect.gen(function*() {
    const { HeadBucketCommand } = yield* sdk(backend)
    let found: ResolvedEndpoint | undefined
    const command = new HeadBucketCommand({ Bucket: bucket })
    command.middlewareStack.add(
      (_, context) => () => {
        found = context["endpointV2"]
        return Promise.resolve({ response: {}, output: { $metadata: {} } })
      },
      { step: "serialize", priority: "low", name: "endpointOfTheBucket" }
    )
    yield* Effect.tryPromise({
      try: () => client.send(command),
      catch: (cause) =>
        new E.StorageNotFound({
          backend,
          operation: "open",
          reason: messageOf(cause) === "Region is missing"
            ? "the region of the bucket is not known; set region or AWS_REGION, or a region in the profile"
            : `where the bucket ${JSON.stringify(bucket)} is cannot be told: ${messageOf(cause)}`,
          cause
        })
    })
    const scheme = found?.properties?.authSchemes?.[0]
    if (found === undefined || scheme === undefined) {
      return yield* Effect.dieMessage("bug: an endpoint without a signer")
    }
    if (scheme.name === "sigv4-s3express") {
      return yield* new E.UnsupportedOperation({
        backend,
        operation: "open",
        reason: "a directory bucket (S3 Express One Zone) does not list its keys in order; use a general purpose bucket"
      })
    }
    const url = new URL(found.url)
    return {
      protocol: url.protocol,
      hostname: url.hostname,
      ...(url.port !== "" && { port: Number(url.port) }),
      path: url.pathname.replace(/\/$/, ""),
      headers: Object.fromEntries(
        Object.entries(found.headers ?? {}).map(([name, values]) => [name, values.join(",")])
      ),
      signingName: scheme.signingName ?? "s3",
      signingRegion: scheme.signingRegion ?? scheme.signingRegionSet?.[0] ?? "us-east-1"
    }
  })

interface ResolvedEndpoint {
  readonly url: URL
  readonly headers?: Readonly<Record<string, ReadonlyArray<string>>>
  readonly properties?: {
    readonly authSchemes?: ReadonlyArray<{
      readonly name: string
      readonly signingName?: string
      readonly signingRegion?: string
      readonly signingRegionSet?: ReadonlyArray<string>
    }>
  }
}

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)
