/**
 * An opened object that outlives what it reads from: if its stream breaks, the rest is opened again, on the same storage or
 * another.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ByteRange from "../ByteRange.js"
import type { OpenedObject } from "../StorageBackend.js"
import type { LoadError } from "../StorageError.js"

/** How a broken stream resumes. */
export interface Resumption {
  /** Whether the bytes before this failure can be used. */
  readonly canResume: (error: LoadError) => boolean
  /** Opens the rest of the range, or fails for good. */
  readonly openRest: (
    rest: ByteRange.ByteRange,
    error: LoadError,
    broken: OpenedObject
  ) => Effect.Effect<OpenedObject, LoadError>
}

/** Every byte of the range once, also where they are read into one array. Where they are in memory, nothing can break. */
export const resuming = (first: OpenedObject, { canResume, openRest }: Resumption): OpenedObject => {
  const { bytes, info, range, reuse, stream } = first
  if (bytes !== undefined) return first
  let current = first
  let before = 0
  const position = () => before + current.position()

  const resume = (
    broken: OpenedObject["stream"],
    streamOf: (opened: OpenedObject) => OpenedObject["stream"]
  ): OpenedObject["stream"] =>
    Stream.catchAll(broken, (error) => {
      if (!canResume(error)) return Stream.fail(error)
      const at = range.start + position()
      // Every byte has arrived: only the end broke.
      if (at >= range.endExclusive) return Stream.empty
      return Stream.unwrap(Effect.map(openRest(ByteRange.make(at, range.endExclusive), error, current), (rest) => {
        before = position()
        current = rest
        return resume(streamOf(rest), streamOf)
      }))
    })

  return {
    info,
    range,
    stream: resume(stream, ({ stream }) => stream),
    reuse: reuse && ((isFree) => resume(reuse(isFree), (opened) => opened.reuse?.(isFree) ?? opened.stream)),
    position
  }
}
