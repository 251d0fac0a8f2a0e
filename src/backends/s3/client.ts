/**
 * From the options of a storage, or a client of the user's own, to what signs and sends requests to one bucket. The AWS SDK
 * finds credentials, region and endpoint; it is loaded when a storage is built.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as E from "../../StorageError.js"
import { Credentials } from "./credentials.js"
import { type Endpoint, noCredentials, type Signer } from "./request.js"
import { fromHandler, type Handler, type Transport } from "./transport.js"

/**
 * The parts of an `S3Client` of `@aws-sdk/client-s3` that a storage uses.
 *
 * @since 0.1.0
 * @category models
 */
export interface Client {
  readonly config: {
    /** Its credentials, renewed when they expire or `forceRefresh` is set. */
    credentials(options?: { readonly forceRefresh?: boolean }): Promise<unknown>
    /** Its region. */
    region(): Promise<string>
    /** The signer of its requests. */
    signer(scheme: {
      readonly name: string
      readonly signingName: string
      readonly signingRegion: string
      readonly properties: Record<string, unknown>
    }): Promise<Signer>
    /** The HTTP handler that sends its requests. */
    readonly requestHandler: Handler
  }
  /** Runs a command. Used once, to resolve the endpoint of the bucket; nothing is sent. */
  send(command: object): Promise<unknown>
}

/** Where a bucket is, and the credentials for it. */
export interface ClientOptions {
  readonly region: string | undefined
  readonly endpoint: string | undefined
  readonly forcePathStyle: boolean | undefined
  readonly credentials:
    | {
      readonly accessKeyId: string
      readonly secretAccessKey: Redacted.Redacted
      readonly sessionToken?: Redacted.Redacted | undefined
    }
    | undefined
  readonly profile: string | undefined
}

const sdk = Effect.tryPromise({
  try: () => import("@aws-sdk/client-s3"),
  catch: (cause) =>
    new E.UnexpectedStorageError({
      reason: "@aws-sdk/client-s3 cannot be loaded; install it beside surfing-weights: npm install @aws-sdk/client-s3",
      cause
    })
})

/** A client that is destroyed with the scope. */
export const makeClient = (options: ClientOptions): Effect.Effect<Client, E.UnexpectedStorageError, Scope.Scope> =>
  Effect.gen(function*() {
    const { S3Client } = yield* sdk
    const make = (region: string | undefined) =>
      Effect.acquireRelease(
        Effect.try({
          try: () => new S3Client(toConfig({ ...options, region })),
          catch: (cause) =>
            new E.UnexpectedStorageError({
              reason: `the AWS SDK rejects these options: ${messageOf(cause)}`,
              cause
            })
        }),
        (client) => Effect.sync(() => client.destroy())
      )
    const client = yield* make(options.region)
    if (options.endpoint === undefined) return client
    // Self-hosted servers often have no regions, but a signature needs one.
    return yield* Effect.matchEffect(Effect.tryPromise(() => client.config.region()), {
      onSuccess: () => Effect.succeed(client),
      onFailure: () => make("us-east-1")
    })
  })

const toConfig = ({ credentials, endpoint, forcePathStyle, profile, region }: ClientOptions) => ({
  ...(region !== undefined && { region }),
  ...(endpoint !== undefined && { endpoint }),
  ...(profile !== undefined && { profile }),
  // A server of one's own seldom has a name for each bucket.
  forcePathStyle: forcePathStyle ?? endpoint !== undefined,
  ...(credentials !== undefined && {
    credentials: {
      accessKeyId: credentials.accessKeyId,
      secretAccessKey: Redacted.value(credentials.secretAccessKey),
      ...(credentials.sessionToken !== undefined && { sessionToken: Redacted.value(credentials.sessionToken) })
    }
  }),
  // Its chain of providers then reads the shared files again when it is asked to, as others replace credentials in them.
  ignoreCache: true,
  // For Bun and Deno. Neither its limits nor its timeouts are needed.
  requestHandler: {
    httpAgent: { keepAlive: true, maxSockets: Infinity },
    httpsAgent: { keepAlive: true, maxSockets: Infinity }
  }
})

/**
 * What sends requests for a client of our own: connections that are closed with the scope. Bun and Deno lack what they need of
 * Node; there the request handler of the client sends.
 */
export const makeTransport = (
  client: Client
): Effect.Effect<Transport, E.UnexpectedStorageError | E.InvalidOptions, Scope.Scope> =>
  "Bun" in globalThis || "Deno" in globalThis
    ? Effect.succeed(fromHandler(client.config.requestHandler))
    : Effect.gen(function*() {
      const connections = yield* Effect.tryPromise({
        try: () => import("./connections.js"),
        catch: (cause) =>
          new E.UnexpectedStorageError({
            reason: `undici cannot be loaded: ${messageOf(cause)}; it needs Node.js 20.18.1 or newer`,
            cause
          })
      })
      const { transport } = yield* Effect.acquireRelease(
        Effect.suspend(connections.make),
        ({ close }) => Effect.sync(close)
      )
      return transport
    })

interface Connected {
  readonly endpoint: Endpoint
  readonly signer: Signer
  readonly credentials: Credentials
}

/** Where a bucket is, and what signs requests to it. Fails unless credentials are found within `idleTimeout` milliseconds. */
export const connect = (
  client: Client,
  bucket: string,
  idleTimeout: number,
  profile: string | undefined
): Effect.Effect<Connected, E.CommonError | E.UnsupportedOperation> =>
  Effect.gen(function*() {
    // They are asked for again with each request.
    yield* Effect.tryPromise({
      try: () => client.config.credentials(),
      catch: (cause) => noCredentials(cause, profile)
    })
    yield* Effect.tryPromise({
      try: () => client.config.region(),
      catch: (cause) =>
        new E.StorageNotFound({
          reason: "the region of the bucket is not known; set region or AWS_REGION, or a region in the profile",
          cause
        })
    })
    const endpoint = yield* resolve(client, bucket)
    const { signingName, signingRegion } = endpoint
    const signer = yield* Effect.tryPromise({
      try: () => client.config.signer({ name: "sigv4", signingName, signingRegion, properties: {} }),
      catch: (cause) =>
        new E.UnexpectedStorageError({
          reason: `the client has no signer for its requests: ${messageOf(cause)}`,
          cause
        })
    })
    const credentials = new Credentials((options) => client.config.credentials(options))
    return { endpoint, signer, credentials }
  }).pipe(
    Effect.timeoutFail({
      duration: idleTimeout,
      onTimeout: () => new E.StorageTimeout({ limit: Duration.millis(idleTimeout) })
    })
  )

/** Resolves the endpoint of the bucket: a command runs through the client's middleware up to that point. */
const resolve = (
  client: Client,
  bucket: string
): Effect.Effect<Endpoint, E.StorageNotFound | E.UnsupportedOperation | E.UnexpectedStorageError> =>
  Effect.gen(function*() {
    const { HeadBucketCommand } = yield* sdk
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
      // Without the cause: like the message, it may quote an endpoint of the environment, with a password.
      catch: (cause) => {
        const message = messageOf(cause)
        const problem = message.includes("://")
          ? "it is not a valid URL (AWS_ENDPOINT_URL, or that of the profile)"
          : message
        return new E.StorageNotFound({
          reason: `the AWS SDK cannot resolve the endpoint of the bucket ${JSON.stringify(bucket)}: ${problem}`
        })
      }
    })
    const scheme = found?.properties?.authSchemes?.[0]
    if (found === undefined || scheme === undefined) {
      return yield* new E.UnexpectedStorageError({
        reason: "the AWS SDK resolved no endpoint or no way to sign requests"
      })
    }
    if (scheme.name === "sigv4-s3express") {
      return yield* new E.UnsupportedOperation({
        reason: "a directory bucket (S3 Express One Zone) does not list its keys in order; use a general purpose bucket"
      })
    }
    return toEndpoint(found, scheme)
  })

const toEndpoint = (
  { headers, url: { hostname, pathname, port, protocol } }: ResolvedEndpoint,
  scheme: Scheme
): Endpoint => ({
  protocol,
  hostname,
  ...(port !== "" && { port: Number(port) }),
  path: pathname.replace(/\/$/, ""),
  headers: Object.fromEntries(Object.entries(headers ?? {}).map(([name, values]) => [name, values.join(",")])),
  signingName: scheme.signingName ?? "s3",
  signingRegion: scheme.signingRegion ?? scheme.signingRegionSet?.[0] ?? "us-east-1"
})

interface Scheme {
  readonly name: string
  readonly signingName?: string
  readonly signingRegion?: string
  readonly signingRegionSet?: ReadonlyArray<string>
}

interface ResolvedEndpoint {
  readonly url: URL
  readonly headers?: Readonly<Record<string, ReadonlyArray<string>>>
  readonly properties?: { readonly authSchemes?: ReadonlyArray<Scheme> }
}

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)
