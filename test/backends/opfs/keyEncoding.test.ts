/**
 * Keys as names in the origin private file system.
 */
import { describe, expect, it } from "@effect/vitest"
import { FastCheck } from "effect"
import { ObjectKey } from "surfing-weights"
import { folderText, keyOf, pathOf } from "../../../src/backends/opfs/keyEncoding.js"
import { segments } from "../../../src/testing/contract/keyNames.js"

const decode = ({ file, folders }: ReturnType<typeof pathOf>): string | undefined =>
  keyOf(folders.map(folderText).join(""), file)

const keys = [
  ...Object.values(segments).flat(),
  "a/b",
  "a+b",
  "é".repeat(512),
  "A".repeat(1024),
  "a".repeat(200),
  "a".repeat(201),
  `${"a".repeat(199)}/b`
]

describe("keys as names of files", () => {
  it("keeps the names of most weights readable", () => {
    expect(pathOf("bert/layer_0.bin")).toEqual({ folders: [], file: "bert+layer_0.bin-" })
    expect(pathOf("Xenova/bge 1+2")).toEqual({ folders: [], file: "%58enova+bge%201%2b2-" })
  })

  it("decodes each name to the key that it was made of", () => {
    for (const key of keys) expect(decode(pathOf(key)), key).toBe(key)
    FastCheck.assert(FastCheck.property(
      FastCheck.string({ unit: "binary", minLength: 1, maxLength: 100 }),
      (key) => ObjectKey.problem(key) !== undefined || decode(pathOf(key)) === key
    ))
  })

  it("makes names that no file system changes, confuses or finds too long", () => {
    const paths = keys.map((key) => {
      const { file, folders } = pathOf(key)
      for (const name of [...folders, file]) {
        expect(name, key).toMatch(/^[a-z0-9._%+-]{1,200}[~-]$/)
      }
      return [...folders, file].join("\n")
    })
    expect(new Set(paths).size).toBe(new Set(keys).size)
  })

  it("takes no other name for that of an object", () => {
    const others = [
      "bert+layer_0.bin",
      "A-",
      "a/b-",
      "%41",
      "%4-",
      "%zz-",
      "%ff-",
      "%61-",
      "a-.crswap",
      "%C3%A9-",
      " -"
    ]
    expect(others.flatMap((name) => keyOf("", name) ?? [])).toEqual([])
    expect(folderText("a-")).toBeUndefined()
  })
})
