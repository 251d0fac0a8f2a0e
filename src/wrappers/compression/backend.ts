/**
 * The backend of a storage that compresses. It is loaded when one is made.
 */
import * as Effect from "effect/Effect"
import { following } from "../../internal/capabilities.js"
import * as StorageBackend from "../../StorageBackend.js"
import * as Deflate from "../../weights/safetensors/compressed/deflate.js"
import { KnownForms } from "./knownForms.js"
import { Lister } from "./lister.js"
import { Reader, retryingChanges } from "./reader.js"
import { Saver, type Settings } from "./saver.js"

/** The same backend, which stores objects in less space. */
export const make = (
  inner: StorageBackend.StorageBackend,
  settings: Settings
): Effect.Effect<StorageBackend.StorageBackend> =>
  Effect.map(Deflate.load, (deflate) => makeBackend(inner, deflate, settings))

const makeBackend = (
  inner: StorageBackend.StorageBackend,
  deflate: Deflate.Deflate,
  settings: Settings
): StorageBackend.StorageBackend => {
  const known = new KnownForms()
  const reader = new Reader(inner, deflate, known)
  const saver = new Saver(inner, deflate, known, settings)
  const lister = new Lister(inner, reader)
  const moved = (operation: "copy" | "move"): StorageBackend.StorageBackend["copy"] => (from, to, options) =>
    Effect.flatMap(inner[operation](from, to, options), (info) => reader.describe(info))
  const derived = StorageBackend.make({
    name: `Compression(${inner.name})`,
    // The same keys have other bytes here.
    location: `Compression(${inner.location ?? inner.name})`,
    capabilities: following(() => ({ ...inner.capabilities, presign: false })),
    open: reader.open,
    save: saver.save,
    entries: lister.entries,
    remove: inner.remove
  }, {
    load: reader.load,
    head: reader.head,
    keys: inner.keys,
    listDirectory: lister.listDirectory,
    removeAll: inner.removeAll,
    copy: moved("copy"),
    move: moved("move")
  })
  return {
    ...derived,
    loadRanges: (key, ranges, options) =>
      retryingChanges(
        options,
        Effect.flatMap(reader.formOf(key, options), ({ etag, form }) =>
          (form.kind === "plain" ? inner : derived).loadRanges(key, ranges, { ...options, ifMatch: etag }))
      )
  }
}
