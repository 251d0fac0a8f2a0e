/**
 * The index of a model in several files, `model.safetensors.index.json`: JSON whose `weight_map` names the file of each
 * tensor, beside the index or in a folder below, and whose `metadata` may hold anything.
 */
import type * as Either from "effect/Either"
import * as ObjectKey from "../../ObjectKey.js"
import { SafetensorsError, shown } from "./errors.js"
import { readJson } from "./header.js"
import { openBrace, quote, type Reader } from "./jsonReader.js"

export interface ShardIndex {
  /** The names of the tensors that each object holds, by its key and in the order of keys. */
  readonly shards: ReadonlyArray<readonly [key: string, names: ReadonlySet<string>]>
  /** What is not a string stands here as JSON. */
  readonly metadata: Readonly<Record<string, string>>
}

export const parse = (key: string, json: Uint8Array): Either.Either<ShardIndex, SafetensorsError> =>
  readJson(key, "index", json, (reader) => read(key, reader))

const read = (key: string, reader: Reader): ShardIndex => {
  const problem = (field: "index" | "weight_map", reason: string, tensor?: string) =>
    new SafetensorsError({ key, field, reason, ...(tensor !== undefined && { tensor }) })
  const folder = key.slice(0, key.lastIndexOf("/") + 1)
  const shards = new Map<string, Set<string>>()
  const metadata = new Map<string, string>()
  const names = new Set<string>()
  const fields = new Set<string>()

  const readShard = (name: string) => {
    if (names.has(name)) throw problem("weight_map", "it stands there twice", name)
    names.add(name)
    if (reader.peek() !== quote) throw problem("weight_map", "its file is not a string", name)
    const file = reader.string()
    const shard = folder + file
    const reason = ObjectKey.problem(shard)
    if (reason !== undefined) {
      throw problem("weight_map", `${shown(file)} is no file in the folder of the index: ${reason}`, name)
    }
    const held = shards.get(shard)
    if (held === undefined) shards.set(shard, new Set([name]))
    else held.add(name)
  }

  for (let field = reader.firstKey(); field !== undefined; field = reader.nextKey()) {
    if (fields.has(field)) throw problem("index", `${shown(field)} stands there twice`)
    fields.add(field)
    const isObject = reader.peek() === openBrace
    if (field === "weight_map") {
      if (!isObject) throw problem("weight_map", "it is not an object")
      for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) readShard(name)
    } else if (field === "metadata" && isObject) {
      for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
        metadata.set(name, reader.peek() === quote ? reader.string() : reader.skip())
      }
    } else {
      reader.skip()
    }
  }
  reader.expectEnd()
  if (!fields.has("weight_map")) throw problem("weight_map", "it is missing")

  return {
    shards: [...shards].sort(([a], [b]) => ObjectKey.compare(a, b)),
    metadata: Object.fromEntries(metadata)
  }
}
