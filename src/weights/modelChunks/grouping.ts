/**
 * Where a tensor stands in the forward pass of its model, told from its name as the libraries of Hugging Face give it:
 * embeddings first, then the layers by their numbers, then what comes after them.
 *
 * | model | a layer | embeddings | at the end |
 * | --- | --- | --- | --- |
 * | BERT | `bert.encoder.layer.0.attention.self.query.weight` | `bert.embeddings.word_embeddings.weight` | `bert.pooler.dense.weight`, `cls.predictions.bias` |
 * | GPT-2 | `transformer.h.0.attn.c_attn.weight` | `transformer.wte.weight`, `transformer.wpe.weight` | `transformer.ln_f.weight`, `lm_head.weight` |
 * | Llama | `model.layers.0.self_attn.q_proj.weight` | `model.embed_tokens.weight` | `model.norm.weight`, `lm_head.weight` |
 * | T5 | `encoder.block.0.layer.0.SelfAttention.q.weight` | `shared.weight` | `decoder.final_layer_norm.weight`, `lm_head.weight` |
 */

/** A chunk to be, and the tensors that go into it, both in the order of the forward pass. */
export interface Group<A> {
  readonly name: string
  readonly tensors: ReadonlyArray<A>
}

interface Named {
  readonly name: string
}

/** One chunk for the embeddings, one a layer, one for the rest; none where the names tell of no layers. */
export const byLayer = <A extends Named>(tensors: ReadonlyArray<A>): ReadonlyArray<Group<A>> | undefined => {
  const placeOf = places(tensors)
  return tensors.some(({ name }) => stackOf(name) !== undefined)
    ? collect(inOrder(tensors), ({ name }) => placeOf(name).chunk)
    : undefined
}

/** A chunk for each name that a function gives. */
export const byName = <A extends Named>(
  tensors: ReadonlyArray<A>,
  chunkOf: (name: string) => string
): ReadonlyArray<Group<A>> => collect(inOrder(tensors), ({ name }) => chunkOf(name))

/** Chunks of so many bytes at most, but for tensors that are larger by themselves. */
export const bySize = <A extends Named>(
  tensors: ReadonlyArray<A>,
  bytes: number,
  sizeOf: (tensor: A) => number
): ReadonlyArray<Group<A>> => {
  let number = 0
  let used = 0
  return collect(inOrder(tensors), (tensor) => {
    const size = sizeOf(tensor)
    if (used > 0 && used + size > bytes) {
      number++
      used = 0
    }
    used += size
    return `chunk_${number}`
  })
}

/** Compares texts, the numbers in them by their value. */
export const natural = (a: string, b: string): number => {
  const [as, bs] = [a.split(/(\d+)/), b.split(/(\d+)/)]
  for (const [i, one] of as.entries()) {
    const other = bs[i]
    if (other === undefined) return 1
    // Between texts, at odd places, stand numbers, of which the longer is the larger.
    const longer = i % 2 === 1 ? digits(one).length - digits(other).length : 0
    if (longer !== 0) return longer
    if (one !== other) return one < other ? -1 : 1
  }
  return as.length - bs.length
}

const digits = (number: string): string => number.replace(/^0+/, "")

const collect = <A>(tensors: ReadonlyArray<A>, chunkOf: (tensor: A) => string): ReadonlyArray<Group<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const tensor of tensors) {
    const name = chunkOf(tensor)
    const group = groups.get(name)
    if (group === undefined) groups.set(name, [tensor])
    else group.push(tensor)
  }
  return Array.from(groups, ([name, tensors]) => ({ name, tensors }))
}

const inOrder = <A extends Named>(tensors: ReadonlyArray<A>): ReadonlyArray<A> => {
  const placeOf = places(tensors)
  return tensors
    .map((tensor) => ({ tensor, place: placeOf(tensor.name) }))
    .sort((a, b) =>
      a.place.stage - b.place.stage ||
      natural(a.place.chunk, b.place.chunk) ||
      natural(a.tensor.name, b.tensor.name)
    )
    .map(({ tensor }) => tensor)
}

/** A part of the forward pass: its chunk, and when it comes. The chunks of one stage come by their numbers. */
interface Place {
  readonly chunk: string
  readonly stage: number
}

const places = (tensors: ReadonlyArray<Named>): (name: string) => Place => {
  // A model with an encoder and a decoder has two stacks of layers; most have one.
  const stacks = [...new Set(tensors.flatMap(({ name }) => stackOf(name)?.path ?? []))].sort((a, b) =>
    Number(a.includes("decoder")) - Number(b.includes("decoder")) || natural(a, b)
  )
  const labels = labelsOf(stacks)

  return (name) => {
    const stack = stackOf(name)
    if (stack !== undefined) {
      const index = stacks.indexOf(stack.path)
      return { chunk: `${labels[index]}layer_${stack.layer}`, stage: 2 * index + 1 }
    }
    if (name.split(".").some(isEmbedding)) return { chunk: "embeddings", stage: 0 }
    // What ends a stack is needed before the next one begins; what ends the last one is at the end anyway.
    const ended = stacks.slice(0, -1).findIndex((path) => name.startsWith(`${path}.`))
    return ended === -1
      ? { chunk: "head", stage: 2 * stacks.length + 1 }
      : { chunk: `${labels[ended]}norm`, stage: 2 * ended + 2 }
  }
}

/** The layer that a tensor belongs to, and what stands before that: `encoder` and `0` for `encoder.block.0.layer.1.wo`. */
const stackOf = (name: string): { readonly path: string; readonly layer: string } | undefined => {
  const [, path = "", layer] = /^(?:(.*?)\.)?(?:layer|layers|h|block)\.(\d+)\./.exec(name) ?? []
  return layer === undefined ? undefined : { path, layer }
}

/** What tells stacks apart in the names of their chunks: nothing where there is one. */
const labelsOf = (stacks: ReadonlyArray<string>): ReadonlyArray<string> => {
  if (stacks.length < 2) return stacks.map(() => "")
  const paths = stacks.map((path) => path.split("."))
  const [first = []] = paths
  const differing = first.findIndex((segment, i) => paths.some((path) => path[i] !== segment))
  return paths.map((path) => path.slice(differing === -1 ? first.length : differing).map((part) => `${part}_`).join(""))
}

const isEmbedding = (segment: string): boolean => segment.includes("emb") || ["wte", "wpe", "shared"].includes(segment)
