/**
 * Groups tensors into chunks in the order of the forward pass, by the names that parameters have in the libraries of
 * Hugging Face: embeddings, then the layers by number, then the rest.
 *
 * | model | a layer | embeddings | at the end |
 * | --- | --- | --- | --- |
 * | BERT | `bert.encoder.layer.0.attention.self.query.weight` | `bert.embeddings.word_embeddings.weight` | `bert.pooler.dense.weight`, `cls.predictions.bias` |
 * | GPT-2 | `transformer.h.0.attn.c_attn.weight` | `transformer.wte.weight`, `transformer.wpe.weight` | `transformer.ln_f.weight`, `lm_head.weight` |
 * | Llama | `model.layers.0.self_attn.q_proj.weight` | `model.embed_tokens.weight` | `model.norm.weight`, `lm_head.weight` |
 * | T5 | `encoder.block.0.layer.0.SelfAttention.q.weight` | `shared.weight` | `decoder.final_layer_norm.weight`, `lm_head.weight` |
 */

/** The tensors of a chunk, in the order of the forward pass. */
export interface Group<A> {
  readonly name: string
  readonly tensors: ReadonlyArray<A>
}

interface Named {
  readonly name: string
}

/** A chunk for the embeddings, one for each layer, one for the rest. `undefined` if no name contains a layer. */
export const byLayer = <A extends Named>(tensors: ReadonlyArray<A>): ReadonlyArray<Group<A>> | undefined => {
  const placeOf = places(tensors)
  return tensors.some(({ name }) => layerOf(name) !== undefined)
    ? collectGroups(sortByPlace(tensors), ({ name }) => placeOf(name).chunk)
    : undefined
}

/** A chunk for each name that the function returns. */
export const byName = <A extends Named>(
  tensors: ReadonlyArray<A>,
  chunkOf: (name: string) => string
): ReadonlyArray<Group<A>> => collectGroups(sortByPlace(tensors), ({ name }) => chunkOf(name))

/** Chunks of at most this size. A tensor that is larger is a chunk by itself. */
export const bySize = <A extends Named>(
  tensors: ReadonlyArray<A>,
  maxSize: number,
  sizeOf: (tensor: A) => number
): ReadonlyArray<Group<A>> => {
  let number = 0
  let used = 0
  return collectGroups(sortByPlace(tensors), (tensor) => {
    const size = sizeOf(tensor)
    if (used > 0 && used + size > maxSize) {
      number++
      used = 0
    }
    used += size
    return `chunk_${number}`
  })
}

/** The natural order of strings: numbers in them compare by value. */
export const compareNatural = (a: string, b: string): number => {
  const [as, bs] = [a.split(/(\d+)/), b.split(/(\d+)/)]
  for (const [i, one] of as.entries()) {
    const other = bs[i]
    if (other === undefined) return 1
    // Odd places hold the numbers, of which the longer one is the larger.
    const difference = i % 2 === 1 ? significantDigits(one) - significantDigits(other) : 0
    if (difference !== 0) return difference
    if (one !== other) return one < other ? -1 : 1
  }
  return as.length - bs.length
}

const significantDigits = (number: string): number => number.replace(/^0+/, "").length

const collectGroups = <A>(tensors: ReadonlyArray<A>, chunkOf: (tensor: A) => string): ReadonlyArray<Group<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const tensor of tensors) {
    const name = chunkOf(tensor)
    const group = groups.get(name)
    if (group === undefined) groups.set(name, [tensor])
    else group.push(tensor)
  }
  return Array.from(groups, ([name, tensors]) => ({ name, tensors }))
}

const sortByPlace = <A extends Named>(tensors: ReadonlyArray<A>): ReadonlyArray<A> => {
  const placeOf = places(tensors)
  return tensors
    .map((tensor) => ({ tensor, place: placeOf(tensor.name) }))
    .sort((a, b) =>
      a.place.stage - b.place.stage ||
      compareNatural(a.place.chunk, b.place.chunk) ||
      compareNatural(a.tensor.name, b.tensor.name)
    )
    .map(({ tensor }) => tensor)
}

/** The chunk of a tensor, and its stage in the forward pass. Chunks of one stage are in natural order. */
interface Place {
  readonly chunk: string
  readonly stage: number
}

const places = (tensors: ReadonlyArray<Named>): (name: string) => Place => {
  // A model with an encoder and a decoder has two stacks of layers; most have one.
  const stacks = [...new Set(tensors.flatMap(({ name }) => layerOf(name)?.stack ?? []))].sort((a, b) =>
    Number(a.includes("decoder")) - Number(b.includes("decoder")) || compareNatural(a, b)
  )
  const labels = labelsOf(stacks)

  return (name) => {
    const layer = layerOf(name)
    if (layer !== undefined) {
      const index = stacks.indexOf(layer.stack)
      return { chunk: `${labels[index]}layer_${layer.number}`, stage: 2 * index + 1 }
    }
    if (name.split(".").some(isEmbedding)) return { chunk: "embeddings", stage: 0 }
    // The end of a stack comes before the next stack; the end of the last one is the head.
    const ended = stacks.slice(0, -1).findIndex((stack) => name.startsWith(`${stack}.`))
    return ended === -1
      ? { chunk: "head", stage: 2 * stacks.length + 1 }
      : { chunk: `${labels[ended]}norm`, stage: 2 * ended + 2 }
  }
}

/** The layer of a tensor: of `encoder.block.0.layer.1.wo` layer `0` in the stack `encoder`. */
const layerOf = (name: string): { readonly stack: string; readonly number: string } | undefined => {
  const [, stack = "", number] = /^(?:(.*?)\.)?(?:layer|layers|h|block)\.(\d+)\./.exec(name) ?? []
  return number === undefined ? undefined : { stack, number }
}

/** The prefix of the chunk names of each stack: empty if there is only one, else the segments in which they differ. */
const labelsOf = (stacks: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (stacks.length < 2) return stacks.map(() => "")
  const paths = stacks.map((stack) => stack.split("."))
  const [first = []] = paths
  const differing = first.findIndex((segment, i) => paths.some((path) => path[i] !== segment))
  return paths.map((path) => path.slice(differing === -1 ? first.length : differing).map((part) => `${part}_`).join(""))
}

const isEmbedding = (segment: string): boolean => segment.includes("emb") || ["wte", "wpe", "shared"].includes(segment)
