/**
 * A page that reads what Node has compressed and encrypted, and the other way round: a browser has other implementations of
 * DEFLATE and AES.
 */
import { FetchHttpClient } from "@effect/platform"
import { Effect, Encoding, Layer, Redacted, Stream } from "effect"
import * as ByteRange from "surfing-weights/ByteRange"
import * as HttpStorage from "surfing-weights/HttpStorage"
import * as Safetensors from "surfing-weights/Safetensors"
import * as Storage from "surfing-weights/Storage"
import * as StorageCompression from "surfing-weights/StorageCompression"
import * as StorageEncryption from "surfing-weights/StorageEncryption"
import { offer } from "./tasks.js"

const hashOf = (bytes: Uint8Array) =>
  Effect.map(
    Effect.promise(() => crypto.subtle.digest("SHA-256", new Uint8Array(bytes))),
    (digest) => Encoding.encodeHex(new Uint8Array(digest))
  )

const http = (server: string) => Layer.provide(HttpStorage.layer({ url: server }), FetchHttpClient.layer)

/** Each tensor of a file: its hash, and that of some rows. */
const tensors = ({ key, server }: { readonly server: string; readonly key: string }) =>
  Effect.gen(function*() {
    const file = yield* Safetensors.open(key)
    return yield* Effect.forEach(file.tensors.keys(), (name) =>
      Effect.gen(function*() {
        const whole = yield* hashOf((yield* file.load(name)).bytes)
        return [name, whole, yield* hashOf((yield* file.loadSlice(name, 3, 5)).bytes)]
      }))
  }).pipe(Effect.provide(http(server)))

/** Reads and saves through a wrapper. */
const through = (wrapper: Layer.Layer<Storage.Storage, unknown, Storage.Storage>, server: string, key: string) =>
  Effect.gen(function*() {
    const loaded = yield* Storage.load(key)
    const range = yield* Storage.load(key, { range: ByteRange.make(100_000, 100_010) })
    const pieces = yield* Stream.runCollect(Storage.stream(key))
    const streamed = yield* hashOf(new Uint8Array([...pieces].flatMap((piece) => [...piece])))
    yield* Storage.save(`${key}-from-the-browser`, loaded)
    return { loaded: yield* hashOf(loaded), range: [...range], streamed }
  }).pipe(Effect.provide(Layer.provide(wrapper, http(server))))

const compression = ({ key, server }: { readonly server: string; readonly key: string }) =>
  through(StorageCompression.layer(), server, key)

const encryption = ({ key, secret, server }: {
  readonly server: string
  readonly key: string
  readonly secret: ReadonlyArray<number>
}) =>
  through(
    StorageEncryption.layer({ keys: [{ id: "test", secret: Redacted.make(Uint8Array.from(secret)) }] }),
    server,
    key
  )

offer({ tensors, compression, encryption })
