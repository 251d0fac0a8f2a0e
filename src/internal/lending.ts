/**
 * Streams that can read into one array over and over. Every stream gives each chunk as an array of its own, which is its
 * taker's to keep; V8 collects the whole heap for every few dozen MiB of those once it has begun to. Whoever knows when it
 * is done with a chunk may ask for the same bytes in one array instead.
 *
 * What is made of such a stream (decrypted, counted, told elsewhere) is another, and lends nothing unless `map` made it.
 */
import type * as Stream from "effect/Stream"

type Bytes<E, R> = Stream.Stream<Uint8Array, E, R>

/** Makes the stream; `isFree` tells, when a chunk is wanted, whether whoever got the one before is done with it. */
type Make<E, R> = (isFree: () => boolean) => Bytes<E, R>

const lenders = new WeakMap<object, unknown>()

/** A stream that lends to those who ask for it, and gives arrays of their own to all others. */
export const make = <E, R>(stream: Make<E, R>): Bytes<E, R> => {
  const own = stream(() => false)
  lenders.set(own, stream)
  return own
}

/** What `f` makes of a stream, also of one that lends. `f` must not keep a chunk. */
export const map = <E, R, E2, R2>(stream: Bytes<E, R>, f: (stream: Bytes<E, R>) => Bytes<E2, R2>): Bytes<E2, R2> => {
  const lender = lenderOf(stream)
  return lender === undefined ? f(stream) : make((isFree) => f(lender(isFree)))
}

/** The same bytes; where the stream lends, in an array that is written again once it is free. */
export const borrow = <E, R>(stream: Bytes<E, R>, isFree: () => boolean): Bytes<E, R> =>
  lenderOf(stream)?.(isFree) ?? stream

// `make` put it there under a stream of this very type.
const lenderOf = <E, R>(stream: Bytes<E, R>) => lenders.get(stream) as Make<E, R> | undefined
