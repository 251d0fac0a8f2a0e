/**
 * The schemes of storage URLs. A backend is loaded when its scheme is asked for. Bundlers for browsers take
 * `schemes.browser.ts` instead, by the field `browser` of `package.json`.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { invalid, type Scheme } from "./place.js"
import { hf, http, memory } from "./portableSchemes.js"
import * as Query from "./query.js"

const fileQuery = Schema.Struct({
  create: Query.boolean,
  durability: Query.word("full", "relaxed"),
  symlinks: Query.word("refuse", "follow")
})

const file: Scheme = ({ authority, path, query }) =>
  Effect.gen(function*() {
    if (authority !== "" && authority !== "localhost") {
      return yield* invalid("url", `must not name a host (got ${JSON.stringify(authority)}); write file:///directory`)
    }
    const options = yield* Query.options(fileQuery, query)
    const { make } = yield* Effect.promise(() => import("../backends/FileSystemStorage.js"))
    return yield* make({ directory: path, ...options })
  })

const s3Query = Schema.Struct({
  region: Query.text,
  endpoint: Query.text,
  forcePathStyle: Query.boolean,
  profile: Query.text,
  partSize: Query.size,
  concurrency: Query.number,
  streamConcurrency: Query.number,
  uniformParts: Query.boolean,
  idleTimeout: Query.duration,
  verify: Query.boolean,
  checksum: Query.word("CRC32C", "SHA256", "CRC64NVME"),
  storageClass: Query.text,
  contentType: Query.text,
  cacheControl: Query.text
})

const s3: Scheme = ({ authority, path, query }) =>
  Effect.gen(function*() {
    const options = yield* Query.options(s3Query, query)
    const { make } = yield* Effect.promise(() => import("../backends/S3Storage.js"))
    return yield* make({ bucket: authority, prefix: path.replace(/^\/+|\/+$/g, "") || undefined, ...options })
  })

export const schemes = { file, s3, http, https: http, hf, memory } as const
