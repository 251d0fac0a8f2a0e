/**
 * Passwords in URLs are shown nowhere, whatever is wrong with the URL.
 */
import { S3Client } from "@aws-sdk/client-s3"
import { expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Redacted, Schedule, type Scope } from "effect"
import * as http from "node:http"
import { inspect } from "node:util"
import { HttpStorage, S3Storage, Storage, type StorageError } from "surfing-weights"
import { fetchClient } from "../support/httpClients.js"
import { listen } from "../support/loopback.js"

const secret = "Sw0rdf1sh"
const retry = Schedule.recurs(0)
const bucket = { bucket: "models", region: "us-east-1", retry }
const credentials = { accessKeyId: "a", secretAccessKey: Redacted.make("b") }

const urls = [
  `http://user:${secret}@127.0.0.1:1`,
  `https://user:${secret}@`,
  `http//user:${secret}@host.invalid`,
  `user:${secret}@host.invalid`,
  `user:${secret}`,
  `ftp://user:${secret}@host.invalid`,
  `http://${secret}@host.invalid`,
  `http://user:${secret}@ho st`,
  `http://user:${secret}@host.invalid:99999`,
  `http://user:${secret}%40host.invalid`,
  ` http://user:${secret}@host.invalid`,
  `http://user:${secret}@[::1`,
  `http:user:${secret}@host.invalid`,
  `http://host.invalid?token=${secret}`
]

type Open = (url: string) => Effect.Effect<unknown, StorageError.StorageError, Scope.Scope>

const withEnvironment = (url: string, opening: ReturnType<Open>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      process.env["AWS_ENDPOINT_URL"] = url
    }),
    () => opening,
    () => Effect.sync(() => delete process.env["AWS_ENDPOINT_URL"])
  )

const ways: ReadonlyArray<readonly [name: string, open: Open]> = [
  ["the endpoint of S3Storage", (endpoint) => S3Storage.make({ ...bucket, credentials, endpoint })],
  ["AWS_ENDPOINT_URL", (url) => withEnvironment(url, S3Storage.make({ ...bucket, credentials }))],
  ["the endpoint of an S3 client", (endpoint) =>
    Effect.flatMap(
      Effect.try({
        try: () =>
          new S3Client({ endpoint, region: "us-east-1", credentials: { accessKeyId: "a", secretAccessKey: "b" } }),
        // Not of ours.
        catch: () => undefined
      }).pipe(Effect.orElseSucceed(() => undefined)),
      (client) =>
        client === undefined ? Effect.interrupt : S3Storage.makeFromClient(client, { bucket: "models", retry })
    )],
  ["the url of HttpStorage", (url) => Effect.provide(HttpStorage.make({ url, retry }), fetchClient[1])],
  ["Storage.fromUrl", (url) => Effect.provide(Storage.fromUrl(url), fetchClient[1])],
  [
    "the endpoint in a URL for S3",
    (url) => Storage.fromUrl(`s3://models?region=r&endpoint=${encodeURIComponent(url)}`)
  ],
  ["the same, not encoded", (url) => Storage.fromUrl(`s3://models?region=r&endpoint=${url}`)]
]

for (const [name, open] of ways) {
  it.scopedLive(`a password in ${name} is not shown`, () =>
    Effect.forEach(urls, (url) =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(open(url))
        expect(Exit.isFailure(exit), url).toBe(true)
        if (Exit.isSuccess(exit)) return
        const failure = Cause.squash(exit.cause)
        const shown = [
          String(failure),
          failure instanceof Error ? failure.stack : "",
          inspect(failure, { depth: 20, showHidden: true }),
          JSON.stringify(failure),
          Cause.pretty(exit.cause, { renderErrorCause: true })
        ]
        expect(shown.join("\n"), url).not.toContain(secret)
      }), { discard: true }))
}

/** A server, and how often it was asked. */
const counting = (listener: http.RequestListener) =>
  Effect.gen(function*() {
    let asked = 0
    const { endpoint } = yield* listen(http.createServer((request, response) => {
      asked++
      listener(request, response)
    }))
    return { endpoint, asked: () => asked }
  })

it.scopedLive("an address with credentials is refused before anything is sent there", () =>
  Effect.gen(function*() {
    const { asked, endpoint } = yield* counting((_, response) => response.end())
    for (const user of [`user:${secret}`, secret, `:${secret}`]) {
      const url = endpoint.replace("//", `//${user}@`)
      for (
        const [open, option] of [
          [S3Storage.make({ ...bucket, credentials, endpoint: url }), "endpoint"],
          [Storage.fromUrl(`s3://models?region=r&endpoint=${encodeURIComponent(url)}`), "endpoint"],
          [Effect.provide(HttpStorage.make({ url, retry }), fetchClient[1]), "url"]
        ] as const
      ) {
        const failure = yield* Effect.flip(open)
        expect(failure).toMatchObject({ _tag: "InvalidOptions", option })
        expect(failure.message).toContain("credentials")
      }
    }
    expect(asked()).toBe(0)
  }))

it.scopedLive("a redirect of an S3 server is not followed, and its URL not shown", () =>
  Effect.gen(function*() {
    const other = yield* counting((_, response) => response.writeHead(200, { etag: "\"e\"" }).end("a"))
    for (const status of [301, 302, 307, 308]) {
      const location = `${other.endpoint}/k?X-Amz-Signature=${secret}`
      const { asked, endpoint } = yield* counting((_, response) => response.writeHead(status, { location }).end())
      const ours = yield* S3Storage.make({ ...bucket, credentials, endpoint, verify: false })
      const client = new S3Client({
        endpoint,
        region: "us-east-1",
        forcePathStyle: true,
        credentials: { accessKeyId: "a", secretAccessKey: "b" }
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => client.destroy()))
      const ofClient = yield* S3Storage.makeFromClient(client, { bucket: "models", retry, verify: false })
      for (const storage of [ours, ofClient]) {
        for (const call of [storage.load("k"), storage.head("k"), storage.save("k", new Uint8Array(1))]) {
          const failure = yield* Effect.flip(Effect.asVoid<unknown, StorageError.StorageError, never>(call))
          expect(failure.message).toContain(`HTTP ${status}`)
          expect(inspect(failure, { depth: 20, showHidden: true })).not.toContain(secret)
        }
      }
      expect(asked()).toBe(6)
    }
    expect(other.asked()).toBe(0)
  }))

it.scopedLive("an endpoint without a password is shown as it was given", () =>
  Effect.gen(function*() {
    for (const endpoint of ["localhost:9000", "minio", "ftp://minio.example:9000/path"]) {
      const failure = yield* Effect.flip(S3Storage.make({ ...bucket, credentials, endpoint }))
      expect(failure.message).toContain(`(got ${JSON.stringify(endpoint)})`)
    }
  }))
