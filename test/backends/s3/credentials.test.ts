/**
 * Credentials that others replace while a storage is in use: it finds the new ones when the old ones are refused.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Schedule, Stream } from "effect"
import { chmodSync, writeFileSync } from "node:fs"
import * as http from "node:http"
import { join } from "node:path"
import { S3Storage, StorageError } from "surfing-weights"
import { Credentials } from "../../../src/backends/s3/credentials.js"
import { bytes, gather, MiB, print } from "../../support/content.js"
import { temporaryDirectory } from "../../support/directory.js"
import * as FaultProxy from "../../support/faultProxy.js"
import { listen } from "../../support/loopback.js"
import { makeBucket, server } from "../../support/s3Bucket.js"

const retry = Schedule.recurs(0)
const content = bytes(12 * MiB)

/** Variables for the AWS SDK instead of all others, until the scope ends. */
const environment = (variables: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = { ...process.env }
      for (const name of Object.keys(process.env)) if (name.startsWith("AWS_")) delete process.env[name]
      Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: "true", ...variables })
      return before
    }),
    (before) =>
      Effect.sync(() => {
        for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name]
        Object.assign(process.env, before)
      })
  )

const codes = [[403, "InvalidAccessKeyId"], [400, "ExpiredToken"], [403, "AccessDenied"]] as const

/** A storage on a server that knows one access key id at a time: `new` once `revoke` was called, before that `old`. */
const setup = Effect.gen(function*() {
  const bucket = yield* makeBucket
  const proxy = yield* FaultProxy.make(server.endpoint)
  const keyOf = ({ headers }: { readonly headers: http.IncomingHttpHeaders }) =>
    /Credential=([^/]*)/.exec(headers.authorization ?? "")?.[1]
  const open = S3Storage.make({ bucket, endpoint: proxy.endpoint, region: "us-east-1", retry })
  const revoke = ([status, code]: (typeof codes)[number] = codes[0]) =>
    proxy.add({
      match: (request) => keyOf(request) === "old",
      times: Infinity,
      fault: FaultProxy.Fault.Answer({ status, body: `<Error><Code>${code}</Code></Error>` })
    })
  return { open, proxy, revoke, signedWith: (from = 0) => proxy.requests.slice(from).map(keyOf) }
})

const profile = (key: string) =>
  `[default]\naws_access_key_id = ${key}\naws_secret_access_key = secret\naws_session_token = token-${key}\n`

// Other servers know the credentials of their users alone.
describe.skipIf(server.kind !== "emulator")("credentials that are replaced", () => {
  for (const refusal of codes) {
    it.scopedLive(`in the shared file are read again after ${refusal.join(" ")}, by every operation`, () =>
      Effect.gen(function*() {
        const file = join(yield* temporaryDirectory, "credentials")
        yield* environment({ AWS_SHARED_CREDENTIALS_FILE: file, AWS_CONFIG_FILE: "/dev/null" })
        const { open, proxy, revoke, signedWith } = yield* setup
        writeFileSync(file, profile("old"))
        const first = yield* open
        yield* first.save("k", content)
        const operations: ReadonlyArray<(storage: typeof first) => Effect.Effect<unknown, StorageError.StorageError>> =
          [
            (storage) => Effect.map(storage.load("k"), (loaded) => expect(print(loaded)).toBe(print(content))),
            (storage) =>
              Effect.map(gather(storage.stream("k")), (loaded) => expect(print(loaded)).toBe(print(content))),
            (storage) => Effect.map(storage.head("k"), ({ size }) => expect(size).toBe(content.length)),
            (storage) => storage.save("k", content),
            (storage) => storage.save("k", Stream.make(content)),
            (storage) => Effect.map(storage.list(), (keys) => expect(keys).toContain("k")),
            (storage) => storage.copy("k", "copy"),
            (storage) => storage.remove("copy")
          ]
        for (const operation of operations) {
          proxy.clear()
          writeFileSync(file, profile("old"))
          const storage = yield* open
          revoke(refusal)
          writeFileSync(file, profile("new"))
          const before = proxy.requests.length
          yield* operation(storage)
          expect(signedWith(before)[0]).toBe("old")
          expect(signedWith().at(-1)).toBe("new")
        }
      }))
  }

  it.scopedLive("in the shared file are read by a new storage", () =>
    Effect.gen(function*() {
      const file = join(yield* temporaryDirectory, "credentials")
      yield* environment({ AWS_SHARED_CREDENTIALS_FILE: file, AWS_CONFIG_FILE: "/dev/null" })
      const { open, revoke, signedWith } = yield* setup
      writeFileSync(file, profile("old"))
      yield* open
      revoke()
      writeFileSync(file, profile("new"))
      yield* (yield* open).list()
      expect(signedWith()).toEqual(["old", "new", "new"])
    }))

  it.scopedLive("by a program, or in the container, are asked for again", () =>
    Effect.gen(function*() {
      const directory = yield* temporaryDirectory
      const program = join(directory, "program")
      const answer = (key: string) =>
        JSON.stringify({
          Version: 1,
          AccessKeyId: key,
          SecretAccessKey: "s",
          Token: "t",
          SessionToken: "t",
          Expiration: new Date(Date.now() + 3_600_000)
        })
      writeFileSync(program, `#!/bin/sh\ncat '${join(directory, "answer")}'\n`)
      chmodSync(program, 0o755)
      const config = join(directory, "config")
      writeFileSync(config, `[default]\ncredential_process = ${program}\n`)
      let key = "old"
      const container = yield* listen(http.createServer((_, response) => void response.end(answer(key))))
      const sources = [
        { AWS_CONFIG_FILE: config, AWS_SHARED_CREDENTIALS_FILE: "/dev/null" },
        {
          AWS_CONTAINER_CREDENTIALS_FULL_URI: container.endpoint,
          AWS_CONFIG_FILE: "/dev/null",
          AWS_SHARED_CREDENTIALS_FILE: "/dev/null"
        }
      ]
      const replace = (other: string) => {
        key = other
        writeFileSync(join(directory, "answer"), answer(other))
      }
      for (const source of sources) {
        yield* Effect.scoped(Effect.gen(function*() {
          replace("old")
          yield* environment(source)
          const { open, revoke, signedWith } = yield* setup
          const storage = yield* open
          revoke()
          replace("new")
          yield* storage.list()
          expect(signedWith()).toEqual(["old", "old", "new"])
        }))
      }
    }))

  it.scopedLive("are asked for once by many requests, and what is refused for good is sent once", () =>
    Effect.gen(function*() {
      const file = join(yield* temporaryDirectory, "credentials")
      yield* environment({ AWS_SHARED_CREDENTIALS_FILE: file, AWS_CONFIG_FILE: "/dev/null" })
      const { open, proxy, revoke, signedWith } = yield* setup
      writeFileSync(file, profile("old"))
      const storage = yield* open
      revoke()
      const before = proxy.requests.length
      const failure = yield* Effect.flip(storage.list())
      expect(failure).toBeInstanceOf(StorageError.AccessDenied)
      expect(failure.message).toContain("InvalidAccessKeyId")
      expect(signedWith(before)).toEqual(["old"])
      writeFileSync(file, profile("new"))
      yield* Effect.sleep("1 second")
      yield* Effect.forEach(Array.from({ length: 20 }), () => storage.list(), { concurrency: "unbounded" })
      expect(signedWith().filter((key) => key === "new").length).toBe(20)
    }))
})

it.live("credentials that stay the same are found anew in a tenth of the time at most", () =>
  Effect.promise(async () => {
    let found = 0
    const credentials = new Credentials(async (options) => {
      if (options?.forceRefresh !== true) return { accessKeyId: "a" }
      found++
      await new Promise((resolve) => setTimeout(resolve, 50))
      return { accessKeyId: "a" }
    })
    const start = Date.now()
    while (Date.now() - start < 400) expect(await credentials.renew(0)).toBe(false)
    expect(found).toBe(1)
  }))
