/**
 * Groups tensors into chunks, in the order of the forward pass.
 */
import * as ObjectKey from "../../ObjectKey.js"
import type { Placed, Sorted } from "./forwardOrder.js"

/** The tensors of a chunk: part by part in the order of the forward pass, and in a part by name, as in most files. */
export interface Group<A> {
  readonly name: string
  readonly tensors: ReadonlyArray<A>
}

interface Named {
  readonly name: string
}

/**
 * A chunk for each layer, and others for what is before, between and behind them. `undefined` if no name contains a layer.
 *
 * | model | chunks |
 * | --- | --- |
 * | BERT, GPT-2, Llama | `embeddings`, `layer_0` …, `head` |
 * | T5 | `embeddings`, `encoder_layer_0` …, `encoder_norm`, `decoder_layer_0` …, `head` |
 * | LLaVA | `embeddings` of the vision tower, `vision_tower_layer_0` …, `vision_tower_norm`, `multi_modal_projector`, `language_model_embeddings`, `language_model_layer_0` …, `head` |
 */
export const byLayer = <A extends Named>({ tensors }: Sorted<A>): ReadonlyArray<Group<A>> | undefined => {
  const stacks = stacksOf(tensors)
  if (stacks.length === 0) return undefined
  const used = new Map<string, number>()
  let seen = 0
  let name = ""
  let last: string | undefined
  return collectGroups(tensors, ({ layer, tensor }) => {
    if (layer !== undefined) seen = Math.max(seen, 1 + stacks.findIndex(({ path }) => path === layer.stack))
    const next = layer === undefined
      ? nameBetween(tensor.name, stacks, seen)
      : `${stacks.find(({ path }) => path === layer.stack)?.label ?? ""}layer_${layer.number}`
    if (next !== last) {
      const count = 1 + (used.get(next) ?? 0)
      used.set(next, count)
      // In an order of the user, a chunk can be interrupted by another one.
      name = count === 1 ? next : `${next}_${count}`
      last = next
    }
    return name
  })
}

/** A chunk for each name that the function returns. */
export const byName = <A extends Named>(
  { tensors }: Sorted<A>,
  chunkOf: (name: string) => string
): ReadonlyArray<Group<A>> => collectGroups(tensors, ({ tensor }) => chunkOf(tensor.name))

/** Chunks of at most this size. A tensor that is larger is a chunk by itself. */
export const bySize = <A extends Named>(
  { tensors }: Sorted<A>,
  maxSize: number,
  sizeOf: (tensor: A) => number
): ReadonlyArray<Group<A>> => {
  let number = 0
  let used = 0
  return collectGroups(tensors, ({ tensor }) => {
    const size = sizeOf(tensor)
    if (used > 0 && used + size > maxSize) {
      number++
      used = 0
    }
    used += size
    return `chunk_${number}`
  })
}

const collectGroups = <A extends Named>(
  tensors: ReadonlyArray<Placed<A>>,
  chunkOf: (placed: Placed<A>) => string
): ReadonlyArray<Group<A>> => {
  const groups = new Map<string, Map<string, Array<A>>>()
  for (const placed of tensors) {
    const parts = getOrInsert(groups, chunkOf(placed), () => new Map<string, Array<A>>())
    getOrInsert(parts, placed.part, (): Array<A> => []).push(placed.tensor)
  }
  return Array.from(groups, ([name, parts]) => ({
    name,
    tensors: [...parts.values()].flatMap((part) => part.sort((a, b) => ObjectKey.compare(a.name, b.name)))
  }))
}

const getOrInsert = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  const value = map.get(key) ?? make()
  map.set(key, value)
  return value
}

/** A stack of layers. */
interface Stack {
  readonly path: string
  /** The module by whose name it differs from other stacks: `vision_tower` of `vision_tower.vision_model.encoder`. */
  readonly tower: string
  /** What the names of its chunks start with: nothing if it is the only one. */
  readonly label: string
}

/** The stacks in the order of the forward pass. */
const stacksOf = <A>(tensors: ReadonlyArray<Placed<A>>): ReadonlyArray<Stack> => {
  const paths = [...new Set(tensors.flatMap(({ layer }) => layer?.stack ?? []))]
  if (paths.length < 2) return paths.map((path) => ({ path, tower: path, label: "" }))
  const segments = paths.map((path) => path.split("."))
  const start = commonLength(segments)
  const longest = Math.max(...segments.map(({ length }) => length))
  let end = start + 1
  while (end < longest && new Set(segments.map((path) => path.slice(0, end).join("."))).size < paths.length) end++
  return segments.map((path) => ({
    path: path.join("."),
    tower: path.slice(0, end).join("."),
    label: path.slice(start, end).map((segment) => `${segment}_`).join("")
  }))
}

/** How many segments are the same at the start of all paths. */
const commonLength = (paths: ReadonlyArray<ReadonlyArray<string>>): number => {
  const [first = []] = paths
  const differing = first.findIndex((segment, i) => paths.some((path) => path[i] !== segment))
  return differing === -1 ? first.length : differing
}

/** The chunk of a tensor that is in no layer, if this many stacks are before it. */
const nameBetween = (name: string, stacks: ReadonlyArray<Stack>, seen: number): string => {
  const [before, after] = [stacks[seen - 1], stacks[seen]]
  if (before === undefined) return "embeddings"
  if (after === undefined) return "head"
  const isIn = ({ tower }: Stack) => name.startsWith(`${tower}.`)
  if (isIn(after) && !(isIn(before) && before.tower.length > after.tower.length)) return `${after.label}embeddings`
  if (isIn(before)) return `${before.label}norm`
  const segments = name.split(".")
  return segments[commonLength([segments, ...stacks.map(({ path }) => path.split("."))])] ?? name
}
