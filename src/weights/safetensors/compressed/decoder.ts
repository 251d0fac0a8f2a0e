/**
 * What reads the tensors of compressed files. It is loaded with the first of them.
 */
import * as Effect from "effect/Effect"
import type { SafetensorsError } from "../errors.js"
import type { Header } from "../header.js"
import * as ByteReader from "./byteReader.js"
import * as Deflate from "./deflate.js"
import * as Description from "./description.js"
import * as Reader from "./reader.js"

export interface Decoder extends Pick<typeof Reader, "storedTensor"> {
  readonly deflate: Deflate.Deflate
  readonly makeReader: typeof ByteReader.make
  readonly load: typeof Reader.load
  readonly stream: typeof Reader.stream
  /** The header of the original file. */
  readonly resolve: (key: string, header: Header) => Effect.Effect<Description.Described, SafetensorsError>
}

export const make: Effect.Effect<Decoder> = Effect.map(Deflate.load, (deflate) => ({
  deflate,
  makeReader: ByteReader.make,
  load: Reader.load,
  stream: Reader.stream,
  storedTensor: Reader.storedTensor,
  resolve: (key, header) => Description.resolve(deflate, key, header)
}))
