/**
 * What a storage loads can be given to the APIs of browsers, whose types accept no array over a `SharedArrayBuffer`. It is
 * type-checked with the `DOM` library, and not run.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ByteRange from "surfing-weights/ByteRange"
import * as Storage from "surfing-weights/Storage"
import type * as StorageBackend from "surfing-weights/StorageBackend"

const accept = (bytes: Uint8Array<ArrayBuffer>) =>
  Effect.promise(async () => {
    const body: BodyInit = bytes
    const source: BufferSource = bytes
    const parts: Array<BlobPart> = [bytes]
    await crypto.subtle.digest("SHA-256", bytes)
    await WebAssembly.compile(bytes)
    await fetch("https://example.com/", { method: "PUT", body: bytes })
    new WebSocket("wss://example.com/").send(bytes)
    structuredClone(bytes, { transfer: [bytes.buffer] })
    return [
      body,
      source,
      new Blob(parts),
      new Response(bytes),
      new WebAssembly.Module(bytes),
      new File([bytes], "name")
    ]
  })

const acceptOpened = ({ bytes, reuse, stream }: StorageBackend.OpenedObject) =>
  Effect.gen(function*() {
    if (bytes !== undefined) yield* accept(bytes)
    yield* Stream.runForEach(stream, accept)
    if (reuse !== undefined) yield* Stream.runForEach(reuse(() => true), accept)
  })

/** Every way to load bytes, from the service and from the backend. */
export const program = Effect.gen(function*() {
  const storage = yield* Storage.Storage
  yield* accept(yield* storage.load("k"))
  for (const bytes of yield* storage.loadRanges("k", [ByteRange.last(8)])) yield* accept(bytes)
  yield* Stream.runForEach(storage.stream("k"), accept)
  yield* acceptOpened(yield* storage.open("k"))
  yield* accept(yield* Storage.load("k"))
  for (const bytes of yield* Storage.loadRanges("k", [ByteRange.last(8)])) yield* accept(bytes)
  yield* Stream.runForEach(Storage.stream("k"), accept)
  yield* acceptOpened(yield* Storage.open("k"))
  yield* accept(yield* storage.backend.load("k", {}))
  yield* acceptOpened(yield* storage.backend.open("k", {}))
  // A save accepts every array, also one over shared memory.
  yield* storage.save("k", new Uint8Array(new SharedArrayBuffer(8)))
})
