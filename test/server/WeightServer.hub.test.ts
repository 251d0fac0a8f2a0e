/**
 * A weight server as a model hub, request by request. The clients themselves are in `WeightServer.hub.all.test.ts`.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Layer } from "effect"
import { Deferred, Effect, Redacted, type Scope, Stream, TestClock } from "effect"
import { createHash } from "node:crypto"
import * as http from "node:http"
import { setTimeout } from "node:timers/promises"
import { MemoryStorage, Storage, StorageError, type WeightServer } from "surfing-weights"
import { bytes } from "../support/content.js"
import { storageOnDirectory } from "../support/directory.js"
import { type Call, noting } from "../support/intercepting.js"
import { type Answer, ask, eventually, serve, type Served, serveOf } from "../support/weightServer.js"

const model = "acme/tiny-bert"

const files = {
  "config.json": new TextEncoder().encode("{\"hidden_size\":8}\n"),
  "model.safetensors": bytes(300_000, 1),
  "onnx/deep/model.onnx": bytes(40_000, 2),
  "onnx/model.onnx": bytes(50_000, 3),
  "tokenizer/ä b+c#%41.txt": bytes(77, 4)
}

const sha256 = (content: Uint8Array) => createHash("sha256").update(content).digest("hex")

const pointerOf = (content: Uint8Array) =>
  `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256(content)}\nsize ${content.byteLength}\n`

/** The id that Git gives the pointer to a file. */
const oidOf = (content: Uint8Array) => {
  const pointer = pointerOf(content)
  return createHash("sha1").update(`blob ${pointer.length}\0${pointer}`).digest("hex")
}

const pathOf = (path: string) => path.split("/").map(encodeURIComponent).join("/")

const saveAll = (storage: Storage.Service) =>
  Effect.forEach(Object.entries(files), ([path, content]) => storage.save(`${model}/${path}`, content))

const json = (answer: Answer): unknown => JSON.parse(answer.text)

const infoOf = (served: Served) =>
  Effect.map(ask(served, "GET", `/api/models/${model}`), (answer) => json(answer) as { readonly sha: string })

const suite = (name: string, storage: Layer.Layer<Storage.Storage, unknown>) =>
  describe(name, () => {
    const test = (
      name: string,
      body: (served: Served) => Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>
    ) =>
      it.live(name, () =>
        Effect.gen(function*() {
          const served = yield* serve({ hub: true })
          yield* saveAll(served.storage)
          yield* body(served)
        }).pipe(Effect.scoped, Effect.provide(storage)))

    test("describes a model, its files and its commit", (served) =>
      Effect.gen(function*() {
        const answer = yield* ask(served, "GET", `/api/models/${model}`)
        expect(answer.status).toBe(200)
        expect(answer.headers["content-type"]).toBe("application/json")
        expect(json(answer)).toMatchObject({
          id: model,
          author: "acme",
          private: false,
          gated: false,
          sha: expect.stringMatching(/^[0-9a-f]{40}$/) as unknown,
          siblings: Object.keys(files).map((rfilename) => ({ rfilename }))
        })
        const { sha } = yield* infoOf(served)
        for (const revision of ["main", "HEAD", sha]) {
          const same = yield* ask(served, "GET", `/api/models/${model}/revision/${revision}?expand=sha`)
          expect(json(same)).toEqual(json(answer))
        }
        const withBlobs = yield* ask(served, "GET", `/api/models/${model}/revision/main?blobs=True`)
        expect((json(withBlobs) as { readonly siblings: unknown }).siblings).toEqual(
          Object.entries(files).map(([rfilename, content]) => ({
            rfilename,
            size: content.byteLength,
            blobId: oidOf(content),
            lfs: { sha256: sha256(content), size: content.byteLength, pointerSize: pointerOf(content).length }
          }))
        )
      }))

    test("lists the tree, whole and folder by folder", (served) =>
      Effect.gen(function*() {
        const file = (path: keyof typeof files) => ({
          type: "file",
          path,
          size: files[path].byteLength,
          oid: oidOf(files[path]),
          lfs: {
            oid: sha256(files[path]),
            size: files[path].byteLength,
            pointerSize: pointerOf(files[path]).length
          }
        })
        const folder = (path: string) => ({
          type: "directory",
          path,
          size: 0,
          oid: expect.stringMatching(/^[0-9a-f]{40}$/) as unknown
        })
        const tree = (rest: string) => Effect.map(ask(served, "GET", `/api/models/${model}/tree/main${rest}`), json)
        expect(yield* tree("?recursive=True&expand=False")).toEqual([
          file("config.json"),
          file("model.safetensors"),
          folder("onnx"),
          folder("onnx/deep"),
          file("onnx/deep/model.onnx"),
          file("onnx/model.onnx"),
          folder("tokenizer"),
          file("tokenizer/ä b+c#%41.txt")
        ])
        expect(yield* tree("")).toEqual([
          file("config.json"),
          file("model.safetensors"),
          folder("onnx"),
          folder("tokenizer")
        ])
        expect(yield* tree("/onnx?recursive=false")).toEqual([folder("onnx/deep"), file("onnx/model.onnx")])
        const { sha } = yield* infoOf(served)
        expect(yield* tree("/onnx/deep?expand=true")).toEqual([
          {
            ...file("onnx/deep/model.onnx"),
            lastCommit: { id: sha, title: "", date: expect.any(String) as unknown }
          }
        ])
        const absent = yield* ask(served, "GET", `/api/models/${model}/tree/main/onn`)
        expect([absent.status, absent.headers["x-error-code"]]).toEqual([404, "EntryNotFound"])
      }))

    test("GET and HEAD of a file tell the commit, the SHA-256 and the size", (served) =>
      Effect.gen(function*() {
        const { sha } = yield* infoOf(served)
        for (const [path, content] of Object.entries(files)) {
          const expected = {
            "x-repo-commit": sha,
            "x-linked-etag": `"${sha256(content)}"`,
            "x-linked-size": String(content.byteLength),
            "content-length": String(content.byteLength),
            "accept-ranges": "bytes",
            etag: `"${(yield* served.storage.head(`${model}/${path}`)).etag}"`
          }
          for (const place of ["resolve/main", `resolve/${sha}`, "raw/main"]) {
            const address = `/${model}/${place}/${pathOf(path)}`
            const head = yield* ask(served, "HEAD", address)
            expect(head.status).toBe(200)
            expect(head.headers).toMatchObject(expected)
            const got = yield* ask(served, "GET", address)
            expect(got.status).toBe(200)
            expect(got.headers).toMatchObject(expected)
            expect(sha256(got.body)).toBe(sha256(content))
          }
        }
      }))

    test("sends ranges, and respects conditions", (served) =>
      Effect.gen(function*() {
        const address = `/${model}/resolve/main/model.safetensors`
        const content = files["model.safetensors"]
        const part = yield* ask(served, "GET", address, { range: "bytes=100000-" })
        expect([part.status, part.headers["content-range"]]).toEqual([206, "bytes 100000-299999/300000"])
        expect(part.headers["x-linked-size"]).toBe("300000")
        expect(sha256(part.body)).toBe(sha256(content.subarray(100_000)))
        const none = yield* ask(served, "GET", address, { range: "bytes=300000-" })
        expect([none.status, none.headers["content-range"]]).toEqual([416, "bytes */300000"])
        const again = yield* ask(served, "GET", address, { "if-none-match": part.headers.etag ?? "" })
        expect([again.status, again.body.length]).toEqual([304, 0])
        const changed = yield* ask(served, "HEAD", address, { "if-match": "\"another\"" })
        expect(changed.status).toBe(412)
      }))

    test("a commit changes when a file changes, appears or goes, and stays otherwise", (served) =>
      Effect.gen(function*() {
        const { storage } = served
        const commits = new Set<string>()
        const next = Effect.map(infoOf(served), ({ sha }) => {
          const isNew = !commits.has(sha)
          commits.add(sha)
          return isNew
        })
        const file = `${model}/config.json`
        expect(yield* next).toBe(true)
        expect(yield* next).toBe(false)
        yield* storage.save("acme/tiny-bert-2/config.json", new Uint8Array(1))
        expect(yield* next).toBe(false)
        yield* storage.save(file, new TextEncoder().encode("{\"hidden_size\":9}\n"))
        expect(yield* next).toBe(true)
        yield* storage.save(`${model}/added`, new Uint8Array(1))
        expect(yield* next).toBe(true)
        yield* storage.move(`${model}/added`, `${model}/renamed`)
        expect(yield* next).toBe(true)
        yield* storage.remove(`${model}/renamed`)
        expect(commits.size).toBe(4)
        const [first = ""] = commits
        for (const path of [`/api/models/${model}/revision/${first}`, `/${model}/resolve/${first}/config.json`]) {
          const old = yield* ask(served, "GET", path)
          expect([old.status, old.headers["x-error-code"]]).toEqual([404, "RevisionNotFound"])
        }
      }))

    test("tells which files and folders of some paths there are, asked as JSON or as a form", (served) =>
      Effect.gen(function*() {
        const path = `/api/models/${model}/paths-info/main`
        const paths = ["onnx", "model.safetensors", "missing", "tokenizer/ä b+c#%41.txt"]
        const asJson = yield* ask(
          served,
          "POST",
          path,
          { "content-type": "application/json" },
          JSON.stringify({ paths, expand: true })
        )
        const form = new URLSearchParams([...paths.map((path): [string, string] => ["paths", path]), [
          "expand",
          "True"
        ]])
        const asForm = yield* ask(
          served,
          "POST",
          path,
          { "content-type": "application/x-www-form-urlencoded" },
          form.toString()
        )
        const { sha } = yield* infoOf(served)
        expect(json(asJson)).toMatchObject([
          { type: "directory", path: "onnx", lastCommit: { id: sha } },
          { type: "file", path: "model.safetensors", lfs: { oid: sha256(files["model.safetensors"]) } },
          { type: "file", path: "tokenizer/ä b+c#%41.txt", lastCommit: { id: sha } }
        ])
        expect(json(asForm)).toEqual(json(asJson))
        for (const body of ["", "{}", "[1]", "x".repeat(2_000_000)]) {
          const refused = yield* ask(served, "POST", path, { "content-type": "application/json" }, body)
          expect(refused.status).toBe(400)
        }
        expect((yield* ask(served, "GET", path)).status).toBe(405)
        expect((yield* ask(served, "POST", `/api/models/${model}`, {}, "{}")).status).toBe(405)
      }))
  })

suite("over memory", MemoryStorage.layer())
suite("over files", storageOnDirectory({ durability: "relaxed" }))

const overMemory = (
  options: WeightServer.Options,
  body: (served: Served) => Effect.Effect<void, unknown, Storage.Storage | Scope.Scope>
) =>
  Effect.gen(function*() {
    const served = yield* serve({ hub: true, ...options })
    yield* saveAll(served.storage)
    yield* body(served)
  }).pipe(Effect.scoped, Effect.provide(MemoryStorage.layer()))

describe("what is missing", () => {
  it.live("is told apart by x-error-code, to HEAD without a body", () =>
    overMemory({}, (served) =>
      Effect.gen(function*() {
        const cases = [
          ["RepoNotFound", "/api/models/acme/none"],
          ["RepoNotFound", "/api/models/acme"],
          ["RepoNotFound", "/api/models/acme/tiny"],
          ["RepoNotFound", "/api/models/..%2F..%2Fetc/passwd"],
          ["RepoNotFound", "/api/models/acme%2Ftiny-bert/onnx"],
          ["RepoNotFound", "/api/datasets/acme/tiny-bert"],
          ["RepoNotFound", "/acme/none/resolve/main/config.json"],
          ["RepoNotFound", "/tiny-bert/resolve/main/config.json"],
          ["RepoNotFound", `/datasets/${model}/resolve/main/config.json`],
          ["RevisionNotFound", `/api/models/${model}/revision/v1.0`],
          ["RevisionNotFound", `/api/models/${model}/tree/${"0".repeat(40)}`],
          ["RevisionNotFound", `/${model}/resolve/refs%2Fpr%2F1/config.json`],
          ["EntryNotFound", `/${model}/resolve/main/missing.json`],
          ["EntryNotFound", `/${model}/resolve/main/onnx`],
          ["EntryNotFound", `/${model}/resolve/main/..%2Ftiny-bert%2Fconfig.json`],
          ["EntryNotFound", `/api/models/${model}/tree/main/config.json`]
        ] as const
        for (const [code, path] of cases) {
          const got = yield* ask(served, "GET", path)
          expect([path, got.status, got.headers["x-error-code"]]).toEqual([path, 404, code])
          expect(json(got)).toEqual({ error: got.headers["x-error-message"] })
          const head = yield* ask(served, "HEAD", path)
          expect([head.status, head.headers["x-error-code"], head.text]).toEqual([404, code, ""])
        }
        const nothing = yield* ask(served, "GET", `/${model}`)
        expect([nothing.status, nothing.headers["x-error-code"]]).toEqual([404, undefined])
      })))

  it.live("without the option there are no routes of a hub", () =>
    overMemory({ hub: false }, (served) =>
      Effect.gen(function*() {
        for (const path of [`/api/models/${model}`, `/${model}/resolve/main/config.json`]) {
          const answer = yield* ask(served, "GET", path)
          expect([answer.status, answer.headers["x-error-code"]]).toEqual([404, undefined])
        }
        expect((yield* ask(served, "GET", "/openapi.json")).text).not.toContain("resolve")
      })))

  it.live("the routes of the server stay, and the definition has those of the hub", () =>
    overMemory({}, (served) =>
      Effect.gen(function*() {
        expect((yield* ask(served, "GET", `/objects/${model}/config.json`)).text).toBe("{\"hidden_size\":8}\n")
        expect((yield* ask(served, "GET", "/objects?limit=1")).status).toBe(200)
        expect((yield* ask(served, "GET", "/health")).status).toBe(200)
        const { paths } = json(yield* ask(served, "GET", "/openapi.json")) as { readonly paths: object }
        expect(Object.keys(paths)).toContain("/{organization}/{name}/resolve/{revision}/{path}")
      })))
})

describe("access", () => {
  const token = "a-token-of-24-characters"
  const auth = { tokens: [{ token: Redacted.make(token), scope: "read" as const }] }
  const paths = [
    `/api/models/${model}`,
    `/api/models/${model}/tree/main`,
    `/${model}/resolve/main/config.json`,
    "/acme/none/resolve/main/config.json"
  ]

  it.live("needs a token where the server does, also for what is missing", () =>
    overMemory({ auth }, (served) =>
      Effect.gen(function*() {
        for (const path of paths) {
          expect((yield* ask(served, "GET", path)).status).toBe(401)
          expect((yield* ask(served, "HEAD", path, { authorization: "Bearer another-token-of-some-length" })).status)
            .toBe(401)
          const allowed = yield* ask(served, "GET", path, { authorization: `Bearer ${token}` })
          expect(allowed.status).toBe(path.includes("none") ? 404 : 200)
        }
        const answer = yield* ask(served, "POST", `/api/models/${model}/paths-info/main`, {}, "{\"paths\":[]}")
        expect(answer.status).toBe(401)
        const info = yield* ask(served, "GET", `/api/models/${model}`, { authorization: `Bearer ${token}` })
        expect(json(info)).toMatchObject({ private: true })
      })))

  it.live("asks the middleware, which may refuse", () =>
    overMemory({ auth: (app) => Effect.map(app, (response) => response) }, (served) =>
      Effect.gen(function*() {
        expect((yield* ask(served, "GET", `/${model}/resolve/main/config.json`)).status).toBe(200)
      })))

  it.live("a failure names no place of the storage", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      yield* saveAll(storage)
      const broken = Storage.make({
        ...storage.backend,
        name: "S3(secret-bucket)",
        entries: () =>
          Stream.fail(new StorageError.StorageUnavailable({ reason: "https://secret-bucket.internal.example is down" }))
      })
      const served = yield* serveOf(broken, { hub: true })
      for (const path of paths) {
        const answer = yield* ask(served, "GET", path)
        expect(answer.status).toBe(503)
        expect(answer.text + JSON.stringify(answer.headers)).not.toMatch(/secret|internal|S3/)
      }
    })))
})

describe("a large tree", () => {
  it.live("comes in pages that follow one another by Link, each entry once", () =>
    Effect.scoped(Effect.gen(function*() {
      const storage = yield* MemoryStorage.make()
      const paths = Array.from({ length: 2100 }, (_, i) => `part-${i % 7}/file ${String(i).padStart(4, "0")}.bin`)
      yield* Effect.forEach(paths, (path) => storage.save(`acme/large/${path}`, new TextEncoder().encode(path)))
      const served = yield* serveOf(storage, { hub: true })

      const follow = (path: string, headers = {}) =>
        Effect.gen(function*() {
          const found: Array<string> = []
          const sizes: Array<number> = []
          for (let next: string | undefined = path; next !== undefined;) {
            const answer: Answer = yield* ask(served, "GET", next, headers)
            const page = json(answer) as ReadonlyArray<{ readonly path: string }>
            sizes.push(page.length)
            found.push(...page.map(({ path }) => path))
            const link = /^<([^>]+)>; rel="next"$/.exec(String(answer.headers["link"] ?? ""))?.[1]
            if (link !== undefined) expect(link.startsWith(`http://127.0.0.1:${served.port}/api/`)).toBe(true)
            next = link?.slice(new URL(link).origin.length)
          }
          return { found, sizes }
        })

      const folders = Array.from({ length: 7 }, (_, i) => `part-${i}`)
      const all = yield* follow("/api/models/acme/large/tree/main?recursive=true")
      expect(all.sizes).toEqual([1000, 1000, 107])
      expect([...all.found].sort()).toEqual([...folders, ...paths].sort())
      const few = yield* follow("/api/models/acme/large/tree/main?recursive=true&limit=150")
      expect(few.found).toEqual(all.found)
      expect((yield* follow("/api/models/acme/large/tree/main?limit=3")).found).toEqual(folders)
      expect((yield* follow("/api/models/acme/large/tree/main/part-3?limit=100")).found).toEqual(
        paths.filter((path) => path.startsWith("part-3/"))
      )
    })))

  it.live("the address of the next page is the one that the client used, also behind a proxy", () =>
    overMemory({}, (served) =>
      Effect.gen(function*() {
        const linkFor = (headers: Record<string, string>) =>
          Effect.map(
            ask(served, "GET", `/api/models/${model}/tree/main?limit=1`, headers),
            (answer) => String(answer.headers["link"])
          )
        expect(yield* linkFor({ host: "hub.example" })).toMatch(/^<http:\/\/hub\.example\/api\/models\//)
        expect(yield* linkFor({ "x-forwarded-proto": "https", "x-forwarded-host": "hub.example:8443" })).toMatch(
          /^<https:\/\/hub\.example:8443\/api\/models\//
        )
        expect(yield* linkFor({ "x-forwarded-host": "a>; rel=\"next\", <http://evil" })).toMatch(/^<\/api\/models\//)
      })))
})

describe("a model that takes long to hash", () => {
  /** A server whose storage opens nothing before `opening` is done, and a request for the model that is under way. */
  const asking = Effect.gen(function*() {
    const inner = yield* MemoryStorage.make()
    yield* inner.save(`${model}/model.safetensors`, bytes(1000))
    const opening = yield* Deferred.make<void, StorageError.StorageUnavailable>()
    const storage = Storage.make({
      ...inner.backend,
      open: (key, options) => Effect.zipRight(Deferred.await(opening), inner.backend.open(key, options))
    })
    const served = yield* serveOf(storage, { hub: true })
    let text = ""
    const response = yield* Effect.fork(Effect.async<http.IncomingMessage>((resume) => {
      http.get(`${served.url}/api/models/${model}/tree/main`, (response) => {
        response.setEncoding("utf8").on("data", (piece: string) => text += piece).on("error", () => {})
        resume(Effect.succeed(response))
      })
    }))
    const arrives = (what: string, holds: () => boolean) =>
      eventually(what, holds).pipe(Effect.raceFirst(Effect.forever(
        TestClock.adjust("1 second").pipe(
          Effect.zipRight(Effect.promise(() => setTimeout(20)))
        )
      )))
    yield* arrives("white space", () => text.length >= 2)
    return { arrives, opening, response: yield* response, text: () => text }
  })

  it.scoped("sends white space until then, so that clients wait", () =>
    Effect.gen(function*() {
      const { arrives, opening, response, text } = yield* asking
      expect([response.statusCode, text().trim()]).toEqual([200, ""])
      yield* Deferred.succeed(opening, undefined)
      yield* arrives("the end", () => response.complete)
      expect(JSON.parse(text())).toMatchObject([{ path: "model.safetensors", lfs: { oid: sha256(bytes(1000)) } }])
    }))

  it.scoped("breaks the connection where that fails", () =>
    Effect.gen(function*() {
      const { arrives, opening, response, text } = yield* asking
      yield* Deferred.fail(opening, new StorageError.StorageUnavailable({ reason: "it is down" }))
      yield* arrives("the end", () => response.destroyed)
      expect([response.complete, text().trim()]).toEqual([false, ""])
    }))
})

describe("hashes", () => {
  const calls: Array<Call> = []
  const opensOf = (path: string) =>
    calls.filter(({ args, operation }) => operation === "open" && args[0] === `${model}/${path}`).length

  it.live("an object is read for its hash once, however often and by how many it is asked for", () =>
    Effect.scoped(Effect.gen(function*() {
      calls.length = 0
      const storage = noting(yield* MemoryStorage.make(), calls)
      yield* saveAll(storage)
      const served = yield* serveOf(storage, { hub: true })
      const path = "model.safetensors"
      const head = ask(served, "HEAD", `/${model}/resolve/main/${path}`)
      yield* Effect.all(Array.from({ length: 20 }, () => head), { concurrency: "unbounded" })
      yield* ask(served, "GET", `/api/models/${model}/tree/main?recursive=true`)
      expect(opensOf(path)).toBe(1)
      yield* storage.save(`${model}/${path}`, bytes(1000, 9))
      expect((yield* head).headers["x-linked-etag"]).toBe(`"${sha256(bytes(1000, 9))}"`)
      expect(opensOf(path)).toBe(2)
    })))

  it.live("an object whose checksum is its SHA-256 is not read", () =>
    Effect.scoped(Effect.gen(function*() {
      calls.length = 0
      const inner = yield* MemoryStorage.make()
      const content = files["model.safetensors"]
      const checksum = { algorithm: "SHA256" as const, value: createHash("sha256").update(content).digest("base64") }
      // As S3 tells it: a listing does not have it.
      const storage = noting(
        Storage.make({
          ...inner.backend,
          head: (key) => Effect.map(inner.backend.head(key), (info) => ({ ...info, checksum }))
        }),
        calls
      )
      yield* storage.save(`${model}/model.safetensors`, content)
      const served = yield* serveOf(storage, { hub: true })
      const head = yield* ask(served, "HEAD", `/${model}/resolve/main/model.safetensors`)
      expect(head.headers["x-linked-etag"]).toBe(`"${sha256(content)}"`)
      expect(opensOf("model.safetensors")).toBe(0)
    })))
})
