/**
 * Encrypts weights before they leave the machine: a cache on disk and a bucket have nothing but encrypted bytes. Then rotates the
 * master key, and keeps one in a key management service. Two memory storages take the place of the disk and the bucket, and a map that
 * of the service.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Redacted, Stream } from "effect"
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { ByteRange, MemoryStorage, Storage, StorageCache, StorageCompression, StorageEncryption } from "surfing-weights"

const MiB = 1024 * 1024

/** What is used of the client `KMS` of `@aws-sdk/client-kms`. */
interface Kms {
  readonly encrypt: (input: KmsInput & { readonly Plaintext: Uint8Array }) => Promise<{
    readonly CiphertextBlob?: Uint8Array
  }>
  readonly decrypt: (input: KmsInput & { readonly CiphertextBlob: Uint8Array }) => Promise<{
    readonly Plaintext?: Uint8Array
  }>
}

interface KmsInput {
  readonly KeyId: string
  readonly EncryptionContext: Record<string, string>
}

// #region kms
/** A master key that never leaves AWS KMS. */
const inKms = (kms: Kms, KeyId: string): StorageEncryption.WrappingKey => ({
  id: "kms",
  wrap: (dataKey, object) =>
    Effect.tryPromise(() => kms.encrypt({ KeyId, Plaintext: Redacted.value(dataKey), EncryptionContext: { object } }))
      .pipe(Effect.flatMap(({ CiphertextBlob }) => Effect.fromNullable(CiphertextBlob))),
  unwrap: (CiphertextBlob, object) =>
    Effect.tryPromise(() => kms.decrypt({ KeyId, CiphertextBlob, EncryptionContext: { object } })).pipe(
      Effect.flatMap(({ Plaintext }) => Effect.fromNullable(Plaintext)),
      Effect.map(Redacted.make)
    )
})
// #endregion

/** A service that keeps what it is to encrypt, and counts its calls. */
const serviceInMemory = () => {
  const kept = new Map<string, { readonly context: string | undefined; readonly plain: Uint8Array }>()
  const calls = { encrypt: 0, decrypt: 0 }
  const kms: Kms = {
    encrypt: ({ EncryptionContext, Plaintext }) => {
      calls.encrypt++
      const id = randomBytes(16)
      kept.set(id.toString("hex"), { context: EncryptionContext["object"], plain: new Uint8Array(Plaintext) })
      return Promise.resolve({ CiphertextBlob: id })
    },
    decrypt: ({ CiphertextBlob, EncryptionContext }) => {
      calls.decrypt++
      const found = kept.get(Buffer.from(CiphertextBlob).toString("hex"))
      return found?.context === EncryptionContext["object"] && found !== undefined
        ? Promise.resolve({ Plaintext: found.plain })
        : Promise.reject(new Error("InvalidCiphertextException"))
    }
  }
  return { calls, kms }
}

const main = Effect.gen(function*() {
  const disk = yield* MemoryStorage.make()
  const bucket = yield* MemoryStorage.make()
  const Disk = Layer.succeed(Storage.Storage, disk)
  const Bucket = Layer.succeed(Storage.Storage, bucket)
  // What `openssl rand -base64 32` prints.
  const secret = Redacted.make(randomBytes(32).toString("base64"))
  const newSecret = Redacted.make(randomBytes(32).toString("base64"))

  // #region layer
  const Cached = StorageCache.layer({ capacity: 64 * MiB, tier: { layer: Disk, capacity: 1024 * MiB } }).pipe(
    Layer.provide(Bucket)
  )
  // Outside the cache, whose second tier then has encrypted bytes, too.
  const Weights = StorageEncryption.layer({ keys: [{ id: "2026-11", secret }] }).pipe(Layer.provide(Cached))
  // #endregion

  const weights = new Uint8Array(randomBytes(MiB))
  yield* Effect.gen(function*() {
    yield* Storage.save("bert/layer_0.bin", weights)
    deepStrictEqual(yield* Storage.load("bert/layer_0.bin"), weights)
    const { size } = yield* Storage.head("bert/layer_0.bin")
    const row = yield* Storage.load("bert/layer_0.bin", { range: ByteRange.make(500_000, 500_100) })
    deepStrictEqual(row, weights.slice(500_000, 500_100))
    yield* Console.log(`saved and loaded ${size} bytes`)
  }).pipe(Effect.provide(Weights))
  for (const store of [disk, bucket]) {
    for (const key of yield* store.list()) {
      ok(!Buffer.from(yield* store.load(key)).includes(Buffer.from(weights.subarray(0, 32))))
    }
  }
  yield* Console.log("the disk and the bucket have encrypted bytes only")

  // #region both
  // Outside the encryption, as what is encrypted cannot be compressed any more.
  const Both = StorageCompression.layer().pipe(Layer.provide(Weights))
  // #endregion
  const tokenizer = new TextEncoder().encode(JSON.stringify(Array.from({ length: 9000 }, (_, i) => `token ${i}`)))
  yield* Effect.gen(function*() {
    yield* Storage.save("bert/tokenizer.json", tokenizer)
    deepStrictEqual(yield* Storage.load("bert/tokenizer.json"), tokenizer)
  }).pipe(Effect.provide(Both))
  const { size } = yield* bucket.head("bert/tokenizer.json")
  ok(size < tokenizer.byteLength / 2)
  yield* Console.log(`a tokenizer of ${tokenizer.byteLength} bytes takes ${size}, encrypted`)

  // #region rotate
  // New objects get the first key; the others are for older objects.
  const rotate = Effect.gen(function*() {
    const { rewrap } = yield* StorageEncryption.StorageEncryption
    yield* Stream.runForEach(Storage.entries(), ({ key }) => rewrap(key))
  }).pipe(Effect.provide(
    StorageEncryption.layer({ keys: [{ id: "2026-12", secret: newSecret }, { id: "2026-11", secret }] }).pipe(
      Layer.provide(Bucket)
    )
  ))
  // #endregion

  yield* rotate
  const rotated = yield* StorageEncryption.make(bucket, { keys: [{ id: "2026-12", secret: newSecret }] })
  deepStrictEqual(yield* rotated.load("bert/layer_0.bin"), weights)
  const former = yield* StorageEncryption.make(bucket, { keys: [{ id: "2026-11", secret }] })
  const error = yield* Effect.flip(former.load("bert/layer_0.bin"))
  strictEqual(error._tag, "AccessDenied")
  yield* Console.log(`the former key: ${error.message}`)

  const { calls, kms } = serviceInMemory()
  const managed = yield* MemoryStorage.make().pipe(
    Effect.flatMap(StorageEncryption.make({ keys: [inKms(kms, "alias/weights")] }))
  )
  yield* managed.save("bert/layer_0.bin", weights)
  for (let i = 0; i < 10; i++) deepStrictEqual(yield* managed.load("bert/layer_0.bin"), weights)
  deepStrictEqual(calls, { encrypt: 1, decrypt: 1 })
  yield* Console.log(
    `a save and ten loads by a key in KMS: ${calls.encrypt} call to encrypt, ${calls.decrypt} to decrypt`
  )
})

NodeRuntime.runMain(main)
