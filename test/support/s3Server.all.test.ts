/** The S3 server that the other tests have, and that a server leaves nothing behind. */
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3ServiceException } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { temporaryDirectory } from "./directory.js"
import { makeBucket, sdk, server } from "./s3Bucket.js"
import { client } from "./s3Server.js"
import { eventually } from "./timing.js"

const statusOf = (answer: Promise<unknown>) =>
  Effect.promise(() =>
    answer.then(
      () => 200,
      (error: unknown) => error instanceof S3ServiceException ? error.$metadata.httpStatusCode : error
    )
  )

describe("the S3 server", () => {
  it.scoped("stores objects", () =>
    Effect.gen(function*() {
      const Bucket = yield* makeBucket
      yield* Effect.promise(() => sdk.send(new PutObjectCommand({ Bucket, Key: "a b", Body: "content" })))
      const { Body } = yield* Effect.promise(() => sdk.send(new GetObjectCommand({ Bucket, Key: "a b" })))
      expect(yield* Effect.promise(async () => Body?.transformToString())).toBe("content")
    }))

  it.scoped.skipIf(server.other === undefined)("denies other users access to a bucket", () =>
    Effect.gen(function*() {
      const other = yield* Effect.acquireRelease(
        Effect.sync(() => client(server, server.other === undefined ? {} : { credentials: server.other })),
        (other) => Effect.sync(() => other.destroy())
      )
      const Bucket = yield* makeBucket
      yield* Effect.promise(() => sdk.send(new PutObjectCommand({ Bucket, Key: "a", Body: "content" })))
      expect(yield* statusOf(other.send(new GetObjectCommand({ Bucket, Key: "a" })))).toBe(403)
      expect(yield* statusOf(other.send(new PutObjectCommand({ Bucket, Key: "b", Body: "content" })))).toBe(403)
    }))

  it.effect("removes a bucket also if the last save becomes visible late", () =>
    Effect.gen(function*() {
      // Most of the saves find their bucket gone while it is being removed, so they are awaited from their start.
      let saves: Promise<unknown> = Promise.resolve()
      const Bucket = yield* Effect.scoped(Effect.tap(makeBucket, (Bucket) =>
        Effect.sync(() => {
          const Body = new Uint8Array(4 * 1024 * 1024)
          saves = Promise.allSettled(
            Array.from({ length: 20 }, (_, i) => sdk.send(new PutObjectCommand({ Bucket, Key: `${i}`, Body })))
          )
        })))
      yield* Effect.promise(() => saves)
      expect(yield* statusOf(sdk.send(new ListObjectsV2Command({ Bucket })))).toBe(404)
    }))

  it.scoped("ends with the process that started it, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const left = () => readdirSync(directory).filter((name) => name.startsWith("surfing-weights-"))
      const program = `
        import { start } from ${JSON.stringify(new URL("s3Server.ts", import.meta.url))}
        const { endpoint } = await start({ ceph: ${server.kind === "radosgw"} })
        console.log(endpoint)
        process.kill(process.pid, "SIGKILL")
      `
      const { stdout } = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", program], {
        encoding: "utf8",
        env: { ...process.env, TMPDIR: directory }
      })
      const endpoint = stdout.trim()
      expect(endpoint).toMatch(/^http/)
      yield* eventually(() => expect(left()).toEqual([]))
      if (server.kind !== "given") {
        expect(yield* Effect.promise(() => fetch(endpoint).then(() => "answers", () => "is gone"))).toBe("is gone")
      }
    }))
})
