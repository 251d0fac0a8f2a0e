/**
 * Models for the tests of the hub, and the clients that load them: huggingface_hub under each of the Pythons in `HUB_PYTHON`
 * (separated as in `PATH`), and two versions of @huggingface/hub.
 */
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { promisify } from "node:util"
import type { Storage, WeightServer } from "surfing-weights"
import { bytes } from "./content.js"
import { fixture } from "./safetensorsFiles.js"

export const model = "acme/tiny-bert"

/** A model as it is on a hub. */
export const files: Readonly<Record<string, Uint8Array>> = {
  "README.md": new TextEncoder().encode("# Tiny\n"),
  "config.json": new TextEncoder().encode("{\"hidden_size\":8}\n"),
  "model.safetensors": fixture("floats"),
  "onnx/deep/model.onnx": bytes(3_000_000, 2),
  "onnx/model.onnx": bytes(50_000, 3),
  "tokenizer/ä b+c.txt": bytes(77, 4)
}

export const sha256 = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex")

export const hashes: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(files).map(([name, content]) => [name, sha256(content)])
)

export const saveModel = (storage: Storage.Service, id = model) =>
  Effect.forEach(Object.entries(files), ([name, content]) => storage.save(`${id}/${name}`, content), { discard: true })

/** The requests of a server for bodies of files, in their order: the method, the path and the range. */
export const recordingBodies = (bodies: Array<string>): WeightServer.Middleware => (app) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers, method, url }) => {
    if (method === "GET" && url.includes("/resolve/")) bodies.push(`${url} ${headers["range"] ?? "whole"}`)
    return app
  })

// Python

const program = path.join(import.meta.dirname, "hubClient.py")

/** The Pythons that have huggingface_hub, by its version. */
export const pythons = (): ReadonlyArray<readonly [version: string, python: string]> =>
  (process.env["HUB_PYTHON"] ?? "").split(path.delimiter).filter((python) => python !== "").flatMap((python) => {
    const { status, stdout } = spawnSync(python, [program, "version"], { encoding: "utf8" })
    return status === 0 ? [[Schema.decodeSync(Schema.parseJson(Schema.String))(stdout), python] as const] : []
  })

/** What a client is told by its environment, and nothing else. */
export interface Client {
  readonly python: string
  readonly endpoint: string
  /** A folder of its own. */
  readonly home: string
  readonly token?: string
}

const environmentOf = ({ endpoint, home, token }: Client): NodeJS.ProcessEnv => ({
  PATH: process.env["PATH"],
  HOME: home,
  HF_HOME: home,
  HF_ENDPOINT: endpoint,
  HF_HUB_DISABLE_TELEMETRY: "1",
  HF_HUB_DISABLE_PROGRESS_BARS: "1",
  ...(token !== undefined && { HF_TOKEN: token })
})

/** Runs a command of `hubClient.py`. */
export const runPython = (client: Client, ...args: ReadonlyArray<string>): Effect.Effect<unknown> =>
  Effect.promise(async () => {
    const options = { env: environmentOf(client), maxBuffer: 64 * 1024 * 1024 }
    const { stdout } = await promisify(execFile)(client.python, [program, ...args], options)
    return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as unknown
  })

/** The same, to be killed. */
export const startPython = (client: Client, ...args: ReadonlyArray<string>): ChildProcess =>
  spawn(client.python, [program, ...args], { env: environmentOf(client), stdio: "ignore" })

// JavaScript

interface Located {
  readonly repo: string
  readonly hubUrl: string
  readonly accessToken?: string
  readonly revision?: string
}

/** What the tests use of @huggingface/hub. */
export interface HubPackage {
  readonly modelInfo: (
    options: { readonly name: string; readonly hubUrl: string; readonly additionalFields: ReadonlyArray<string> }
  ) => Promise<{ readonly name: string; readonly sha: string }>
  readonly listFiles: (
    options: Located & { readonly recursive: boolean }
  ) => AsyncIterable<{ readonly type: string; readonly path: string; readonly lfs?: { readonly oid: string } }>
  /** The first of them returns a response, the second a blob that loads what is asked of it. */
  readonly downloadFile: (
    options: Located & { readonly path: string; readonly range?: readonly [first: number, last: number] }
  ) => Promise<Blob | Response | null>
  readonly fileExists: (options: Located & { readonly path: string }) => Promise<boolean>
  readonly fileDownloadInfo: (
    options: Located & { readonly path: string }
  ) => Promise<{ readonly size: number; readonly etag: string } | null>
  readonly snapshotDownload: (options: Located & { readonly cacheDir: string }) => Promise<string>
  readonly parseSafetensorsMetadata: (
    options: Located & { readonly path: string }
  ) => Promise<{ readonly header: Readonly<Record<string, { readonly dtype: string }>> }>
}

export const hubPackages = ["hub-1", "hub-2"] as const

const tools = path.resolve(import.meta.dirname, "../tools/node_modules")

export const loadHubPackage = (name: typeof hubPackages[number]): Promise<HubPackage> =>
  import(pathToFileURL(path.join(tools, name, "dist/index.mjs")).href) as Promise<HubPackage>
