/**
 * Each command on each kind of storage: files, memory behind a weight server, Ceph and the emulator of S3.
 */
import { CreateBucketCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { MemoryStorage } from "surfing-weights"
import { print, run, start } from "../support/command.js"
import { bucketUrls, credentials } from "../support/commandS3.js"
import { bytes } from "../support/content.js"
import { temporaryDirectory } from "../support/directory.js"
import { saveLayeredModel } from "../support/layeredModel.js"
import { server } from "../support/s3Bucket.js"
import { client, start as startServer } from "../support/s3Server.js"
import { ask, eventually, serveOf } from "../support/weightServer.js"

/** A storage as the command finds it. */
interface Kind {
  readonly env?: NodeJS.ProcessEnv
  /** The place of a key. */
  readonly placeOf: (key: string) => string
  readonly presigns: boolean
}

const files = Effect.map(temporaryDirectory, (directory): Kind => ({
  placeOf: (key) => `${directory}/${key}`,
  presigns: false
}))

const http = Effect.gen(function*() {
  const { url } = yield* serveOf(yield* MemoryStorage.make(), { writable: true })
  const kind: Kind = { placeOf: (key) => `${url}/${key}`, presigns: false }
  return kind
})

const bucket = Effect.map(bucketUrls, ({ urlOf }): Kind => ({ env: credentials, placeOf: urlOf, presigns: true }))

const emulator = Effect.gen(function*() {
  const server = yield* Effect.acquireRelease(
    Effect.promise(() => startServer({ ceph: false })),
    ({ stop }) => Effect.promise(stop)
  )
  const sdk = client(server)
  yield* Effect.promise(() => sdk.send(new CreateBucketCommand({ Bucket: "weights" })))
  sdk.destroy()
  const kind: Kind = {
    env: { AWS_ACCESS_KEY_ID: server.accessKeyId, AWS_SECRET_ACCESS_KEY: server.secretAccessKey },
    placeOf: (key) => `s3://weights/${key}?endpoint=${server.endpoint}&region=${server.region}`,
    presigns: true
  }
  return kind
})

const kinds: ReadonlyArray<readonly [name: string, kind: Effect.Effect<Kind, unknown, Scope.Scope>]> = [
  ["files", files],
  ["memory behind a weight server", http],
  [server.kind === "emulator" ? "S3" : "Ceph", bucket],
  ...(server.kind === "emulator" ? [] : [["the emulator of S3", emulator] as const])
]

describe("each command of surfing-weights", { concurrent: true }, () => {
  for (const [name, open] of kinds) {
    it.scopedLive(`works on ${name}`, () =>
      Effect.gen(function*() {
        const { env, placeOf, presigns } = yield* open
        const directory = yield* temporaryDirectory
        fs.mkdirSync(path.join(directory, "model"))
        yield* saveLayeredModel(path.join(directory, "model"), "model.safetensors")
        fs.writeFileSync(path.join(directory, "model/config.json"), "{}")
        fs.writeFileSync(path.join(directory, "model/pytorch_model.bin"), "another form")
        const options = { cwd: directory, ...(env && { env }) }
        const of = (...args: ReadonlyArray<string>) => print(args, options)

        expect(yield* of("push", "model", placeOf("m/"))).toMatch(/^2 objects copied /)
        expect(yield* of("ls", placeOf("m/"))).toMatch(/ config\.json\n.* model\.safetensors\n$/)
        expect(yield* of("du", placeOf("m/"))).toMatch(/ in 2 objects\n$/)
        expect(yield* of("stat", placeOf("m/config.json"))).toMatch(/size +2 /)
        expect(yield* of("cat", placeOf("m/config.json"))).toBe("{}")
        expect(yield* of("inspect", placeOf("m/model.safetensors"))).toMatch(/\n\d+ tensors, .* in 1 file\n$/)
        expect(yield* of("cp", placeOf("m/config.json"), placeOf("copy.json"))).toMatch(/^copied 2 B to copy\.json\n$/)
        yield* of("mv", placeOf("copy.json"), placeOf("moved.json"))
        expect(yield* of("cat", placeOf("moved.json"))).toBe("{}")
        expect(yield* of("sync", placeOf("m/"), placeOf("n/"))).toMatch(/^2 objects copied /)
        expect(yield* of("sync", placeOf("m/"), placeOf("n/"))).toMatch(/ 2 unchanged\n$/)
        expect(yield* of("mv", placeOf("n/"), placeOf("o/"))).toMatch(/2 objects/)
        expect(yield* of("pull", placeOf("o/"), "pulled")).toMatch(/^2 objects copied /)
        const [from, pulled] = ["model", "pulled"].map((folder) =>
          fs.readFileSync(path.join(directory, folder, "model.safetensors"))
        )
        expect(pulled?.equals(from ?? bytes(0))).toBe(true)
        expect(yield* of("split", placeOf("m/model.safetensors"), placeOf("m/chunks/"))).toMatch(
          /^3 chunks and manifest/
        )
        expect(yield* of("verify", placeOf("m/chunks/"))).toMatch(/^3 chunks verified /)
        expect(yield* of("bench", placeOf("b/"), "--size", "1MiB")).toMatch(/save.*\n/)

        const presigned = yield* run(["presign", placeOf("moved.json")], options)
        expect(presigned.code).toBe(presigns ? 0 : 1)
        if (presigns) {
          const loaded = yield* Effect.promise(() => fetch(presigned.stdout.toString().trim()).then((r) => r.text()))
          expect(loaded).toBe("{}")
        }

        const served = yield* start(["serve", placeOf("m/"), "--port", "0"], options)
        let log = ""
        served.stderr.on("data", (bytes: Buffer) => log += bytes.toString())
        yield* eventually("the server", () => log.includes("listening on"))
        const port = Number(/127\.0\.0\.1:(\d+)/.exec(log)?.[1])
        expect((yield* ask({ port }, "GET", "/objects/config.json")).text).toBe("{}")

        yield* of("rm", placeOf("moved.json"))
        for (const folder of ["m/", "o/"]) yield* of("rm", placeOf(folder))
        expect(yield* of("ls", placeOf(""))).toBe("")
      }))
  }
})
