/**
 * Servers that honour preconditions of writes, ignore some of them, or refuse them: a storage finds out before it writes, and
 * leaves nothing behind. The servers are played on loopback; the emulator is one of those that ignore them all.
 */
import { ListObjectsV2Command } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Stream } from "effect"
import * as http from "node:http"
import { S3Storage, Storage, type StorageError, StorageLimit } from "surfing-weights"
import { bytes, MiB } from "../support/content.js"
import { listen } from "../support/loopback.js"
import { makeBucket, options as serverOptions, put, sdk, server as realServer } from "../support/s3Bucket.js"
import { quick } from "../support/timing.js"

interface Kind {
  /** Which it honours. Default: both. */
  readonly honours?: ReadonlyArray<"if-match" | "if-none-match">
  /** The status of a save with a condition that it does not honour. Default: 200, as it ignores the condition. */
  readonly refusal?: number
  /** The status of the If-Match of an object that does not exist. Default: 404. */
  readonly missing?: number
  /** Which keys may be written and removed. Default: all. */
  readonly mayWrite?: (key: string) => boolean
  /** Default: the object `lock`. */
  readonly content?: ReadonlyArray<readonly [key: string, content: string]>
}

/** A server, what it was asked, and what it has. */
const on = (
  {
    content = [["lock", "mine"]],
    honours = ["if-match", "if-none-match"],
    mayWrite = () => true,
    missing = 404,
    refusal
  }: Kind
) =>
  Effect.gen(function*() {
    const objects = new Map(content)
    const asked: Array<string> = []
    const etagOf = (content: string) => `"${Buffer.from(content).toString("hex")}"`
    const respond = (request: http.IncomingMessage, response: http.ServerResponse, body: string) => {
      const key = (request.url ?? "").slice("/weights/".length)
      const content = objects.get(key)
      const say = (status: number, headers: http.OutgoingHttpHeaders = {}) => response.writeHead(status, headers).end()
      const { "if-match": ifMatch, "if-none-match": ifNoneMatch } = request.headers
      const condition = ifMatch === undefined ? ifNoneMatch === undefined ? "" : "if-none-match" : "if-match"
      asked.push([request.method, key, condition].join(" ").trim())
      if (request.method === "HEAD" || request.method === "GET") {
        return content === undefined
          ? say(404)
          : response.writeHead(200, { etag: etagOf(content), "content-length": content.length }).end(content)
      }
      if (!mayWrite(key)) return say(403)
      if (request.method === "PUT") {
        if (condition !== "" && !honours.some((honoured) => honoured === condition)) {
          if (refusal !== undefined) return say(refusal)
        } else {
          if (ifMatch !== undefined && content === undefined) return say(missing)
          if (ifMatch !== undefined && content !== undefined && ifMatch !== etagOf(content)) return say(412)
          if (ifNoneMatch !== undefined && content !== undefined) return say(412)
        }
        objects.set(key, body)
        return say(200, { etag: etagOf(body) })
      }
      objects.delete(key)
      return say(204)
    }
    const { endpoint } = yield* listen(http.createServer((request, response) => {
      let body = ""
      request.setEncoding("latin1").on("data", (text: string) => {
        body += text
      })
      request.on("end", () => respond(request, response, body))
    }))
    const open = S3Storage.make({
      bucket: "weights",
      endpoint,
      credentials: { accessKeyId: "anybody", secretAccessKey: Redacted.make("anything") },
      retry: quick,
      verify: false
    })
    return { asked, objects, open, storage: yield* open }
  })

const theirs = Buffer.from("theirs")

const outcomeOf = <A>(effect: Effect.Effect<A, StorageError.StorageError>) =>
  Effect.match(effect, { onSuccess: () => "success", onFailure: ({ _tag }) => _tag })

/** Saves that must not change the object `lock`. */
const saves: ReadonlyArray<
  readonly [string, (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>]
> = [
  ["ifNoneMatch", (storage) => storage.save("lock", theirs, { ifNoneMatch: "*" })],
  ["ifNoneMatch of a stream", (storage) => storage.save("lock", Stream.make(theirs), { ifNoneMatch: "*" })],
  ["ifNoneMatch of a large object", (storage) => storage.save("lock", bytes(9 * MiB), { ifNoneMatch: "*" })],
  ["a copy with ifNoneMatch", (storage) => storage.copy("other", "lock", { ifNoneMatch: "*" })],
  ["a move with ifNoneMatch", (storage) => storage.move("other", "lock", { ifNoneMatch: "*" })],
  ["ifMatch", (storage) => storage.save("lock", theirs, { ifMatch: "other" })],
  ["ifMatch of a large object", (storage) => storage.save("lock", bytes(9 * MiB), { ifMatch: "other" })]
]

const isProbe = (request: string) => request.includes(".surfing-weights-")

describe("a save with a precondition", () => {
  for (const [what, save] of saves) {
    it.scopedLive(`fails on a server that ignores preconditions, changes nothing and leaves nothing: ${what}`, () =>
      Effect.gen(function*() {
        const content = [["lock", "mine"], ["other", "theirs"]] as const
        const { asked, objects, storage } = yield* on({ honours: [], content })
        for (const times of [1, 2]) {
          expect(yield* outcomeOf(save(storage)), `the ${times}. time`).toBe("UnsupportedOperation")
          expect([...objects]).toEqual(content)
        }
        // It is tried out once: a wrong If-Match, If-None-Match twice, and the end of what that has created.
        expect(asked.filter(isProbe).map((request) => request.replace(/ .*-\S{12}/, ""))).toEqual([
          "PUT if-match",
          "PUT if-none-match",
          "PUT if-none-match",
          "DELETE"
        ])
        expect(asked.filter((request) => request.startsWith("PUT") && !isProbe(request))).toEqual([])
      }))
  }

  for (const missing of [404, 412]) {
    it.scopedLive(`costs one request more, once, where it is honoured: ${missing} for what is missing`, () =>
      Effect.gen(function*() {
        const { asked, objects, storage } = yield* on({ missing })
        expect(yield* outcomeOf(storage.save("lock", theirs, { ifNoneMatch: "*" }))).toBe("ObjectAlreadyExists")
        expect(yield* outcomeOf(storage.save("lock", theirs, { ifMatch: "other" }))).toBe("PreconditionFailed")
        expect(yield* outcomeOf(storage.save("new", theirs, { ifNoneMatch: "*" }))).toBe("success")
        expect(asked.filter(isProbe).length).toBe(1)
        expect([...objects]).toEqual([["lock", "mine"], ["new", "theirs"]])
      }))
  }

  it.scopedLive("is found out by one of many saves, while the others wait", () =>
    Effect.gen(function*() {
      const { asked, objects, storage } = yield* on({ honours: [] })
      const outcomes = yield* Effect.forEach(
        Array.from({ length: 8 }, () => "lock"),
        (key) => outcomeOf(storage.save(key, theirs, { ifNoneMatch: "*" })),
        { concurrency: "unbounded" }
      )
      expect(new Set(outcomes)).toEqual(new Set(["UnsupportedOperation"]))
      expect(asked.filter(isProbe).length).toBe(4)
      expect([...objects]).toEqual([["lock", "mine"]])
    }))

  it.scopedLive("may create where the server honours If-None-Match alone", () =>
    Effect.gen(function*() {
      const { objects, storage } = yield* on({ honours: ["if-none-match"] })
      expect(yield* outcomeOf(storage.save("lock", theirs, { ifMatch: "other" }))).toBe("UnsupportedOperation")
      expect(yield* outcomeOf(storage.save("lock", theirs, { ifNoneMatch: "*" }))).toBe("ObjectAlreadyExists")
      expect(yield* outcomeOf(storage.save("new", theirs, { ifNoneMatch: "*" }))).toBe("success")
      expect([...objects.keys()]).toEqual(["lock", "new"])
      const { compareAndSwap, createOnly } = storage.backend.capabilities
      expect({ compareAndSwap, createOnly }).toEqual({ compareAndSwap: false, createOnly: true })
    }))

  it.scopedLive("fails with the failure of a server that refuses it", () =>
    Effect.gen(function*() {
      const { objects, storage } = yield* on({ honours: [], refusal: 501 })
      expect(yield* outcomeOf(storage.save("lock", theirs, { ifMatch: "other" }))).toBe("UnsupportedOperation")
      expect(yield* outcomeOf(storage.save("lock", theirs, { ifNoneMatch: "*" }))).toBe("UnsupportedOperation")
      expect([...objects]).toEqual([["lock", "mine"]])
    }))

  for (
    const [what, mayWrite] of [
      ["its key alone", (key: string) => key === "lock" || key === "new"],
      ["keys that begin as it", (key: string) => /^(?:lock|new)/.test(key)]
    ] as const
  ) {
    it.scopedLive(`needs no other permission than the save: that to write ${what}`, () =>
      Effect.gen(function*() {
        const { objects, storage } = yield* on({ mayWrite })
        expect(yield* outcomeOf(storage.save("new", theirs, { ifNoneMatch: "*" }))).toBe("success")
        expect(yield* outcomeOf(storage.save("lock", theirs, { ifNoneMatch: "*" }))).toBe("ObjectAlreadyExists")
        expect([...objects]).toEqual([["lock", "mine"], ["new", "theirs"]])
      }))
  }

  it.scopedLive("can have the longest keys", () =>
    Effect.gen(function*() {
      const { objects, storage } = yield* on({ honours: [] })
      const long = "a".repeat(1000)
      for (const key of [long, `${long}/b`, `a/${long}/b`, `${"a".repeat(250)}`]) {
        const fresh = yield* on({ honours: [] })
        expect(yield* outcomeOf(fresh.storage.save(key, theirs, { ifNoneMatch: "*" }))).toBe("UnsupportedOperation")
        for (const request of fresh.asked) {
          const asked = request.split(" ")[1] ?? ""
          expect(asked.length).toBeLessThanOrEqual(1024)
          if (key.length === 250) expect(asked.length).toBeLessThanOrEqual(255)
        }
        expect([...fresh.objects.keys()]).toEqual(["lock"])
      }
      expect(yield* outcomeOf(storage.save("lock", theirs))).toBe("success")
      expect(objects.get("lock")).toBe("theirs")
    }))

  it.scopedLive("is in the capabilities of the storage, and of wrappers, from the first such save on", () =>
    Effect.gen(function*() {
      const { storage } = yield* on({ honours: [] })
      const limited = yield* Effect.provide(
        Storage.Storage,
        Layer.provide(StorageLimit.layer({ concurrency: 1 }), Layer.succeed(Storage.Storage, storage))
      )
      expect(limited.backend.capabilities).toMatchObject({ createOnly: true, compareAndSwap: true })
      yield* outcomeOf(limited.save("lock", theirs, { ifNoneMatch: "*" }))
      for (const { backend } of [storage, limited]) {
        expect(backend.capabilities).toMatchObject({ createOnly: false, compareAndSwap: false })
      }
    }))

  it.scopedLive.skipIf(realServer.kind !== "emulator")(
    "fails on the emulator, which ignores it",
    () =>
      Effect.gen(function*() {
        const bucket = yield* makeBucket
        yield* put(bucket, "lock", "mine")
        yield* put(bucket, "other", "theirs")
        const storage = yield* S3Storage.make({ ...serverOptions, bucket })
        for (const [, save] of saves) expect(yield* outcomeOf(save(storage))).toBe("UnsupportedOperation")
        expect(Buffer.from(yield* storage.load("lock")).toString()).toBe("mine")
        const { Contents } = yield* Effect.promise(() => sdk.send(new ListObjectsV2Command({ Bucket: bucket })))
        expect(Contents?.map(({ Key }) => Key)).toEqual(["lock", "other"])
      })
  )
})
