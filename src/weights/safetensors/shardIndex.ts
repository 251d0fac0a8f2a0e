/**
 * The index of a model in several files, `model.safetensors.index.json`: JSON whose `weight_map` maps the name of each
 * tensor to its file, relative to the folder of the index, and whose `metadata` may hold anything.
 */
import * as Either from "effect/Either"
import * as ObjectKey from "../../ObjectKey.js"
import { recognize, sentence } from "../internal/fileKind.js"
import { quoted } from "../internal/text.js"
import { invalid, type SafetensorsError } from "./errors.js"
import { readJson } from "./header.js"
import type { JsonReader } from "./jsonReader.js"

export interface ShardIndex {
  /** The keys of the shards, in order, each with the names of its tensors. */
  readonly shards: ReadonlyArray<readonly [key: string, names: ReadonlySet<string>]>
  /** A value that is not a string is kept as its JSON. */
  readonly metadata: Readonly<Record<string, string>>
}

export const parse = (key: string, json: Uint8Array): Either.Either<ShardIndex, SafetensorsError> =>
  Either.mapLeft(readJson(key, "index", json, (reader) => readIndex(key, reader)), (error) => {
    const other = error.field === "index" ? recognize(json) : undefined
    return other === undefined || other.kind === "json"
      ? error
      : invalid(key, "index", sentence(other, "the index of a sharded model"))
  })

const readIndex = (key: string, reader: JsonReader): ShardIndex => {
  let shards: ReadonlyMap<string, ReadonlySet<string>> | undefined
  let metadata = new Map<string, string>()
  const fields = new Set<string>()
  for (let field = reader.firstKey(); field !== undefined; field = reader.nextKey()) {
    if (fields.has(field)) throw invalid(key, "index", `duplicate key ${quoted(field)}`)
    fields.add(field)
    if (field === "weight_map") {
      if (!reader.isAtObject()) throw invalid(key, "weight_map", "must be an object")
      shards = readWeightMap(key, reader)
    } else if (field === "metadata" && reader.isAtObject()) {
      metadata = readMetadata(reader)
    } else {
      reader.skipValue()
    }
  }
  reader.expectEnd()
  if (shards === undefined) throw invalid(key, "weight_map", "missing")
  return {
    shards: [...shards].sort(([a], [b]) => ObjectKey.compare(a, b)),
    metadata: Object.fromEntries(metadata)
  }
}

/** The names of the tensors of each shard, by its key. */
const readWeightMap = (key: string, reader: JsonReader): ReadonlyMap<string, ReadonlySet<string>> => {
  const folder = key.slice(0, key.lastIndexOf("/") + 1)
  const shards = new Map<string, Set<string>>()
  const names = new Set<string>()
  for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
    if (names.has(name)) throw invalid(key, "weight_map", "duplicate tensor name", name)
    names.add(name)
    if (!reader.isAtString()) throw invalid(key, "weight_map", "the file must be a string", name)
    const file = reader.string()
    const shard = folder + file
    const reason = ObjectKey.problem(shard)
    if (reason !== undefined) {
      throw invalid(key, "weight_map", `${quoted(file)} is not a file in the folder of the index: ${reason}`, name)
    }
    const shardNames = shards.get(shard)
    if (shardNames === undefined) shards.set(shard, new Set([name]))
    else shardNames.add(name)
  }
  return shards
}

const readMetadata = (reader: JsonReader): Map<string, string> => {
  const metadata = new Map<string, string>()
  for (let name = reader.firstKey(); name !== undefined; name = reader.nextKey()) {
    metadata.set(name, reader.isAtString() ? reader.string() : reader.skipValue())
  }
  return metadata
}
