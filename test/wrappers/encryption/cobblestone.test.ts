/**
 * The format of encrypted bytes, by the vectors of Wycheproof, and both implementations of AES-GCM.
 */
import { describe, expect, it } from "@effect/vitest"
import * as crypto from "node:crypto"
import { inflateSync } from "node:zlib"
import * as Aead from "../../../src/wrappers/encryption/aead.js"
import * as Cobblestone from "../../../src/wrappers/encryption/cobblestone.js"
import vectors from "./wycheproof.json" with { type: "json" }

/** Decrypts a whole message chunk by chunk; what was authentic before the first failure. */
const decrypt = async (key: Uint8Array, context: string, sealed: Uint8Array) => {
  const message = await Cobblestone.Message.read(key, sealed.subarray(0, Cobblestone.headerSize), context)
  if (message === undefined) return { bytes: Buffer.alloc(0), isWhole: false }
  const chunks: Array<Uint8Array> = []
  for (let at = Cobblestone.headerSize; at < sealed.byteLength; at += Cobblestone.sealedChunkSize) {
    chunks.push(sealed.subarray(at, at + Cobblestone.sealedChunkSize))
  }
  const opened = await message.open(0, chunks)
  const { isPossible, size } = Cobblestone.openedSize(sealed.byteLength)
  const bytes = Buffer.concat(opened)
  return { bytes, isWhole: isPossible && opened.length === chunks.length && bytes.byteLength === size }
}

describe("Cobblestone", () => {
  it("has every vector of Wycheproof for it", () => {
    const count = (algorithm: string) => vectors.tests.filter((test) => test.algorithm === algorithm).length
    expect([count("Cobblestone-128"), count("Cobblestone-256")]).toEqual([35, 35])
  })

  it.each(vectors.tests)("$algorithm, $result: $comment", async ({ algorithm, context, deflated, flags, ...test }) => {
    const key = Buffer.from(test.key, "hex")
    // The size of the key is what tells the two algorithms apart: storages take no other for either.
    if (flags.includes("InvalidKeySize")) {
      expect(key.byteLength * 8).not.toBe(Number(algorithm.slice(-3)))
      return
    }
    const sealed = inflateSync(Buffer.from(deflated, "base64"))
    const { bytes, isWhole } = await decrypt(key, Buffer.from(context, "hex").toString(), sealed)
    expect(isWhole).toBe(test.result === "valid")
    if (test.result === "valid" || flags.includes("PartialPlaintext")) {
      expect(bytes.byteLength).toBe(test.size)
      expect(crypto.createHash("sha512").update(bytes).digest("hex")).toBe(test.sha512)
    } else expect(bytes.byteLength).toBe(0)
  })

  it.each([16, 32])("decrypts what it encrypts with a key of %i bytes", async (length) => {
    const key = crypto.randomBytes(length)
    const message = await Cobblestone.Message.create(key, "context")
    const chunks = [crypto.randomBytes(Cobblestone.chunkSize), crypto.randomBytes(5)]
    const sealed = Buffer.concat([message.header, await message.seal(0, chunks)])
    expect(sealed.byteLength).toBe(Cobblestone.sealedSize(Cobblestone.chunkSize + 5))
    expect(await decrypt(key, "context", sealed)).toEqual({ bytes: Buffer.concat(chunks), isWhole: true })
    expect((await decrypt(key, "another", sealed)).isWhole).toBe(false)
    const other = await Cobblestone.Message.create(key, "context")
    expect(other.header).not.toEqual(message.header)
  })

  it("knows the size of a message from the size of its bytes, and back", () => {
    for (const size of [0, 1, 16_383, 16_384, 16_385, 32_767, 32_768, 5_000_000, 2 ** 51]) {
      expect(Cobblestone.openedSize(Cobblestone.sealedSize(size)), String(size)).toEqual({ size, isPossible: true })
    }
    expect(Cobblestone.sealedSize(0)).toBe(72)
    expect(Cobblestone.sealedSize(16_384)).toBe(72 + 16_400)
    for (const sealed of [0, 1, 55, 56, 71, 56 + 16_400, 56 + 16_415]) {
      expect(Cobblestone.openedSize(sealed).isPossible, String(sealed)).toBe(false)
    }
    expect(Cobblestone.openedSize(10).size).toBe(0)
  })

  it("refuses a chunk beyond 4 PiB, whose nonce would be that of another", async () => {
    const message = await Cobblestone.Message.create(new Uint8Array(16), "")
    await message.seal(2 ** 38 - 1, [new Uint8Array(1)])
    await expect(message.seal(2 ** 38, [new Uint8Array(1)])).rejects.toThrow("must not exceed")
  })

  it("decrypts a chunk only under its own index, also beyond 4 GiB of chunks", async () => {
    const message = await Cobblestone.Message.create(new Uint8Array(16), "")
    const indices = [0, 1, 255, 256, 2 ** 32, 2 ** 32 + 1, 2 ** 37 + 5]
    for (const index of indices) {
      const sealed = await message.seal(index, [Uint8Array.of(7)])
      for (const other of indices) {
        expect(await message.open(other, [sealed])).toEqual(index === other ? [Buffer.of(7)] : [])
      }
    }
  })
})

const implementations = [["of Node", Aead.native(crypto)], ["of Web Crypto", Aead.portable]] as const

describe.each(implementations)("AES-GCM %s", (_, make) => {
  const nonce = new Uint8Array(crypto.randomBytes(12))

  it.each([16, 32])("encrypts with a key of %i bytes as the other one does", async (length) => {
    const key = crypto.randomBytes(length)
    for (const bytes of [new Uint8Array(0), Uint8Array.of(1), crypto.randomBytes(16_384)]) {
      const sealed = Buffer.concat(await (await make(key)).seal([{ bytes, nonce }]))
      expect(sealed.byteLength).toBe(bytes.byteLength + Aead.tagSize)
      for (const [, other] of implementations) {
        const [opened] = await (await other(key)).open([{ bytes: sealed, nonce }])
        expect(Buffer.from(opened ?? [255])).toEqual(Buffer.from(bytes))
      }
    }
  })

  it("returns nothing for a chunk that was changed, shortened or encrypted with another nonce, and the others", async () => {
    const aead = await make(new Uint8Array(16))
    const sealed = Buffer.concat(await aead.seal([{ bytes: Uint8Array.of(1, 2, 3), nonce }]))
    const flipped = sealed.map((byte, i) => i === 1 ? byte ^ 1 : byte)
    const pieces = [flipped, sealed, sealed.subarray(0, -1), sealed.subarray(0, 15), new Uint8Array(0)]
    const opened = await aead.open([
      ...pieces.map((bytes) => ({ bytes, nonce })),
      { bytes: sealed, nonce: new Uint8Array(12) }
    ])
    expect(opened.map((bytes) => bytes?.byteLength)).toEqual([undefined, 3, undefined, undefined, undefined, undefined])
  })

  it("has copied its arguments when it returns", async () => {
    const aead = await make(new Uint8Array(16))
    const bytes = Uint8Array.of(1, 2, 3)
    const sealing = aead.seal([{ bytes, nonce }])
    bytes.fill(0)
    const sealed = Buffer.concat(await sealing)
    const opening = aead.open([{ bytes: sealed, nonce }])
    sealed.fill(0)
    expect((await opening).map((opened) => [...(opened ?? [])])).toEqual([[1, 2, 3]])
  })
})
