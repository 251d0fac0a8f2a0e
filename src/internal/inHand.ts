/**
 * Streams of bytes that are in memory already. To run a stream costs several times what the load of a small file does, so
 * whoever wants all of it looks here first. A stream that is made of such a one is another, and is run.
 */
import * as Stream from "effect/Stream"

const known = new WeakMap<Stream.Stream<Uint8Array, unknown, unknown>, Uint8Array>()

/** The bytes as a stream of one chunk. Whoever takes it gets the array itself. */
export const fromBytes = (bytes: Uint8Array): Stream.Stream<Uint8Array> => {
  const stream = Stream.fromIterable(bytes.byteLength === 0 ? [] : [bytes])
  known.set(stream, bytes)
  return stream
}

/** All that the stream would yield, where that is known. */
export const bytesOf = <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Uint8Array | undefined => known.get(stream)
