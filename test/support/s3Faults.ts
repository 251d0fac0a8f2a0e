/**
 * A storage on a new bucket behind a fault proxy, and what has to hold of it in the end, whatever broke: no request is
 * left on its way, no fiber, no connection, no unfinished upload.
 */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Supervisor from "effect/Supervisor"
import { S3Storage, type Storage } from "surfing-weights"
import { bytes, MiB, print } from "./content.js"
import * as FaultProxy from "./faultProxy.js"
import { startOf } from "./faultProxy.js"
import { makeBucket, options, server, unfinishedUploads } from "./s3Bucket.js"
import { client } from "./s3Server.js"
import { eventually, quick } from "./timing.js"

export { Fault } from "./faultProxy.js"

/** The smallest that there is. */
export const partSize = 5 * MiB

const isEmulator = server.kind === "emulator"

/** A test that the emulator cannot run: it takes writes on any condition, and lists no uploads. */
export const onServers = (name: string, test: () => Effect.Effect<void, unknown, Scope.Scope>): void =>
  it.scopedLive.skipIf(isEmulator)(
    isEmulator ? `${name} (skipped: the emulator knows no conditions of writes)` : name,
    test
  )

/** Fits one request. */
export const small = bytes(1000)

/** Takes two parts. */
export const large = bytes(partSize + MiB, 1)

/** What tests have under a key. */
export const contentOf = (key: string): Uint8Array => key === "large" ? large : small

/** An answer as S3 gives it where it refuses, or where it breaks down while it carries out what it has accepted. */
export const refusal = (
  status: number,
  code: string,
  { elements = "", headers = {} }: { readonly elements?: string; readonly headers?: Record<string, string> } = {}
): FaultProxy.Fault =>
  FaultProxy.Fault.Answer({
    status,
    headers: { "content-type": "application/xml", "x-amz-request-id": "the-request-id", ...headers },
    body: `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>It says ${code}.</Message>` +
      `${elements}<RequestId>the-request-id</RequestId></Error>`
  })

export type Match = Parameters<FaultProxy.FaultProxy["add"]>[0]["match"]

type SeenRequest = FaultProxy.FaultProxy["requests"][number]

/** The requests of a storage, by what they are for. */
export const is = {
  get: ({ method, query }) => method === "GET" && !query.has("list-type"),
  list: ({ method, query }) => method === "GET" && query.has("list-type"),
  nextPage: ({ query }) => query.has("continuation-token"),
  head: ({ method }) => method === "HEAD",
  put: ({ method, query }) => method === "PUT" && !query.has("uploadId"),
  remove: ({ method, query }) => method === "DELETE" && !query.has("uploadId"),
  removeBatch: ({ query }) => query.has("delete"),
  create: ({ query }) => query.has("uploads"),
  complete: ({ method, query }) => method === "POST" && query.has("uploadId"),
  abort: ({ method, query }) => method === "DELETE" && query.has("uploadId")
} satisfies Record<string, Match>

export const isGetFrom = (start: number): Match => (request) => is.get(request) && startOf(request) === start

export const isPart = (number: number): Match => ({ query }) => query.get("partNumber") === String(number)

export interface Setup {
  readonly proxy: FaultProxy.FaultProxy
  readonly bucket: string
  /** Through the proxy, with the options of the test. */
  readonly storage: Storage.Service
  /** Another one, with other options, which is closed with the first. */
  readonly open: (more: Options) => Effect.Effect<Storage.Service, S3Storage.OpenError>
  /** To the same bucket, with nothing in between. */
  readonly direct: Storage.Service
  /** The requests since this was asked last that are of a kind. */
  readonly seen: (match?: Match) => ReadonlyArray<SeenRequest>
  /** Breaks requests of a kind: one of them, unless told otherwise. */
  readonly breaks: (match: Match, fault: FaultProxy.Fault, times?: number) => void
  /** Waits until a request of a kind has come, and gives what came of it some time. */
  readonly until: (match: Match) => Effect.Effect<void>
}

export interface Options extends Partial<S3Storage.Options> {
  /** Whether requests go the way of a client of the SDK, and not over the storage's own connections. */
  readonly ownClient?: boolean
}

/** Runs a test on a storage behind a proxy, then sees to it that nothing is left behind. */
export const behindProxy = <Err, R>(
  more: Options,
  test: (setup: Setup) => Effect.Effect<unknown, Err, R>
): Effect.Effect<void, Err | S3Storage.OpenError, R | Scope.Scope> =>
  Effect.gen(function*() {
    const bucket = yield* makeBucket
    const proxy = yield* FaultProxy.make(server.endpoint)
    const direct = yield* S3Storage.make({ ...options, bucket, partSize, verifyBucket: false })
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
    const open: Setup["open"] = ({ ownClient = false, ...more }) => {
      const ofBucket = {
        bucket,
        partSize,
        retry: quick,
        idleLimit: "10 seconds",
        verifyBucket: false,
        ...more
      } as const
      const ofClient = Effect.acquireRelease(
        Effect.sync(() => client({ ...server, endpoint: proxy.endpoint })),
        (client) => Effect.sync(() => client.destroy())
      )
      return Scope.extend(
        ownClient
          ? Effect.flatMap(ofClient, (client) => S3Storage.makeFromClient(client, ofBucket))
          : S3Storage.make({ ...options, endpoint: proxy.endpoint, ...ofBucket }),
        scope
      )
    }
    const storage = yield* open(more)
    const fibers = yield* Supervisor.track
    let before = 0
    const seen: Setup["seen"] = (match = () => true) => {
      const now = proxy.requests.slice(before)
      before = proxy.requests.length
      return now.filter(match)
    }
    const breaks: Setup["breaks"] = (match, fault, times = 1) => proxy.add({ match, fault, times })
    const until: Setup["until"] = (match) =>
      Effect.zipRight(
        eventually(() => expect(proxy.requests.slice(before).some(match)).toBe(true)),
        Effect.sleep("50 millis")
      )

    yield* Effect.supervised(test({ proxy, bucket, storage, open, direct, seen, breaks, until }), fibers)

    // That a client has gone whose request is not read any more shows only now.
    proxy.clear()
    yield* eventually(() => expect(proxy.activeRequests(), "requests on their way").toBe(0))
    const left = yield* fibers.value
    yield* eventually(() =>
      expect(left.filter((fiber) => fiber.unsafePoll() === null).length, "fibers that are left").toBe(0)
    )
    yield* Scope.close(scope, Exit.void)
    yield* eventually(() => expect(proxy.openSockets(), "connections that are left").toBe(0))
    expect(yield* unfinishedUploads(bucket), "unfinished uploads").toEqual([])
  })

/** The same where there are objects under these keys, each of them `contentOf` its key. */
export const onBucket = <Err, R>(
  { options: more = {}, reads = [] }: { readonly options?: Options; readonly reads?: ReadonlyArray<string> },
  test: (setup: Setup) => Effect.Effect<unknown, Err, R>
) =>
  behindProxy(
    more,
    (setup) => Effect.zipRight(Effect.forEach(reads, (key) => setup.direct.save(key, contentOf(key))), test(setup))
  )

/** What is in the bucket, read past the proxy, and whether a storage has told the truth of it. */
export const look = ({ direct }: Setup, { etag, size }: Storage.ObjectInfo, key = "key") =>
  Effect.gen(function*() {
    const head = yield* direct.head(key)
    expect({ etag, size }).toEqual({ etag: head.etag, size: head.size })
    return print(yield* direct.load(key))
  })
