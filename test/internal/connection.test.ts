/**
 * What a user sees of a server that cannot be reached: real servers with the wrong protocol, certificate, name or port, through
 * each transport of both storages, by the default policy.
 */
import { S3Client } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Logger, LogLevel, Random, Redacted, Schedule } from "effect"
import * as http from "node:http"
import * as https from "node:https"
import * as net from "node:net"
import type { RetryPolicy } from "surfing-weights"
import { HttpStorage, S3Storage, StorageError } from "surfing-weights"
import { certificate } from "../support/certificate.js"
import { clients, nodeClient } from "../support/httpClients.js"
import { listen } from "../support/loopback.js"
import { timed } from "../support/timing.js"

const credentials = { accessKeyId: "a", secretAccessKey: Redacted.make("b") }
const bucket = { bucket: "models", region: "us-east-1" }

type Open = (url: string, retry?: RetryPolicy.RetryPolicy) => Effect.Effect<unknown, StorageError.StorageError>

const storages: ReadonlyArray<readonly [name: string, open: Open]> = [
  ["S3Storage", (endpoint, retry) => Effect.scoped(S3Storage.make({ ...bucket, endpoint, credentials, retry }))],
  ["S3Storage with a client", (endpoint, retry) =>
    Effect.acquireUseRelease(
      Effect.sync(() =>
        new S3Client({
          endpoint,
          forcePathStyle: true,
          region: "us-east-1",
          credentials: { accessKeyId: "a", secretAccessKey: "b" }
        })
      ),
      (client) => S3Storage.makeFromClient(client, { bucket: "models", retry }),
      (client) => Effect.sync(() => client.destroy())
    )],
  ...clients.map(([name, client]) =>
    [
      `HttpStorage with ${name}`,
      (url: string, retry?: RetryPolicy.RetryPolicy) => Effect.provide(HttpStorage.make({ url, retry }), client)
    ] as const
  )
]

/** A server on loopback, and how many connections came to it. */
const serving = (server: net.Server) =>
  Effect.gen(function*() {
    let connections = 0
    server.on("connection", (socket: net.Socket) => {
      connections++
      socket.on("error", () => {})
    })
    const { endpoint } = yield* listen(server)
    return { at: new URL(endpoint).host, connections: () => connections }
  })

const answering: http.RequestListener = (_, response) => void response.end("hello")

/** Fails as it does for a user who waits for it. */
const failing = (opening: ReturnType<Open>) =>
  Effect.map(timed(Effect.flip(opening)), ([error, time]) => ({ error, time }))

/** What takes no retry takes far less, also on a machine that is busy. */
const atOnce = 5000

/** The default policy waits hardly at all. */
const hurried = Effect.withRandom(Random.fixed([0.01]))

/** Where nothing listens. */
const closedPort = Effect.map(Effect.scoped(listen(http.createServer())), ({ endpoint }) => new URL(endpoint).host)

for (const [name, open] of storages) {
  describe(name, () => {
    it.scopedLive("says at once that a certificate is not trusted", () =>
      Effect.gen(function*() {
        const { at, connections } = yield* serving(https.createServer(certificate, answering))
        const { error, time } = yield* failing(open(`https://${at}`))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 1 })
        expect(error.message).toContain("the certificate of the server is not trusted (self-signed certificate)")
        expect(error.message).toContain("NODE_EXTRA_CA_CERTS")
        expect(connections()).toBe(1)
        expect(time).toBeLessThan(atOnce)
      }))

    it.scopedLive("says at once that a port does not speak TLS", () =>
      Effect.gen(function*() {
        const { at, connections } = yield* serving(http.createServer(answering))
        const { error } = yield* failing(open(`https://${at}`))
        expect(StorageError.isRetryable(error)).toBe(false)
        expect(error.message).toContain("the server does not speak TLS on this port")
        expect(error.message).toContain("use http://")
        expect(connections()).toBe(1)
      }))

    it.scopedLive("says soon that a port may expect TLS", () =>
      Effect.gen(function*() {
        const { at, connections } = yield* serving(https.createServer(certificate, answering))
        const { error, time } = yield* hurried(failing(open(`http://${at}`)))
        expect(error.message).toContain("use https:// if it expects TLS on this port")
        expect(connections()).toBe(5)
        expect(time).toBeLessThan(atOnce)
      }))

    it.scopedLive("says at once that a server speaks another protocol", () =>
      Effect.gen(function*() {
        const { at, connections } = yield* serving(net.createServer((socket) => void socket.write("SSH-2.0-Ours\r\n")))
        const { error } = yield* failing(open(`http://${at}`))
        expect(StorageError.isRetryable(error)).toBe(false)
        expect(error.message).toContain("the response is not HTTP/1.1")
        expect(connections()).toBe(1)
        const overTls = yield* failing(open(`https://${at}`))
        expect(overTls.error.message).toContain("does not speak TLS on this port")
        expect(connections()).toBe(2)
      }))

    it.scopedLive("says at once that there is no version of TLS in common", () =>
      Effect.gen(function*() {
        const old = {
          ...certificate,
          minVersion: "TLSv1",
          maxVersion: "TLSv1.1",
          ciphers: "DEFAULT@SECLEVEL=0"
        } as const
        const { at, connections } = yield* serving(https.createServer(old, answering))
        const { error } = yield* failing(open(`https://${at}`))
        expect(StorageError.isRetryable(error)).toBe(false)
        expect(error.message).toMatch(/TLS .*\((EPROTO|ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION|.*)\); /)
        expect(connections()).toBe(1)
      }))

    it.live("asks once more for a name that does not exist, whatever the policy", () =>
      Effect.gen(function*() {
        const many = Schedule.intersect(Schedule.recurs(50), Schedule.spaced("10 millis"))
        const { error, time } = yield* failing(open("http://weights.invalid", many))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 2 })
        expect(error.message).toContain("the name of the server does not exist (getaddrinfo ENOTFOUND weights.invalid)")
        expect(time).toBeLessThan(2 * atOnce)
      }))

    it.live("tries five times where nothing listens, or as often as a policy of one's own says", () =>
      Effect.gen(function*() {
        const at = yield* closedPort
        const { error } = yield* hurried(failing(open(`http://${at}`)))
        expect(error).toMatchObject({ _tag: "StorageUnavailable", attempts: 5 })
        expect(error.message).toContain(`refused the connection (connect ECONNREFUSED ${at}); start the server`)
        expect((yield* failing(open(`http://${at}`, Schedule.recurs(7)))).error).toMatchObject({ attempts: 8 })
      }))
  })
}

const page: http.RequestListener = (_, response) => void response.writeHead(503).end()

describe("retries", () => {
  for (const [name, open] of storages) {
    it.scopedLive(`of ${name} are logged, from the third on as warnings with the reason and the wait`, () =>
      Effect.gen(function*() {
        const logs: Array<string> = []
        const logger = Logger.replace(
          Logger.defaultLogger,
          Logger.make(({ logLevel, message }) => void logs.push(`${logLevel.label} ${String(message)}`))
        )
        const { endpoint } = yield* listen(http.createServer(page))
        const policy = Schedule.intersect(Schedule.recurs(4), Schedule.spaced("7 millis"))
        yield* Effect.flip(open(endpoint, policy)).pipe(
          Effect.provide(logger),
          Logger.withMinimumLogLevel(LogLevel.Debug)
        )
        expect(logs.length).toBe(4)
        logs.forEach((line, i) => {
          expect(line).toMatch(i < 2 ? /^DEBUG (S3|Http)\(/ : /^WARN (S3|Http)\(/)
          expect(line).toMatch(new RegExp(`the server is .*HTTP 503.*; retry ${i + 1} in 7ms$`))
        })
      }))
  }

  it.scopedLive("go on by the policy once a server has responded, as it may be restarting", () =>
    Effect.gen(function*() {
      const server = http.createServer((request, response) => {
        response.setHeader("etag", "\"e\"")
        response.end(request.url)
      })
      const { endpoint } = yield* listen(server)
      const storage = yield* Effect.provide(HttpStorage.make({ url: endpoint, static: true }), nodeClient[1])
      yield* storage.load("a")
      server.close()
      server.closeAllConnections()
      // More than a new server is given.
      const tries = 7
      let retries = 0
      const logger = Logger.replace(Logger.defaultLogger, Logger.make(() => void retries++))
      yield* Effect.raceFirst(
        Effect.flip(storage.load("a")),
        Effect.repeat(Effect.sleep("10 millis"), { until: () => retries >= tries })
      ).pipe(hurried, Effect.provide(logger), Logger.withMinimumLogLevel(LogLevel.Debug))
      expect(retries).toBeGreaterThanOrEqual(tries)
    }))
})
