/**
 * A storage that reports the bytes which pass through it.
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { ResumableData, SaveData, StorageBackend } from "../StorageBackend.js"
import { intercept, mapStream } from "../StorageBackend.js"

/**
 * The progress of one operation on one object.
 *
 * @since 0.1.0
 * @category models
 */
export interface Progress {
  /** `load` stands for every way to read an object, `save` for every way to write one. */
  readonly operation: "load" | "save"
  readonly key: string
  /** The bytes since the previous report of this operation. */
  readonly bytes: number
  /**
   * The bytes of this operation so far. Where the save of a broken-off copy is resumed (see `StorageMirror`), the first report is
   * of no bytes, and this is the position.
   */
  readonly transferred: number
  /** The bytes of the whole operation, where they are known. */
  readonly total: number | undefined
}

/** What is called with each report. */
export type Report = (progress: Progress) => Effect.Effect<void>

/** The same backend, under the same name: reports change nothing of what it does. */
export const reporting = (inner: StorageBackend, report: Report): StorageBackend => ({
  ...intercept(inner, { name: inner.name }),
  open: (key, options) =>
    Effect.flatMap(inner.open(key, options), (opened) => {
      const total = opened.range.endExclusive - opened.range.start
      return opened.bytes !== undefined
        ? Effect.as(report({ operation: "load", key, bytes: total, transferred: total, total }), opened)
        : Effect.succeed(mapStream(opened, (stream) => tapped(stream, "load", key, total, report)))
    }),
  load: (key, options) =>
    Effect.tap(inner.load(key, options), ({ byteLength }) => whole("load", key, byteLength, report)),
  loadRanges: (key, ranges, options) =>
    Effect.tap(
      inner.loadRanges(key, ranges, options),
      (loaded) => whole("load", key, loaded.reduce((sum, { byteLength }) => sum + byteLength, 0), report)
    ),
  save: (key, data, options) => {
    if (data instanceof Uint8Array) {
      return Effect.tap(inner.save(key, data, options), () => whole("save", key, data.byteLength, report))
    }
    const source: SaveData = tapped(data, "save", key, options.size, report)
    return inner.save(key, source, options)
  },
  saveResumable: inner.saveResumable && resumable(inner.saveResumable, report)
})

const resumable = (
  saveResumable: NonNullable<StorageBackend["saveResumable"]>,
  report: Report
): StorageBackend["saveResumable"] =>
(key, data, options) => {
  const rest: ResumableData["rest"] = (position) => {
    const { size: total } = data
    const bytes = tapped(data.rest(position), "save", key, total, report, position)
    return position === 0
      ? bytes
      : Stream.concat(
        Stream.execute(report({ operation: "save", key, bytes: 0, transferred: position, total })),
        bytes
      )
  }
  return saveResumable(key, { ...data, rest }, options)
}

const whole = (operation: Progress["operation"], key: string, bytes: number, report: Report) =>
  report({ operation, key, bytes, transferred: bytes, total: bytes })

const tapped = <B extends Uint8Array, E>(
  stream: Stream.Stream<B, E>,
  operation: Progress["operation"],
  key: string,
  total: number | undefined,
  report: Report,
  start = 0
): Stream.Stream<B, E> =>
  Stream.suspend(() => {
    let transferred = start
    return Stream.mapChunksEffect(stream, (chunk) => {
      const bytes = Chunk.reduce(chunk, 0, (sum, { byteLength }) => sum + byteLength)
      if (bytes === 0) return Effect.succeed(chunk)
      transferred += bytes
      return Effect.as(report({ operation, key, bytes, transferred, total }), chunk)
    })
  })
