/**
 * Pages in a real browser. Where there is no Chromium, their tests are skipped.
 */
import { it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { build } from "esbuild"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as http from "node:http"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { type BrowserContext, chromium, type Page } from "playwright-core"
import { listen } from "./loopback.js"

const root = resolve(import.meta.dirname, "../..")

/** The path of Chromium; `undefined` where it is not installed. */
export const executable = [
  ...(process.env["PATH"] ?? "").split(":").map((folder) => join(folder, "chromium")),
  "/usr/bin/chromium"
].find(existsSync)

/** A test that needs a browser. */
export const inBrowser = {
  scopedLive: <E>(name: string, test: () => Effect.Effect<void, E, Scope.Scope>, limit?: number) =>
    executable === undefined
      ? it.skip(`${name} (skipped: there is no chromium)`, () => {})
      : it.scopedLive(name, test, limit)
}

/** A browser with a profile of its own, until the scope closes. */
export const browser = Effect.acquireRelease(
  Effect.promise(async () => {
    const folder = mkdtempSync(join(tmpdir(), "surfing-weights-chromium-"))
    const context = await chromium.launchPersistentContext(folder, {
      ...(executable !== undefined && { executablePath: executable }),
      headless: true,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync"
      ]
    })
    return { context, folder }
  }),
  ({ context, folder }) =>
    Effect.promise(async () => {
      await context.close()
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
    })
)

/** A page of a browser, once its script has run. */
export const openTab = (context: BrowserContext, address: string): Effect.Effect<Page> =>
  Effect.promise(async () => {
    const tab = await context.newPage()
    await tab.goto(address)
    await tab.waitForFunction("globalThis.perform !== undefined")
    return tab
  })

/** Has a page do a task of `test/browser/tasks.ts`. */
export const perform = (tab: Page, task: string, options: object = {}): Effect.Effect<unknown> =>
  Effect.promise(async () =>
    JSON.parse(await tab.evaluate<string>(`perform(${JSON.stringify({ task, options })})`)) as unknown
  )

/** Has a new worker of a page do a task. */
export const performInWorker = (tab: Page, task: string, options: object = {}): Effect.Effect<unknown> =>
  Effect.promise(async () =>
    JSON.parse(
      await tab.evaluate<string>(`new Promise((resolve, reject) => {
        const worker = new Worker("/main.js", { type: "module" })
        worker.onmessage = ({ data }) => {
          worker.terminate()
          if (data.error === undefined) resolve(data.result)
          else reject(new Error(data.error))
        }
        worker.onerror = ({ message }) => reject(new Error(message))
        worker.postMessage(${JSON.stringify({ task, options })})
      })`)
    ) as unknown
  )

/** A server of a page with a script, bundled as the readers of the README bundle it. */
export const pageOf = (script: string, alias: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function*() {
    const { outputFiles } = yield* Effect.promise(() =>
      build({
        entryPoints: [join(root, script)],
        bundle: true,
        format: "esm",
        platform: "browser",
        tsconfig: join(root, "tsconfig.json"),
        alias,
        write: false
      })
    )
    const bundle = outputFiles[0]?.text ?? ""
    const html = readFileSync(join(root, "examples/browser/index.html"))
    const server = http.createServer((request, response) => {
      const isScript = request.url === "/main.js"
      response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" })
      response.end(isScript ? bundle : html)
    })
    return (yield* listen(server)).endpoint
  })
