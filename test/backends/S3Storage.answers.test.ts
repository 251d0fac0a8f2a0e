/**
 * Responses that report success and are not those of the operation: garbage, pages, documents that are cut off or compressed,
 * missing lengths and etags, listings that are wrong. Each server is played on loopback.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Redacted, Stream } from "effect"
import * as http from "node:http"
import * as zlib from "node:zlib"
import { ByteRange, S3Storage, type Storage, type StorageError } from "surfing-weights"
import { bytes, gather, MiB, print } from "../support/content.js"
import { listen } from "../support/loopback.js"
import { eventually, quick } from "../support/timing.js"

interface Request {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
}

type Respond = (request: Request, response: http.ServerResponse) => unknown

/** A storage on a server that responds like this, and what the server was asked. */
const on = (respond: Respond, options: Partial<S3Storage.Options> = {}) =>
  Effect.gen(function*() {
    const asked: Array<Request> = []
    const { endpoint, sockets } = yield* listen(http.createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
        const { pathname, searchParams } = new URL(request.url ?? "", "http://localhost")
        const { headers, method = "" } = request
        const seen = { method, path: pathname, query: searchParams, headers, body: Buffer.concat(chunks) }
        asked.push(seen)
        respond(seen, response)
      })
    }))
    const storage = yield* S3Storage.make({
      bucket: "weights",
      endpoint,
      credentials: { accessKeyId: "anybody", secretAccessKey: Redacted.make("anything") },
      retry: quick,
      partSize: 5 * MiB,
      verify: false,
      ...options
    })
    return { storage, asked, sockets }
  })

type Headers = http.OutgoingHttpHeaders

const say = (status: number, headers: Headers = {}, body: string | Buffer = ""): Respond => (_, response) =>
  response.writeHead(status, { "content-length": Buffer.byteLength(body), ...headers }).end(body)

const failureOf = <A>(
  effect: Effect.Effect<A, StorageError.StorageError>
): Effect.Effect<StorageError.StorageError, A> => Effect.flip(effect)

interface Listed {
  readonly keys?: ReadonlyArray<string>
  readonly prefixes?: ReadonlyArray<string>
  readonly token?: string
  readonly size?: number
}

const listing = ({ keys = [], prefixes = [], size = 1, token }: Listed) =>
  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
  `<Name>weights</Name><Prefix/><KeyCount>${keys.length}</KeyCount><IsTruncated>${token !== undefined}</IsTruncated>` +
  (token === undefined ? "" : `<NextContinuationToken>${token}</NextContinuationToken>`) +
  keys.map((key) =>
    `<Contents><Key>${key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>` +
    `<Size>${size}</Size></Contents>`
  ).join("") +
  prefixes.map((prefix) => `<CommonPrefixes><Prefix>${prefix}</Prefix></CommonPrefixes>`).join("") +
  "</ListBucketResult>"

const page = "<!DOCTYPE html><html><body>log in</body></html>"

/** Bodies that are not the document of the operation, and whether they may be the beginning of it. */
const garbage: ReadonlyArray<readonly [name: string, respond: (document: string) => Respond, isCut: boolean]> = [
  ["nothing", () => say(200), true],
  ["no content", () => say(204), true],
  ["the first half of it", (document) => say(200, {}, document.slice(0, document.length / 2)), true],
  ["all but its last byte", (document) => say(200, {}, document.slice(0, -1)), true],
  ["an HTML page", () => say(200, { "content-type": "text/html", etag: "\"page\"" }, page), false],
  ["JSON", () => say(200, { "content-type": "application/json" }, "{}"), false],
  ["another document", () => say(200, {}, "<?xml version=\"1.0\"?><ListAllMyBucketsResult/>"), false],
  ["bytes", () => say(200, {}, Buffer.from(bytes(1000))), false],
  ["it, compressed", (document) => say(200, { "content-encoding": "gzip" }, zlib.gzipSync(document)), false],
  ["it, with the status 202", (document) => say(202, {}, document), false],
  ["it, with the status 203", (document) => say(203, {}, document), false]
]

const lists: ReadonlyArray<
  readonly [string, (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>]
> = [
  ["list", (storage) => storage.list()],
  ["listDirectory", (storage) => storage.listDirectory()]
]

describe("a listing", () => {
  for (const [name, respond, isCut] of garbage) {
    it.scopedLive(`fails where the response is ${name}`, () =>
      Effect.gen(function*() {
        const { storage } = yield* on(respond(listing({ keys: ["a", "b", "c"] })))
        for (const [, list] of lists) {
          const failure = yield* failureOf(list(storage))
          expect(failure._tag).toBe(isCut ? "StorageUnavailable" : "UnexpectedStorageError")
          expect(failure.message).toContain("must have")
        }
      }))
  }

  it.scopedLive("is tried again where it was cut off once", () =>
    Effect.gen(function*() {
      let isCut = true
      const document = listing({ keys: ["a", "b", "c"] })
      const { storage } = yield* on((request, response) => {
        say(200, {}, isCut ? document.slice(0, -100) : document)(request, response)
        isCut = false
      })
      expect(yield* storage.list()).toEqual(["a", "b", "c"])
    }))

  /** Pages in the order in which they are sent, the last again and again. */
  const wrong: ReadonlyArray<
    readonly [
      name: string,
      pages: ReadonlyArray<Listed>,
      message: string,
      list: (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>
    ]
  > = [
    ["keys out of order", [{ keys: ["b", "a"] }], "in the order", (storage) => storage.list()],
    ["keys in the order of UTF-16", [{ keys: ["😁", "￼"] }], "in the order", (storage) => storage.list()],
    ["a key twice", [{ keys: ["a", "a"] }], "in the order", (storage) => storage.list()],
    [
      "the same page twice",
      [{ keys: ["a", "b"], token: "1" }, { keys: ["a", "b"] }],
      "repeats",
      (storage) => storage.list()
    ],
    [
      "a page before the last one",
      [{ keys: ["c"], token: "1" }, { keys: ["a", "b"] }],
      "in the order",
      (storage) => storage.list()
    ],
    ["the same page for ever", [{ keys: ["a"], token: "1" }], "repeats", (storage) => storage.list()],
    ["empty pages with one token for ever", [{ token: "1" }], "twice", (storage) => storage.list()],
    [
      "the keys before startAfter",
      [{ keys: ["a", "b"] }],
      "in the order",
      (storage) => Stream.runCollect(storage.entries({ startAfter: "a" }))
    ],
    ["keys without the prefix", [{ keys: ["a", "b"] }], "does not have the prefix", (storage) => storage.list("b")],
    [
      "what is deeper than a folder",
      [{ keys: ["a", "b/c"] }],
      "ignores delimiter",
      (storage) => storage.listDirectory()
    ],
    ["folders out of order", [{ prefixes: ["b/", "a/"] }], "in the order", (storage) => storage.listDirectory()],
    [
      "a folder twice",
      [{ prefixes: ["a/"], token: "1" }, { prefixes: ["a/"] }],
      "repeats",
      (storage) => storage.listDirectory()
    ],
    [
      "folders without the prefix",
      [{ prefixes: ["a/"] }],
      "does not have the prefix",
      (storage) => storage.listDirectory("b/")
    ]
  ]
  for (const [name, pages, message, list] of wrong) {
    it.scopedLive(`fails where the server lists ${name}`, () =>
      Effect.gen(function*() {
        let count = 0
        const { asked, storage } = yield* on((request, response) =>
          say(200, {}, listing(pages[Math.min(count++, pages.length - 1)] ?? {}))(request, response)
        )
        const failure = yield* failureOf(list(storage))
        expect(failure._tag).toBe("UnexpectedStorageError")
        expect(failure.message).toContain(message)
        expect(asked.length).toBeLessThanOrEqual(2)
      }))
  }

  it.scopedLive("fails where empty pages have no end, each with a token of its own", () =>
    Effect.gen(function*() {
      let count = 0
      const { asked, storage } = yield* on((request, response) =>
        say(200, {}, listing({ token: String(count++) }))(request, response)
      )
      const failure = yield* failureOf(storage.list())
      expect(failure.message).toContain("pages without a key in a row")
      expect(asked.length).toBe(1001)
    }))

  it.scopedLive("goes on over some empty pages", () =>
    Effect.gen(function*() {
      const pages = [{ keys: ["a"], token: "1" }, { token: "2" }, { token: "3" }, { keys: ["b"], token: "1" }, {
        keys: ["c"]
      }]
      let count = 0
      const { storage } = yield* on((request, response) =>
        say(200, {}, listing(pages[count++] ?? {}))(request, response)
      )
      expect(yield* storage.list()).toEqual(["a", "b", "c"])
    }))

  for (
    const [what, entry] of [
      ["no size", "<Key>a</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag>"],
      [
        "a size that is none",
        "<Key>a</Key><Size>-1</Size><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag>"
      ],
      ["no time", "<Key>a</Key><Size>1</Size><ETag>e</ETag>"],
      ["no etag", "<Key>a</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified>"]
    ] as const
  ) {
    it.scopedLive(`fails where an object has ${what}`, () =>
      Effect.gen(function*() {
        const { storage } = yield* on(
          say(200, {}, listing({}).replace("</ListB", `<Contents>${entry}</Contents></ListB`))
        )
        expect((yield* failureOf(storage.list())).message).toContain("without its key, size, time or etag")
      }))
  }
})

/** Operations without a document in their response. */
const plain: ReadonlyArray<
  readonly [string, (storage: Storage.Service) => Effect.Effect<unknown, StorageError.StorageError>]
> = [
  ["load", (storage) => storage.load("a")],
  ["load of a range", (storage) => storage.load("a", { range: ByteRange.make(0, 3) })],
  ["stream", (storage) => gather(storage.stream("a"))],
  ["head", (storage) => storage.head("a")],
  ["exists", (storage) => storage.exists("a")],
  ["save", (storage) => storage.save("a", bytes(3))],
  ["save in parts", (storage) => storage.save("a", bytes(11 * MiB))],
  ["copy", (storage) => storage.copy("a", "b")],
  ["move", (storage) => storage.move("a", "b")],
  ["removeAll", (storage) => storage.removeAll(["a", "b"])]
]

describe("a page with the status 200, as that of a login", () => {
  for (const [name, run] of [...plain, ["remove", (storage: Storage.Service) => storage.remove("a")] as const]) {
    it.scopedLive(`fails a ${name}`, () =>
      Effect.gen(function*() {
        const { asked, storage } = yield* on(say(200, { "content-type": "text/html" }, page))
        const failure = yield* failureOf(run(storage))
        expect(failure._tag).toBe("UnexpectedStorageError")
        expect(failure.message).toContain("check endpoint")
        expect(failure.message).not.toContain("log in")
        expect(asked.filter(({ method }) => method === "DELETE").length).toBe(name === "remove" ? 1 : 0)
      }))
  }
})

/** A server with an object `a` of three bytes that carries out nothing; `responses` are those to writes, by what they are for. */
const pretending = (
  responses: Partial<Record<"put" | "copy" | "create" | "part" | "complete" | "removeAll", Respond>>
) =>
  on((request, response) => {
    const { headers, method, path, query } = request
    const done = say(200, { etag: "\"new\"" })
    const respond = method === "HEAD" || method === "GET"
      ? path === "/weights/a" ? say(200, { etag: "\"e\"", "content-length": 3 }) : say(404)
      : method === "DELETE"
      ? say(204)
      : query.has("delete")
      ? responses.removeAll
      : query.has("uploads")
      ? responses.create ??
        say(200, {}, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
      : query.has("partNumber")
      ? responses.part
      : method === "POST"
      ? responses.complete
      : "x-amz-copy-source" in headers
      ? responses.copy
      : responses.put
    return (respond ?? done)(request, response)
  })

const copied =
  "<CopyObjectResult><ETag>\"new\"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></CopyObjectResult>"
const completed = "<CompleteMultipartUploadResult><ETag>\"new-3\"</ETag></CompleteMultipartUploadResult>"

describe("a server that keeps objects as files", () => {
  for (const code of ["ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject"]) {
    it.scopedLive(`fails with UnsupportedOperation where a key is a folder of another one: ${code}`, () =>
      Effect.gen(function*() {
        const refuse = say(409, {}, `<Error><Code>${code}</Code></Error>`)
        const { storage } = yield* pretending({ put: refuse, copy: refuse, create: refuse })
        for (
          const run of [storage.save("b/c", bytes(3)), storage.save("b/c", bytes(6 * MiB)), storage.copy("a", "b/c")]
        ) {
          const failure = yield* failureOf(run)
          expect(failure._tag).toBe("UnsupportedOperation")
          expect(failure.message).toContain("remove or rename one of them first")
        }
      }))
  }
})

describe("a write that the server only seems to have done", () => {
  for (const [name, respond, isCut] of garbage) {
    const tag = isCut ? "StorageUnavailable" : "UnexpectedStorageError"
    it.scopedLive(`fails where the response is ${name}: copy, move, the end of an upload, removeAll`, () =>
      Effect.gen(function*() {
        const { asked, storage } = yield* pretending({
          copy: respond(copied),
          complete: respond(completed),
          removeAll: respond("<DeleteResult></DeleteResult>")
        })
        for (
          const run of [
            storage.copy("a", "b"),
            storage.move("a", "b"),
            storage.save("b", bytes(11 * MiB)),
            storage.removeAll(["a", "c"])
          ]
        ) {
          const failure = yield* failureOf(Effect.asVoid<unknown, StorageError.StorageError, never>(run))
          expect(failure._tag).toBe(tag)
          expect(failure.message).toContain("not known whether the request was carried out")
        }
        expect(asked.filter(({ method, path }) => method === "DELETE" && path === "/weights/a")).toEqual([])
      }))
  }

  it.scopedLive("fails where a save, a part, a copy or the start of an upload has no etag or id", () =>
    Effect.gen(function*() {
      const cases = [
        [{ put: say(200) }, (storage: Storage.Service) => storage.save("b", bytes(3))],
        [{ put: say(200, { etag: "\"\"" }) }, (storage: Storage.Service) => storage.save("b", bytes(3))],
        [{ part: say(200) }, (storage: Storage.Service) => storage.save("b", bytes(11 * MiB))],
        [{ copy: say(200, {}, "<CopyObjectResult/>") }, (storage: Storage.Service) => storage.copy("a", "b")],
        [
          { create: say(200, {}, "<InitiateMultipartUploadResult></InitiateMultipartUploadResult>") },
          (storage: Storage.Service) => storage.save("b", bytes(11 * MiB))
        ],
        [{ create: say(200) }, (storage: Storage.Service) => storage.save("b", bytes(11 * MiB))]
      ] as const
      for (const [responses, run] of cases) {
        const { storage } = yield* pretending(responses)
        expect((yield* failureOf(run(storage)))._tag).toBe("UnexpectedStorageError")
      }
    }))

  it.scopedLive("keeps the source of a move unless its copy is there", () =>
    Effect.gen(function*() {
      const { asked, storage } = yield* pretending({ copy: say(200, {}, copied) })
      const failure = yield* failureOf(storage.move("a", "b"))
      expect(failure._tag).toBe("UnexpectedStorageError")
      expect(failure.message).toContain("the source was kept")
      expect(asked.filter(({ method }) => method === "DELETE")).toEqual([])
    }))

  it.scopedLive("keeps the source of a move that must not overwrite unless its copy is there", () =>
    Effect.gen(function*() {
      const { asked, storage } = yield* on(({ headers, method, path, ...request }, response) => {
        const respond = method === "DELETE"
          ? say(204)
          : method === "PUT"
          ? headers["if-match"] === undefined ? say(200, { etag: "\"new\"" }) : say(412)
          : path === "/weights/a"
          ? say(200, { etag: "\"e\"" }, "abc")
          : say(404)
        return respond({ ...request, headers, method, path }, response)
      })
      expect((yield* failureOf(storage.move("a", "b", { ifNoneMatch: "*" })))._tag).toBe("UnexpectedStorageError")
      expect(asked.filter(({ method }) => method === "DELETE")).toEqual([])
    }))
})

/** A server with the object `a`, without its length wherever that may be left out; the first request still finds `before`. */
const unsized = (
  current: Uint8Array,
  options: { head?: boolean; size?: boolean; ranges?: boolean; before?: Uint8Array } = {}
) => {
  const { head = false, ranges = true, size = true } = options
  let { before } = options
  return on(({ headers, method }, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? []
    const content = before ?? current
    response.setHeader("etag", before === undefined ? "\"e\"" : "\"before\"")
    before = undefined
    if (method === "HEAD") {
      if (head) response.setHeader("content-length", content.length)
      else response.setHeader("transfer-encoding", "chunked")
      return response.writeHead(200).end()
    }
    if (first === undefined || !ranges) {
      response.writeHead(200, { "transfer-encoding": "chunked" })
      return response.end(content)
    }
    if (Number(first) >= content.length) return response.writeHead(416).end()
    const end = last === undefined || last === "" ? content.length : Math.min(Number(last) + 1, content.length)
    const total = size ? String(content.length) : "*"
    response.writeHead(206, {
      "content-range": `bytes ${first}-${end - 1}/${total}`,
      "transfer-encoding": "chunked"
    })
    return response.end(content.subarray(Number(first), end))
  })
}

describe("an object whose size a response does not have", () => {
  const content = bytes(12 * MiB)

  for (
    const [name, options] of [
      ["no HEAD has it, but ranges have", {}],
      ["a HEAD has it, and ranges have not", { head: true, size: false }],
      ["a HEAD has it, and the server knows no ranges", { head: true, ranges: false }]
    ] as const
  ) {
    it.scopedLive(`is read where ${name}`, () =>
      Effect.gen(function*() {
        const { storage } = yield* unsized(content, options)
        expect((yield* storage.head("a")).size).toBe(content.length)
        expect(print(yield* storage.load("a"))).toBe(print(content))
        expect(print(yield* gather(storage.stream("a")))).toBe(print(content))
        if ("ranges" in options) return
        expect(yield* storage.load("a", { range: ByteRange.make(5, 9) })).toEqual(content.slice(5, 9))
        expect(print(yield* storage.load("a", { range: ByteRange.last(11 * MiB) }))).toBe(print(content.slice(MiB)))
        const [first] = yield* storage.loadRanges("a", [ByteRange.make(0, 4)])
        expect(first).toEqual(content.slice(0, 4))
        expect((yield* failureOf(storage.load("a", { range: ByteRange.from(content.length) })))._tag).toBe(
          "InvalidRange"
        )
      }))
  }

  it.scopedLive("may be empty", () =>
    Effect.gen(function*() {
      const { storage } = yield* unsized(new Uint8Array(0))
      expect((yield* storage.head("a")).size).toBe(0)
      expect(yield* storage.load("a")).toEqual(new Uint8Array(0))
    }))

  it.scopedLive("is that of the object with the etag, also where the object is overwritten between two requests", () =>
    Effect.gen(function*() {
      const before = bytes(3)
      const now = bytes(5)
      for (const size of [now.length, before.length]) {
        const { storage } = yield* unsized(now.slice(0, size), { before })
        expect(yield* storage.head("a")).toMatchObject({ etag: "e", size })
      }
      for (
        const read of [
          (storage: Storage.Service) => storage.load("a"),
          (storage: Storage.Service) => gather(storage.stream("a"))
        ]
      ) {
        const { storage } = yield* unsized(now, { head: true, ranges: false, before })
        expect(yield* read(storage)).toEqual(now)
      }
    }))

  it.scopedLive("is not taken for that of one of its parts, by which a checksum of parts is checked", () =>
    Effect.gen(function*() {
      const { asked, storage } = yield* on(({ headers, method }, response) => {
        const checksum = { "x-amz-checksum-sha256": `${Buffer.alloc(32).toString("base64")}-2` }
        response.writeHead(headers.range === undefined ? 200 : 206, {
          etag: "\"e-2\"",
          "transfer-encoding": "chunked",
          ...(headers["x-amz-checksum-mode"] !== undefined && checksum),
          ...(headers.range !== undefined && { "content-range": "bytes 0-0/3" })
        })
        return response.end(method === "HEAD" ? "" : "a")
      }, { checksum: "SHA256" })
      expect((yield* failureOf(storage.load("a"))).message).toContain("no response has the size of the object")
      expect(asked.at(-1)).toMatchObject({ method: "HEAD" })
    }))

  it.scopedLive("is not asked for where the response is not that of an object", () =>
    Effect.gen(function*() {
      const { asked, storage } = yield* on(({ method }, response) =>
        method === "HEAD"
          ? response.writeHead(200, { etag: "\"e\"", "content-length": 3 }).end()
          : response.writeHead(200, { "transfer-encoding": "chunked" }).end(page)
      )
      for (const read of [storage.load("a"), gather(storage.stream("a"))]) {
        expect((yield* failureOf(read)).message).toContain("with an ETag (got HTTP 200 and no ETag); check endpoint")
      }
      expect(asked.map(({ method }) => method)).toEqual(["GET", "GET"])
    }))

  it.scopedLive("fails in words where nothing has it", () =>
    Effect.gen(function*() {
      const { sockets, storage } = yield* unsized(content, { size: false })
      for (
        const run of [
          storage.head("a"),
          storage.load("a"),
          gather(storage.stream("a")),
          storage.loadRanges("a", [ByteRange.make(0, 4)]),
          storage.copy("a", "b")
        ]
      ) {
        const failure = yield* failureOf(Effect.asVoid<unknown, StorageError.StorageError, never>(run))
        expect(failure._tag).toBe("UnexpectedStorageError")
        expect(failure.message).toContain("no response has the size of the object")
      }
      yield* eventually(() => expect(sockets.size).toBeLessThanOrEqual(8))
    }))
})

describe("a response to a load", () => {
  it.scopedLive("is ObjectNotModified on a server that ignores If-None-Match, PreconditionFailed where it ignores If-Match", () =>
    Effect.gen(function*() {
      const { storage } = yield* on(say(200, { etag: "\"e\"" }, "abc"))
      expect((yield* failureOf(storage.load("a", { ifNoneMatch: "e" })))._tag).toBe("ObjectNotModified")
      expect((yield* failureOf(storage.load("a", { ifMatch: "f" })))._tag).toBe("PreconditionFailed")
      expect(yield* storage.load("a", { ifMatch: "e", ifNoneMatch: "f" })).toEqual(new Uint8Array(Buffer.from("abc")))
    }))

  it.scopedLive("fails where the server ignores the range", () =>
    Effect.gen(function*() {
      const { storage } = yield* on(say(200, { etag: "\"e\"" }, "abcdef"))
      const failure = yield* failureOf(storage.load("a", { range: ByteRange.make(1, 3) }))
      expect(failure.message).toContain("other bytes than requested")
    }))

  for (
    const [what, respond] of [
      ["206 with bytes 0--1/0, as MinIO has it", say(206, { etag: "\"e\"", "content-range": "bytes 0--1/0" })],
      ["200, as versitygw and moto have it", say(200, { etag: "\"e\"" })],
      ["416, as S3 and Ceph have it", say(416, { etag: "\"e\"" })]
    ] as const
  ) {
    it.scopedLive(`is empty for the last bytes of an empty object: ${what}`, () =>
      Effect.gen(function*() {
        const { storage } = yield* on((request, response) =>
          (request.method === "HEAD" ? say(200, { etag: "\"e\"" }) : respond)(request, response)
        )
        const range = ByteRange.last(5)
        expect(yield* storage.load("a", { range })).toEqual(new Uint8Array(0))
        expect(yield* gather(storage.stream("a", { range }))).toEqual(new Uint8Array(0))
        expect(yield* storage.loadRanges("a", [range])).toEqual([new Uint8Array(0)])
      }))
  }

  const content = Buffer.alloc(1000, "x")
  const compressed = zlib.gzipSync(content)
  const stored = (size: number) => say(200, {}, listing({ keys: ["a"], size }))

  /** A server whose object `a` comes encoded. */
  const encoded = (list: Respond, { head = compressed.length } = {}) =>
    on((request, response) => {
      const headers = { etag: "\"e\"", "content-encoding": "gzip" }
      const respond = request.query.has("list-type")
        ? list
        : request.method === "HEAD"
        ? say(200, { ...headers, "content-length": head })
        : say(200, headers, compressed)
      return respond(request, response)
    })

  it.scopedLive("fails where a proxy has compressed it", () =>
    Effect.gen(function*() {
      for (const list of [stored(content.length), say(200, { "content-encoding": "gzip" }, compressed)]) {
        const { storage } = yield* encoded(list)
        for (const run of [storage.load("a"), gather(storage.stream("a")), storage.head("a")]) {
          const failure = yield* failureOf(Effect.asVoid<unknown, StorageError.StorageError, never>(run))
          expect(failure._tag).toBe("UnexpectedStorageError")
        }
      }
    }))

  it.scopedLive("has the bytes as they are stored where the encoding is that of the object, which is looked at once", () =>
    Effect.gen(function*() {
      const { asked, storage } = yield* encoded(stored(compressed.length))
      for (const _ of [1, 2]) {
        expect(yield* storage.load("a")).toEqual(new Uint8Array(compressed))
        expect((yield* storage.head("a")).attributes).toEqual({ contentEncoding: "gzip" })
      }
      expect(asked.filter(({ query }) => query.has("list-type")).length).toBe(1)
    }))

  it.scopedLive("is believed where the credentials do not allow to list", () =>
    Effect.gen(function*() {
      const { storage } = yield* encoded(say(403, {}, "<Error><Code>AccessDenied</Code></Error>"))
      expect(yield* storage.load("a")).toEqual(new Uint8Array(compressed))
    }))
})
