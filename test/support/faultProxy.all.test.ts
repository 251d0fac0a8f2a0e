/** A proxy that breaks what it is told to break, shown between a client and the S3 server of this run. */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandInput,
  HeadObjectCommand,
  type HeadObjectCommandInput,
  type HeadObjectCommandOutput,
  ListObjectsV2Command,
  PutObjectCommand,
  type PutObjectCommandInput,
  type S3Client,
  S3ServiceException
} from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import assert from "node:assert/strict"
import { once } from "node:events"
import * as http from "node:http"
import { connect } from "node:net"
import { Readable } from "node:stream"
import { finished } from "node:stream/promises"
import { setTimeout } from "node:timers/promises"
import * as FaultProxy from "./faultProxy.js"
import { listen } from "./loopback.js"
import { makeBucket, sdk, server } from "./s3Bucket.js"
import { client } from "./s3Server.js"
import { eventually } from "./timing.js"

const { Fault } = FaultProxy
const MiB = 1024 * 1024
// The emulator takes little more than this.
const most = (server.kind === "emulator" ? 10 : 64) * MiB
const bytes = (length: number) => Buffer.alloc(length, Uint8Array.from({ length: 251 }, (_, i) => i))

/** A proxy, a client through it that tries once, and a bucket with `a` of 1000 bytes. */
const setup = Effect.gen(function*() {
  const proxy = yield* FaultProxy.make(server.endpoint)
  const through = yield* Effect.acquireRelease(
    Effect.sync(() => client(server, { endpoint: proxy.endpoint, maxAttempts: 1 })),
    (through) => Effect.sync(() => through.destroy())
  )
  const Bucket = yield* makeBucket
  yield* save(sdk, { Bucket, Key: "a", Body: bytes(1000) })
  const always = (fault: FaultProxy.Fault, times = 1) => proxy.add({ match: () => true, times, fault })
  return { proxy, through, Bucket, a: { Bucket, Key: "a" }, always }
})

const save = (client: S3Client, input: PutObjectCommandInput) =>
  Effect.promise(() => client.send(new PutObjectCommand(input)))

/** The HTTP status of what it ends with, 0 if that is no answer. */
const statusOf = (answer: Promise<Pick<HeadObjectCommandOutput, "$metadata">>) =>
  Effect.promise(() =>
    answer.then(
      ({ $metadata }) => $metadata.httpStatusCode,
      (error: unknown) => error instanceof S3ServiceException ? error.$metadata.httpStatusCode : 0
    )
  )

const bodyOf = async (client: S3Client, input: GetObjectCommandInput): Promise<http.IncomingMessage> => {
  const { Body } = await client.send(new GetObjectCommand(input))
  assert(Body instanceof http.IncomingMessage)
  return Body
}

/** The bytes that come, and how that ends. */
const receive = (client: S3Client, input: GetObjectCommandInput) =>
  Effect.promise(async () => {
    const body = await bodyOf(client, input)
    const closed = new Promise<boolean>((resolve) => body.socket.once("close", resolve))
    const chunks: Array<Buffer> = []
    body.on("data", (chunk: Buffer) => chunks.push(chunk))
    const whole = await finished(body).then(() => true, () => false)
    const end = whole ? "whole" : await closed ? "reset" : "closed"
    return { received: Buffer.concat(chunks), end }
  })

const aMoment = Effect.promise(() => setTimeout(200))

describe("FaultProxy", () => {
  describe("without a rule", () => {
    it.scoped("forwards requests and responses unchanged, and records them", () =>
      Effect.gen(function*() {
        const { Bucket, proxy, through } = yield* setup
        const odd = { Bucket, Key: "a b+c%é😀?#&=" }
        const { ETag } = yield* save(through, { ...odd, Body: bytes(10), Metadata: { some: "thing" } })
        const seen = ({ $metadata: { httpStatusCode }, LastModified, Metadata }: HeadObjectCommandOutput) => ({
          ETag,
          httpStatusCode,
          LastModified,
          Metadata
        })
        const head = (client: S3Client) => Effect.promise(() => client.send(new HeadObjectCommand(odd)))
        expect(seen(yield* head(through))).toEqual(seen(yield* head(sdk)))
        const range = yield* receive(through, { ...odd, Range: "bytes=2-4" })
        expect(range).toEqual({ received: bytes(10).subarray(2, 5), end: "whole" })
        expect(yield* statusOf(through.send(new GetObjectCommand({ ...odd, IfNoneMatch: ETag })))).toBe(304)
        expect(yield* statusOf(through.send(new GetObjectCommand({ Bucket, Key: "missing" })))).toBe(404)
        expect(yield* statusOf(through.send(new ListObjectsV2Command({ Bucket, Prefix: "a b" })))).toBe(200)
        expect(yield* statusOf(through.send(new DeleteObjectCommand(odd)))).toBe(204)

        const path = `/${Bucket}/a%20b%2Bc%25%C3%A9%F0%9F%98%80%3F%23%26%3D`
        expect(proxy.requests.map(({ fault, method, path, status }) => [method, path, status, fault])).toEqual([
          ["PUT", path, 200, undefined],
          ["HEAD", path, 200, undefined],
          ["GET", path, 206, undefined],
          ["GET", path, 304, undefined],
          ["GET", `/${Bucket}/missing`, 404, undefined],
          ["GET", `/${Bucket}/`, 200, undefined],
          ["DELETE", path, 204, undefined]
        ])
        expect(proxy.requests[2]?.headers.range).toBe("bytes=2-4")
        expect(proxy.requests[5]?.query.get("prefix")).toBe("a b")
        yield* eventually(() => expect(proxy.activeRequests()).toBe(0))
      }))

    it.scoped("forwards large bodies, for which the client waits for a 100", () =>
      Effect.gen(function*() {
        const { Bucket, proxy, through } = yield* setup
        const large = bytes(most)
        yield* save(through, { Bucket, Key: "large", Body: large })
        expect(proxy.requests[0]?.headers.expect).toBe("100-continue")
        const { end, received } = yield* receive(through, { Bucket, Key: "large" })
        expect(end).toBe("whole")
        expect(received.equals(large)).toBe(true)
      }))

    it.scoped("keeps a connection for the next request", () =>
      Effect.gen(function*() {
        const { a, proxy, through } = yield* setup
        for (let i = 0; i < 5; i++) yield* receive(through, a)
        expect(proxy.openSockets()).toBe(1)
      }))

    it.scoped("closes the connection to the server when the client disconnects", () =>
      Effect.gen(function*() {
        let open = 0
        const server = http.createServer((_, response) => {
          open++
          response.once("close", () => open--)
          response.write("the beginning")
        })
        const { endpoint } = yield* listen(server)
        const proxy = yield* FaultProxy.make(endpoint)
        const request = http.get(proxy.endpoint)
        yield* Effect.promise(() => once(request, "response"))
        expect([open, proxy.activeRequests(), proxy.openSockets()]).toEqual([1, 1, 1])
        request.destroy()
        yield* eventually(() => expect([open, proxy.activeRequests(), proxy.openSockets()]).toEqual([0, 0, 0]))
      }))

    it.effect("is closed with its scope, with all its connections", () =>
      Effect.gen(function*() {
        const socket = yield* Effect.scoped(
          Effect.gen(function*() {
            const proxy = yield* FaultProxy.make(server.endpoint)
            const socket = connect(Number(new URL(proxy.endpoint).port), "127.0.0.1")
            yield* eventually(() => expect(proxy.openSockets()).toBe(1))
            return socket
          })
        )
        yield* eventually(() => expect(socket.readyState).toBe("closed"))
      }))
  })

  describe("rules", () => {
    const head = (client: S3Client, input: HeadObjectCommandInput) =>
      statusOf(client.send(new HeadObjectCommand(input)))

    it.scoped("apply to the requests that they match, and to one unless they say otherwise", () =>
      Effect.gen(function*() {
        const { a, proxy, through } = yield* setup
        proxy.add({ match: ({ method }) => method === "PUT", times: Infinity, fault: Fault.Answer({ status: 400 }) })
        proxy.add({ match: ({ path }) => path.endsWith("/a"), fault: Fault.Answer({ status: 501 }) })
        proxy.add({ match: ({ path }) => path.endsWith("/a"), times: 2, fault: Fault.Answer({ status: 502 }) })
        const statuses = yield* Effect.forEach([1, 2, 3, 4], () => head(through, a))
        expect(statuses).toEqual([501, 502, 502, 200])
        expect(proxy.requests.map(({ fault }) => fault)).toEqual(["Answer", "Answer", "Answer", undefined])
      }))

    it.scoped("can be removed", () =>
      Effect.gen(function*() {
        const { a, always, proxy, through } = yield* setup
        always(Fault.Answer({ status: 501 }), Infinity)
        expect([yield* head(through, a), yield* head(through, a)]).toEqual([501, 501])
        proxy.clear()
        expect(yield* head(through, a)).toBe(200)
      }))
  })

  describe("a response", () => {
    it.scoped("is reset after a number of bytes", () =>
      Effect.gen(function*() {
        const { a, always, through } = yield* setup
        for (const after of [0, 300]) {
          always(Fault.ResetAnswer({ after }))
          expect(yield* receive(through, a)).toEqual({ received: bytes(after), end: "reset" })
        }
        expect(yield* receive(through, a)).toEqual({ received: bytes(1000), end: "whole" })
      }))

    it.scoped("is reset before it begins, and the server never receives the request", () =>
      Effect.gen(function*() {
        const { Bucket, always, proxy, through } = yield* setup
        const b = { Bucket, Key: "b" }
        always(Fault.ResetAnswer({}))
        expect(yield* statusOf(through.send(new PutObjectCommand({ ...b, Body: bytes(10) })))).toBe(0)
        expect(yield* statusOf(sdk.send(new HeadObjectCommand(b)))).toBe(404)
        expect(proxy.requests[0]?.status).toBeUndefined()
      }))

    it.scoped("stalls after a number of bytes until the client disconnects", () =>
      Effect.gen(function*() {
        const { a, always, proxy, through } = yield* setup
        always(Fault.StallAnswer({ after: 300 }))
        const body = yield* Effect.promise(() => bodyOf(through, a))
        let received = 0
        body.on("data", (chunk: Buffer) => received += chunk.length).on("error", () => {})
        yield* aMoment
        expect([received, body.readableEnded, body.errored, proxy.activeRequests()]).toEqual([300, false, null, 1])
        body.destroy()
        yield* eventually(() => expect([proxy.activeRequests(), proxy.openSockets()]).toEqual([0, 0]))
      }))

    it.scoped("never begins", () =>
      Effect.gen(function*() {
        const { a, always, proxy, through } = yield* setup
        always(Fault.StallAnswer({}))
        const controller = new AbortController()
        const answer = through.send(new GetObjectCommand(a), { abortSignal: controller.signal })
        const status = yield* Effect.fork(statusOf(answer))
        yield* aMoment
        expect([proxy.activeRequests(), status.unsafePoll()]).toEqual([1, null])
        controller.abort()
        expect(yield* Fiber.join(status)).toBe(0)
        yield* eventually(() => expect(proxy.openSockets()).toBe(0))
      }))

    it.scoped("is closed as if it had ended, after a number of bytes", () =>
      Effect.gen(function*() {
        const { a, always, through } = yield* setup
        always(Fault.TruncateAnswer({ after: 300 }))
        expect(yield* receive(through, a)).toEqual({ received: bytes(300), end: "closed" })
      }))

    it.scoped("is slowed down", () =>
      Effect.gen(function*() {
        const { a, always, through } = yield* setup
        always(Fault.SlowAnswer({ bytes: 250, interval: 50 }))
        const start = performance.now()
        expect(yield* receive(through, a)).toEqual({ received: bytes(1000), end: "whole" })
        expect(performance.now() - start).toBeGreaterThan(3 * 49)
      }))

    it.scoped("is replaced", () =>
      Effect.gen(function*() {
        const { a, always, through } = yield* setup
        const body = `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Not so fast.</Message></Error>`
        always(Fault.Answer({ status: 503, headers: { "retry-after": "7", "content-type": "application/xml" }, body }))
        const error = yield* Effect.promise(() =>
          through.send(new GetObjectCommand(a)).catch((error: unknown) => error)
        )
        expect(error).toMatchObject({
          name: "SlowDown",
          message: "Not so fast.",
          $response: { statusCode: 503, headers: { "retry-after": "7" } }
        })
      }))

    it.scoped("is replaced, also for a client that waits for a 100 to send its body", () =>
      Effect.gen(function*() {
        const { Bucket, always, through } = yield* setup
        const large = { Bucket, Key: "large", Body: bytes(4 * MiB) }
        always(Fault.Answer({ status: 503 }))
        expect(yield* statusOf(through.send(new PutObjectCommand(large)))).toBe(503)
        expect(yield* statusOf(sdk.send(new HeadObjectCommand({ Bucket, Key: "large" })))).toBe(404)
        expect(yield* statusOf(through.send(new PutObjectCommand(large)))).toBe(200)
      }))

    it.scoped("is dropped after the server has done its work", () =>
      Effect.gen(function*() {
        const { Bucket, always, proxy, through } = yield* setup
        const b = { Bucket, Key: "b" }
        always(Fault.DropAnswer())
        expect(yield* statusOf(through.send(new PutObjectCommand({ ...b, Body: bytes(10) })))).toBe(0)
        expect(proxy.requests[0]?.status).toBe(200)
        expect(yield* receive(sdk, b)).toEqual({ received: bytes(10), end: "whole" })
      }))

    it.scoped("has other headers", () =>
      Effect.gen(function*() {
        const { a, always, through } = yield* setup
        always(Fault.RewriteHeaders({ headers: { etag: `"another"`, "last-modified": undefined } }))
        const head = yield* Effect.promise(() => through.send(new HeadObjectCommand(a)))
        expect(head).toMatchObject({ ETag: `"another"`, ContentLength: 1000 })
        expect(head.LastModified).toBeUndefined()
      }))
  })

  describe("a request", () => {
    const b = (Bucket: string) => ({ Bucket, Key: "b" })

    it.scoped("is reset after a number of bytes, and the server accepts nothing as complete", () =>
      Effect.gen(function*() {
        const { Bucket, always, through } = yield* setup
        always(Fault.ResetRequest({ after: MiB }))
        expect(yield* statusOf(through.send(new PutObjectCommand({ ...b(Bucket), Body: bytes(5 * MiB) })))).toBe(0)
        expect(yield* statusOf(sdk.send(new HeadObjectCommand(b(Bucket))))).toBe(404)
      }))

    it.scoped("is not read any more after a number of bytes", () =>
      Effect.gen(function*() {
        const { Bucket, always, proxy, through } = yield* setup
        always(Fault.StallRequest({ after: MiB }))
        let read = 0
        const Body = Readable.from((function*() {
          for (; read < most; read += MiB) yield bytes(MiB)
        })())
        const controller = new AbortController()
        const input = { ...b(Bucket), Body, ContentLength: most }
        const answer = through.send(new PutObjectCommand(input), { abortSignal: controller.signal })
        const status = yield* Effect.fork(statusOf(answer))
        yield* aMoment
        expect([proxy.activeRequests(), status.unsafePoll()]).toEqual([1, null])
        expect(read).toBeGreaterThanOrEqual(MiB)
        expect(read).toBeLessThan(most)
        controller.abort()
        expect(yield* Fiber.join(status)).toBe(0)
        proxy.clear()
        yield* eventually(() => expect(proxy.openSockets()).toBe(0))
      }))

    it.scoped("waits for an effect", () =>
      Effect.gen(function*() {
        const { a, always, through } = yield* setup
        always(Fault.Before({ effect: save(sdk, { ...a, Body: bytes(5) }) }))
        expect(yield* receive(through, a)).toEqual({ received: bytes(5), end: "whole" })
      }))
  })
})
