/**
 * An S3 server for tests and benchmarks, the first of these that is available:
 *
 * - `given`: the one at `S3_TEST_ENDPOINT`, with `S3_TEST_REGION`, `S3_TEST_ACCESS_KEY_ID`, `S3_TEST_SECRET_ACCESS_KEY`
 * - `radosgw`: Ceph's gateway, if it is installed (Debian: `apt-get install radosgw ceph-mon ceph-osd ceph-common`)
 * - `emulator`: `fauxqs`, in this process. It knows no users and no conditional writes.
 */
import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3"
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { createServer } from "node:net"
import { delimiter, join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { listen } from "./loopback.js"

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface S3Server extends Credentials {
  readonly kind: "radosgw" | "emulator" | "given"
  /** For requests with the bucket in the path. */
  readonly endpoint: string
  readonly region: string
  /** A user without access to the buckets of the first one. */
  readonly other?: Credentials
}

export interface RunningS3Server extends S3Server {
  /** Which server this is, and why, in words. */
  readonly description: string
  readonly stop: () => Promise<void>
}

/** The AWS SDK's client for a server here. */
export const client = (server: S3Server, options: S3ClientConfig = {}): S3Client =>
  new S3Client({
    endpoint: server.endpoint,
    region: server.region,
    credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey },
    forcePathStyle: true,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    ...options
  })

export interface Options {
  /** Whether Ceph is used where it is installed. Default: true. */
  readonly ceph?: boolean
  /** Ceph keeps deleted bytes for at least this many seconds, since they may still be read. Default: 30. */
  readonly keepsDeleted?: number
}

/** Starts the server and waits until it answers. It ends with this process at the latest. */
export const start = async ({ ceph = true, keepsDeleted = 30 }: Options = {}): Promise<RunningS3Server> => {
  const given = process.env["S3_TEST_ENDPOINT"]
  if (given !== undefined) return giveServer(given)
  if (!ceph) return startEmulator("the fast tests need no more")
  const missing = cephPrograms.filter((program) => !isOnPath(program))
  return missing.length === 0
    ? startCeph(keepsDeleted)
    : startEmulator(`these are not on the PATH: ${missing.join(", ")}`)
}

const giveServer = (endpoint: string): RunningS3Server => ({
  kind: "given",
  endpoint,
  region: process.env["S3_TEST_REGION"] ?? "us-east-1",
  accessKeyId: variable("S3_TEST_ACCESS_KEY_ID"),
  secretAccessKey: variable("S3_TEST_SECRET_ACCESS_KEY"),
  description: `the S3 server of S3_TEST_ENDPOINT, ${endpoint}`,
  stop: () => Promise.resolve()
})

const variable = (name: string): string => {
  const value = process.env[name]
  if (value === undefined) throw new Error(`S3_TEST_ENDPOINT is set and ${name} is not`)
  return value
}

const startEmulator = async (reason: string): Promise<RunningS3Server> => {
  const { buildApp } = await import("fauxqs")
  const app = buildApp({ logger: false })
  const endpoint = await app.listen({ host: "127.0.0.1", port: 0 })
  return {
    kind: "emulator",
    endpoint,
    region: "us-east-1",
    accessKeyId: "test",
    secretAccessKey: "test-secret",
    description: `the emulator fauxqs at ${endpoint} (${reason})`,
    stop: () => app.close()
  }
}

const cephPrograms = [
  "ceph",
  "ceph-authtool",
  "ceph-mon",
  "ceph-osd",
  "monmaptool",
  "radosgw",
  "radosgw-admin"
]

const isOnPath = (program: string): boolean =>
  (process.env["PATH"] ?? "").split(delimiter).some((directory) => existsSync(join(directory, program)))

const startCeph = async (keepsDeleted: number): Promise<RunningS3Server> => {
  const user = { accessKeyId: "test", secretAccessKey: "test-secret" }
  const other = { accessKeyId: "other", secretAccessKey: "other-secret" }
  // Both are taken until both are known, so they are not one.
  const [monitorPort, gatewayPort] = await Effect.runPromise(Effect.scoped(Effect.all([takePort(), takePort()])))
  const endpoint = `http://127.0.0.1:${gatewayPort}`
  const users = [user, other].map(({ accessKeyId, secretAccessKey }) => `${accessKeyId}:${secretAccessKey}`)
  const script = join(import.meta.dirname, "ceph.sh")
  // In a session of its own, Ctrl-C reaches only this process; the end of its input tells the script.
  const ceph = spawn("bash", [script, monitorPort, gatewayPort, keepsDeleted, ...users].map(String), {
    detached: true,
    stdio: ["pipe", "ignore", "pipe"]
  })
  let complaints = ""
  ceph.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaints = (complaints + text).slice(-10_000)
  })
  const ended = new Promise<void>((resolve) => void ceph.once("close", () => resolve()))
  const stop = () => {
    ceph.stdin.end()
    return ended
  }
  try {
    await untilReady(endpoint, ceph)
  } catch (cause) {
    await stop()
    throw new Error(`Ceph did not start: ${complaints}`, { cause })
  }
  return {
    kind: "radosgw",
    endpoint,
    region: "us-east-1",
    ...user,
    other,
    description: `Ceph's RADOS gateway at ${endpoint}`,
    stop
  }
}

/** A port that is free when the scope is closed. */
const takePort = () => Effect.map(listen(createServer()), ({ endpoint }) => new URL(endpoint).port)

/** Waits for the answer that a bucket does not exist, for five minutes at most. */
const untilReady = async (endpoint: string, server: ChildProcess): Promise<void> => {
  const deadline = Date.now() + 300_000
  while (server.exitCode === null && Date.now() < deadline) {
    const request = fetch(`${endpoint}/no-such-bucket`, { method: "HEAD", signal: AbortSignal.timeout(5000) })
    const status = await request.then((answer) => answer.status, () => undefined)
    if (status === 404) return
    await setTimeout(50)
  }
  throw new Error(`no answer from ${endpoint}`)
}
