/**
 * `stat`: what a storage knows of an object.
 */
import * as Effect from "effect/Effect"
import * as Output from "./output.js"
import * as Places from "./places.js"

export const stat = (input: { readonly place: string }) =>
  Effect.gen(function*() {
    const place = yield* Places.open(input.place, "read")
    const info = yield* Places.requireObject(place)
    const { metadata = {}, ...attributes } = info.attributes ?? {}
    const fields = {
      key: info.key,
      size: `${info.size} (${Output.formatBytes(info.size)})`,
      modified: info.lastModified.toISOString(),
      etag: info.etag,
      checksum: info.checksum && `${info.checksum.algorithm} ${info.checksum.value}`,
      ...attributes,
      ...Object.fromEntries(Object.entries(metadata).map(([name, value]) => [`metadata.${name}`, value]))
    }
    const known = Object.entries(fields).filter(([, value]) => value !== undefined)
    const width = Math.max(...known.map(([name]) => name.length))
    yield* Output.result(info, known.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n"))
  })
