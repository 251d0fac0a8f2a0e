/**
 * The page at `/docs`: what it tells people to send is sent, by a shell and curl, and people can read it at a desk and on a
 * phone, in a browser without any other server.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Schema } from "effect"
import { execFile } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { MemoryStorage, type WeightServer } from "surfing-weights"
import { browser, executable } from "../support/chromium.js"
import { ask, type Served, serveOf } from "../support/weightServer.js"

const token = "a-token-for-the-docs"

const servers: ReadonlyArray<readonly [string, WeightServer.Options]> = [
  ["reads only", {}],
  ["is writable", { writable: true, name: "Models" }],
  ["requires tokens", { writable: true, auth: { tokens: [{ token: Redacted.make(token), scope: "write" }] } }]
]

/** A server on memory that has the object of the guide. */
const serveWith = (options: WeightServer.Options) =>
  Effect.gen(function*() {
    const storage = yield* MemoryStorage.make()
    yield* storage.save("bert/model.safetensors", new Uint8Array(1000))
    return yield* serveOf(storage, options)
  })

const Definition = Schema.parseJson(Schema.Struct({ info: Schema.Struct({ description: Schema.String }) }))

const guideOf = (served: Served) =>
  Effect.map(ask(served, "GET", "/openapi.json"), ({ text }) => Schema.decodeSync(Definition)(text).info.description)

/** The code of the first block in a language. */
const block = (guide: string, language: string): string =>
  new RegExp("```" + language + "\\n([^]*?)\\n```").exec(guide)?.[1] ?? ""

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "surfing-weights-docs-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

describe("the guide at /docs", () => {
  it.scopedLive.each(servers)(
    "shows commands that work, for a server that %s",
    ([, options]) =>
      Effect.gen(function*() {
        const served = yield* serveWith(options)
        const cwd = yield* folder
        const model = new Uint8Array(100_000).fill(7)
        yield* Effect.promise(() => writeFile(join(cwd, "model.safetensors"), model))
        const shown = block(yield* guideOf(served), "sh")
        // Each command says its status in a line of its own.
        const script = shown
          .replace("http://127.0.0.1:8765", served.url)
          .replace("TOKEN=\"...\"", `TOKEN="${token}"`)
          .replaceAll(/^curl (.*)$/gm, "curl -sS -w '\\nstatus %{http_code}\\n' $1")
        const { stdout } = yield* Effect.promise(() => promisify(execFile)("bash", ["-euc", script], { cwd }))
        const statuses = [...stdout.matchAll(/^status (\d+)$/gm)].map(([, status]) => Number(status))
        const reading = [200, 206, 200, 200, 200, 200]
        expect(statuses).toEqual(options.writable === true ? [200, 412, ...reading, 204] : reading)
        const copy = yield* Effect.promise(() => readFile(join(cwd, "copy.safetensors")))
        expect(copy).toEqual(Buffer.from(options.writable === true ? model : new Uint8Array(1000)))
        expect((yield* Effect.promise(() => readFile(join(cwd, "first.bin")))).length).toBe(8)
      })
  )

  it.scopedLive.each(servers)(
    "shows the body of a failure as it is sent, for a server that %s",
    ([, options]) =>
      Effect.gen(function*() {
        const served = yield* serveWith(options)
        const { status, text } = yield* ask(served, "GET", "/objects/bert/none", { authorization: `Bearer ${token}` })
        expect([status, block(yield* guideOf(served), "json")]).toEqual([404, text])
      })
  )

  it.scopedLive("says how to authorize: with a token, as the app decides, or not at all", () =>
    Effect.gen(function*() {
      const guides = yield* Effect.forEach([{}, servers[2]?.[1] ?? {}, { auth: (app) => app }], (
        options: WeightServer.Options
      ) => Effect.flatMap(serveWith(options), guideOf))
      const sections = guides.map((guide) => /## Authorization\n\n(.*)/.exec(guide)?.[1])
      expect(sections).toEqual([
        expect.stringContaining("need no token"),
        expect.stringContaining("authorization: Bearer <token>"),
        expect.stringContaining("The app that serves these objects decides")
      ])
      expect(guides.map((guide) => guide.includes("$TOKEN"))).toEqual([false, true, false])
    }))

  const skipped = executable === undefined
  it.scopedLive.skipIf(skipped)(
    `is read at a desk and on a phone without scrolling sideways${skipped ? " (skipped: there is no chromium)" : ""}`,
    () =>
      Effect.gen(function*() {
        const served = yield* serveWith(servers[2]?.[1] ?? {})
        const { context } = yield* browser
        const pictures = process.env["SCREENSHOTS"]
        const looked = yield* Effect.promise(async () => {
          const page = await context.newPage()
          const problems: Array<string> = []
          page.on("console", (message) => message.type() === "error" && problems.push(message.text()))
          page.on("pageerror", (error) => problems.push(error.message))
          page.on("request", (request) => {
            if (!/^(data:|blob:)/.test(request.url()) && !request.url().startsWith(served.url)) {
              problems.push(request.url())
            }
          })
          const widths: Array<readonly [number, number]> = []
          let text = ""
          for (const width of [1280, 390]) {
            await page.setViewportSize({ width, height: 900 })
            await page.goto(`${served.url}/docs`)
            await page.getByRole("heading", { name: "Errors" }).waitFor()
            await page.locator(".opblock").first().waitFor()
            // Opened, an operation has its parameters and responses in tables.
            await page.locator(".opblock-summary-control").first().click()
            await page.locator(".responses-table").first().waitFor()
            text = await page.locator("body").innerText()
            widths.push([width, await page.evaluate<number>("document.documentElement.scrollWidth")])
            if (pictures !== undefined) {
              await page.screenshot({ path: join(pictures, `docs-${width}.png`), fullPage: true })
            }
          }
          return { problems, text, widths }
        })
        expect(looked.widths).toEqual([[1280, 1280], [390, 390]])
        expect(looked.problems).toEqual([])
        expect(looked.text).toContain("curl -H \"authorization: Bearer $TOKEN\" -T model.safetensors")
        expect(looked.text).toContain("\"_tag\":\"ObjectNotFound\"")
        expect(looked.text).toContain("/objects/{key}")
      })
  )
})
