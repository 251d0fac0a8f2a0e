/**
 * What reads the tensors of compressed files. It is loaded with the first of them.
 */
import * as Effect from "effect/Effect"
import type { ResolvedRange } from "../../../ByteRange.js"
import type { Header, TensorInfo } from "../header.js"
import * as ByteReader from "./byteReader.js"
import * as Deflate from "./deflate.js"
import * as Description from "./description.js"
import * as Reader from "./reader.js"

export const make = Effect.map(Deflate.load, (deflate) => ({
  makeReader: ByteReader.make,
  storedTensor: Reader.storedTensor,
  load: <E>(tensor: Reader.StoredTensor<E>, range: ResolvedRange) => Reader.load(deflate, tensor, range),
  stream: <E>(tensors: ReadonlyArray<TensorInfo>, read: ByteReader.Read<E>) => Reader.stream(deflate, tensors, read),
  resolve: (key: string, header: Header) => Description.resolve(deflate, key, header)
}))

export type Decoder = Effect.Effect.Success<typeof make>
