/**
 * Large objects whose copy is broken off in the middle, by a signal, and resumed when the command is given again: to a directory, to
 * S3 and from there.
 */
import { GetObjectCommand } from "@aws-sdk/client-s3"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { run, start } from "../support/command.js"
import { bytes, MiB, print } from "../support/content.js"
import { temporaryDirectory, temporaryFiles } from "../support/directory.js"
import * as FaultProxy from "../support/faultProxy.js"
import { isLinux } from "../support/fileSystem.js"
import { makeBucket, sdk, server, unfinishedUploads } from "../support/s3Bucket.js"
import { eventually } from "../support/timing.js"

const size = 200 * MiB
const partSize = 8 * MiB
const name = "model.safetensors"
const content = bytes(size)
const expected = print(content)
const other = bytes(size, 1)

const env = {
  AWS_ACCESS_KEY_ID: server.accessKeyId,
  AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
  AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: "true"
}

/** A folder with a large file. */
const source = Effect.map(temporaryDirectory, (directory) => {
  fs.writeFileSync(path.join(directory, name), content)
  return { directory, file: path.join(directory, name) }
})

/** A bucket behind a proxy that notes what is asked of it. */
const newBucket = Effect.gen(function*() {
  const bucket = yield* makeBucket
  const proxy = yield* FaultProxy.make(server.endpoint)
  const parts = () => proxy.requests.filter(({ method, query }) => method === "PUT" && query.has("partNumber"))
  return {
    bucket,
    proxy,
    parts,
    urlOf: (key: string) => `s3://${bucket}/${key}?endpoint=${proxy.endpoint}&region=${server.region}&partSize=8MiB`,
    /** What the bucket has, as another program loads it. */
    loaded: Effect.promise(async () => {
      const { Body } = await sdk.send(new GetObjectCommand({ Bucket: bucket, Key: name }))
      return print(await Body?.transformToByteArray() ?? new Uint8Array(0))
    })
  }
})

interface Event {
  readonly event: string
  readonly key: string
  readonly position?: number
  readonly size?: number
}

/** Runs a command to its end, which must be a success, and returns its events. */
const events = (...args: ReadonlyArray<string>) =>
  Effect.map(run([...args, "--json"], { env }), ({ code, stderr, stdout }) => {
    expect([code, stderr]).toEqual([0, ""])
    return stdout.toString().trimEnd().split("\n").map((line) => JSON.parse(line) as Event)
      .filter(({ event }) => event !== "progress")
  })

/** Breaks a command off once `isReached`. */
const breakOff = (args: ReadonlyArray<string>, isReached: () => boolean, signal: "SIGKILL" | "SIGINT" = "SIGKILL") =>
  Effect.scoped(Effect.gen(function*() {
    const child = yield* start(args, { env })
    const exited = once(child, "exit")
    yield* eventually(() => expect(isReached() || child.exitCode !== null).toBe(true))
    child.kill(signal)
    yield* Effect.promise(() => exited)
    expect(child.exitCode).toBe(signal === "SIGKILL" ? null : 130)
  }))

/** Whether the unfinished file of a directory has so many bytes. */
const hasBytes = (directory: string, count: number) => () =>
  temporaryFiles(directory).some((file) => {
    const stats = fs.statSync(path.join(directory, ".surfing-weights", file), { throwIfNoEntry: false })
    return stats !== undefined && stats.size >= count
  })

const positionOf = (all: ReadonlyArray<Event>): number => {
  const [{ position = 0 } = {}, ...more] = all.filter(({ event }) => event === "resumed")
  expect(more).toEqual([])
  return position
}

describe.runIf(isLinux)("a transfer to a directory", () => {
  for (const signal of ["SIGKILL", "SIGINT"] as const) {
    it.scopedLive(`that ${signal} ended goes on where it stopped when cp is given again`, () =>
      Effect.gen(function*() {
        const { file } = yield* source
        const target = yield* temporaryDirectory
        yield* breakOff(["cp", file, `${target}/`], hasBytes(target, 20 * MiB), signal)
        expect(fs.existsSync(path.join(target, name))).toBe(false)
        const [left = ""] = temporaryFiles(target)
        const { size: position } = fs.statSync(path.join(target, ".surfing-weights", left))
        expect(yield* events("cp", file, `${target}/`)).toEqual([
          { event: "resumed", key: name, position, size },
          { event: "copied", key: name, size }
        ])
        expect(print(fs.readFileSync(path.join(target, name)))).toBe(expected)
        expect(temporaryFiles(target)).toEqual([])
        expect(fs.statSync(path.join(target, name)).mode).toBe(fs.statSync(file).mode)
      }))
  }

  it.scopedLive("starts anew where the source was replaced meanwhile, and two at once end well", () =>
    Effect.gen(function*() {
      const { directory, file } = yield* source
      const target = yield* temporaryDirectory
      yield* breakOff(["sync", directory, target], hasBytes(target, 20 * MiB))
      fs.writeFileSync(file, other)
      const both = yield* Effect.all([events("sync", directory, target), events("sync", directory, target)], {
        concurrency: 2
      })
      for (const all of both) expect(positionOf(all)).toBe(0)
      expect(print(fs.readFileSync(path.join(target, name)))).toBe(print(other))
      expect(temporaryFiles(target)).toEqual([])
    }))

  it.scopedLive("goes on with the missing bytes of an object in a bucket", () =>
    Effect.gen(function*() {
      const { file } = yield* source
      const { proxy, urlOf } = yield* newBucket
      yield* events("cp", file, urlOf(name))
      const target = yield* temporaryDirectory
      yield* breakOff(["cp", urlOf(name), `${target}/`], hasBytes(target, 20 * MiB))
      const before = proxy.requests.length
      const position = positionOf(yield* events("cp", urlOf(name), `${target}/`))
      expect(position).toBeGreaterThanOrEqual(20 * MiB)
      const starts = proxy.requests.slice(before).filter(({ headers, method, path }) =>
        method === "GET" && path.endsWith(name) && headers.range !== undefined
      ).map(FaultProxy.startOf)
      expect(Math.min(...starts)).toBe(position)
      expect(print(fs.readFileSync(path.join(target, name)))).toBe(expected)
    }))
})

describe.skipIf(server.kind === "emulator")("a transfer to a bucket", () => {
  for (const signal of ["SIGKILL", "SIGINT"] as const) {
    it.scopedLive(`that ${signal} ended sends only the missing parts when cp is given again`, () =>
      Effect.gen(function*() {
        const { file } = yield* source
        const { bucket, loaded, parts, urlOf } = yield* newBucket
        yield* breakOff(
          ["cp", file, urlOf(name)],
          () => parts().filter(({ status }) => status === 200).length > 8,
          signal
        )
        expect(yield* unfinishedUploads(bucket)).toEqual([name])
        const before = parts().length
        const position = positionOf(yield* events("cp", file, urlOf(name)))
        expect(position).toBeGreaterThanOrEqual(4 * partSize)
        expect(parts().length - before).toBe((size - position) / partSize)
        expect(yield* loaded).toBe(expected)
        expect(yield* unfinishedUploads(bucket)).toEqual([])
      }))
  }

  it.scopedLive("starts anew where the source was replaced meanwhile", () =>
    Effect.gen(function*() {
      const { directory, file } = yield* source
      const { loaded, parts, urlOf } = yield* newBucket
      yield* breakOff(["push", directory, urlOf("")], () => parts().filter(({ status }) => status === 200).length > 8)
      fs.writeFileSync(file, other)
      expect(positionOf(yield* events("push", directory, urlOf("")))).toBe(0)
      expect(yield* loaded).toBe(print(other))
    }))

  it.scopedLive("starts anew where the source was changed after its first parts, and leaves the old upload alone", () =>
    Effect.gen(function*() {
      const { file } = yield* source
      const { bucket, loaded, parts, urlOf } = yield* newBucket
      yield* breakOff(["cp", file, urlOf(name)], () => parts().filter(({ status }) => status === 200).length > 8)
      const changed = Uint8Array.from(content)
      changed[2 * partSize + 5] = ~(changed[2 * partSize + 5] ?? 0)
      fs.writeFileSync(file, changed)
      expect(positionOf(yield* events("cp", file, urlOf(name)))).toBe(0)
      expect(yield* loaded).toBe(print(changed))
      expect(yield* unfinishedUploads(bucket)).toEqual([name])
    }))

  it.scopedLive("ends well for two that go on at once", () =>
    Effect.gen(function*() {
      const { file } = yield* source
      const { loaded, parts, urlOf } = yield* newBucket
      yield* breakOff(["cp", file, urlOf(name)], () => parts().filter(({ status }) => status === 200).length > 8)
      yield* Effect.all([events("cp", file, urlOf(name)), events("cp", file, urlOf(name))], { concurrency: 2 })
      expect(yield* loaded).toBe(expected)
    }))
})
