/**
 * Which files of a folder are the chunks of a model, where the folder is as it was downloaded: weights beside
 * documentation, configuration and a tokenizer, often also the same weights in other formats.
 *
 * 1. The index of a sharded model decides, such as `model.safetensors.index.json`: the shards that it names, no others.
 * 2. Where there are safetensors files, only they.
 * 3. Otherwise all files but those that are known to be no weights.
 *
 * Files that are the same model twice are refused, as far as their names show that.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { LoadError } from "../../StorageError.js"
import { quotedList } from "../internal/text.js"
import type { SafetensorsError } from "../safetensors/errors.js"
import { loadIndex } from "../safetensors/model.js"
import { type Folder, invalid, type ModelChunksError } from "./folder.js"

/** The keys of the chunks, after the prefix, out of all keys in a folder. */
export const select = (
  folder: Folder,
  keys: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>, LoadError | SafetensorsError | ModelChunksError> =>
  Effect.gen(function*() {
    const visible = keys.filter((key) => !isHidden(key))
    const indexes = outermost(visible.filter((key) => key.endsWith(".safetensors.index.json")))
    const index = yield* single(folder, indexes.length > 0 ? indexes : binIndexes(visible))
    if (index !== undefined) return yield* namedBy(folder, index, new Set(keys))

    const weights = visible.filter((key) => !isOther(key))
    const safetensors = weights.filter((key) => formatOf(key) === "safetensors")
    const selected = withoutCopies(safetensors.length > 0 ? safetensors : weights)
    yield* refuseFormats(folder, selected)
    for (const files of byFolder(selected)) {
      yield* refuseAlternatives(folder, files)
      yield* refuseIncomplete(folder, files)
    }
    return keys.length > 0 && selected.length === 0
      ? yield* refuse(folder, `there are no weights among the files of the folder (${quotedList(keys)})`)
      : selected
  })

/**
 * The keys of the files that make up a model: its weights, and its configuration, tokenizer, documentation and the like. Not the
 * same weights in another form, nor the indexes of those.
 */
export const files = (
  folder: Folder,
  keys: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>, LoadError | SafetensorsError | ModelChunksError> =>
  Effect.map(select(folder, keys), (selected) => {
    const weights = new Set(selected)
    const hasSafetensors = selected.some((key) => formatOf(key) === "safetensors")
    const isBeside = (key: string) =>
      !isHidden(key) && isOther(key) && !isTrainingState(key) && !(hasSafetensors && key.endsWith(".bin.index.json"))
    return keys.filter((key) => weights.has(key) || isBeside(key))
  })

const refuse = (folder: Folder, reason: string): ModelChunksError =>
  folder.operation === "files"
    ? invalid(folder, "prefix", `${reason}; copy the files that you want by their names`)
    : invalid(folder, "include", `${reason}; set include to select the chunks`)

/** PyTorch names the index of its shards `pytorch_model.bin.index.json`. It counts where there are no safetensors files. */
const binIndexes = (keys: ReadonlyArray<string>): ReadonlyArray<string> =>
  keys.some((key) => formatOf(key) === "safetensors")
    ? []
    : outermost(keys.filter((key) => key.endsWith(".bin.index.json")))

const single = (folder: Folder, indexes: ReadonlyArray<string>): Either.Either<string | undefined, ModelChunksError> =>
  indexes.length > 1
    ? Either.left(refuse(folder, `there are several indexes of sharded models (${quotedList(indexes)})`))
    : Either.right(indexes[0])

/** The shards that an index names, relative to its folder. */
const namedBy = (folder: Folder, index: string, keys: ReadonlySet<string>) =>
  Effect.gen(function*() {
    const { shards } = yield* loadIndex(folder.storage, folder.prefix + index)
    const named = shards.map(([key]) => key.slice(folder.prefix.length))
    const missing = named.filter((key) => !keys.has(key))
    return missing.length > 0
      ? yield* refuse(folder, `the index "${index}" names files that are not in the folder (${quotedList(missing)})`)
      : named
  })

/** Those that lie in the fewest folders. */
const outermost = (keys: ReadonlyArray<string>): ReadonlyArray<string> => {
  const depth = Math.min(...keys.map(depthOf))
  return keys.filter((key) => depthOf(key) === depth)
}

const depthOf = (key: string): number => key.split("/").length

const nameOf = (key: string): string => key.slice(key.lastIndexOf("/") + 1)

const extensionOf = (key: string): string => /\.(\w+)$/.exec(nameOf(key))?.[1]?.toLowerCase() ?? ""

const isHidden = (key: string): boolean => key.split("/").some((segment) => segment.startsWith("."))

/** Documentation, configuration, tokenizers, data, and what training leaves behind. */
const isOther = (key: string): boolean =>
  otherExtensions.has(extensionOf(key)) || key.endsWith("%sha256") ||
  /^(?:readme|licen[cs]e|notice|copying|use_policy|changelog|authors|citation|makefile|dockerfile)(?:[-_.]|$)/i
    .test(nameOf(key)) ||
  isTrainingState(key)

const isTrainingState = (key: string): boolean =>
  /^(?:training_args|optimizer|scheduler|scaler|rng_state(?:_\d+)?|random_states_\d+)\.(?:bin|pt|pth|pkl)$/
    .test(nameOf(key))

const otherExtensions = new Set(
  ("md txt rst pdf html json jsonl yaml yml toml ini cfg xml proto jinja py pyc ipynb sh js ts mjs log lock csv tsv " +
    "parquet arrow png jpg jpeg gif svg webp bmp mp3 mp4 wav flac vocab bpe merges model spm tiktoken sha256 md5 sig asc")
    .split(" ")
)

/** The format of weights by the extension, or an empty string. */
const formatOf = (key: string): string => formats.get(extensionOf(key)) ?? ""

const formats = new Map([
  ["safetensors", "safetensors"],
  ["bin", "PyTorch"],
  ["pt", "PyTorch"],
  ["pth", "PyTorch"],
  ["ckpt", "PyTorch"],
  ["h5", "Keras"],
  ["keras", "Keras"],
  ["msgpack", "Flax"],
  ["onnx", "ONNX"],
  ["onnx_data", "ONNX"],
  ["gguf", "GGUF"],
  ["tflite", "TensorFlow Lite"],
  ["mlmodel", "Core ML"],
  ["mlpackage", "Core ML"],
  ["ot", "rust-bert"]
])

/** Without the same model in another form: a consolidated file or a folder of conversions, if there are other files. */
const withoutCopies = (keys: ReadonlyArray<string>): ReadonlyArray<string> => {
  const originals = keys.filter((key) =>
    !/^(?:original|onnx|openvino|coreml|metal|gguf|tflite|flax)\//.test(key) && !/(?:^|\/)consolidated[.-]/.test(key)
  )
  return originals.length > 0 ? originals : keys
}

const refuseFormats = (folder: Folder, keys: ReadonlyArray<string>): Either.Either<void, ModelChunksError> => {
  const found = new Set(keys.map(formatOf).filter((format) => format !== ""))
  return found.size < 2
    ? Either.void
    : Either.left(
      refuse(folder, `there are weights in several formats (${[...found].join(", ")}: ${quotedList(keys)})`)
    )
}

const byFolder = (keys: ReadonlyArray<string>): Iterable<ReadonlyArray<string>> =>
  Object.values(Arr.groupBy(keys, (key) => key.slice(0, -nameOf(key).length)))

/** A shard by its name: `model-00002-of-00003.safetensors`. */
const parseShard = (key: string) => {
  const [, base, number, total, extension] = /^(.*)-(\d+)-of-(\d+)\.(\w+)$/.exec(key) ?? []
  return base === undefined || number === undefined || total === undefined || extension === undefined
    ? undefined
    : {
      number,
      total,
      set: `${base}-of-${total}.${extension}`,
      name: (n: string) => `${base}-${n}-of-${total}.${extension}`
    }
}

/** Formats of which each file is a whole model, unless its name is that of a shard. */
const wholeFormats = new Set(["GGUF", "Keras", "Flax", "TensorFlow Lite", "rust-bert"])

const refuseAlternatives = (folder: Folder, keys: ReadonlyArray<string>): Either.Either<void, ModelChunksError> => {
  const sets = new Set(keys.flatMap((key) => parseShard(key)?.set ?? []))
  const others = keys.filter((key) => parseShard(key) === undefined && formatOf(key) !== "")
  const wholes = others.filter((key) => wholeFormats.has(formatOf(key)) || key.endsWith(".onnx"))
  return sets.size > 1 || wholes.length > 1 || (sets.size === 1 && others.length > 0)
    ? Either.left(refuse(folder, `there are several models (${quotedList(keys)})`))
    : Either.void
}

const refuseIncomplete = (folder: Folder, keys: ReadonlyArray<string>): Either.Either<void, ModelChunksError> => {
  const present = new Set(keys)
  for (const shard of keys.flatMap((key) => parseShard(key) ?? [])) {
    for (let n = 1; n <= Math.min(Number(shard.total), 100_000); n++) {
      const name = shard.name(String(n).padStart(shard.number.length, "0"))
      if (!present.has(name)) {
        return Either.left(refuse(folder, `the shard ${JSON.stringify(name)} is missing`))
      }
    }
    // All shards of a folder are of one set.
    return Either.void
  }
  return Either.void
}
