/**
 * The tensors of published models in the order in which a forward pass reads them, as `generate.py` has recorded them.
 */
import { readFileSync } from "node:fs"

export interface Family {
  readonly name: string
  /** In the order of their first use. */
  readonly used: ReadonlyArray<string>
  readonly unused: ReadonlyArray<string>
}

/** The names in a line, such as `model.layers.[0-11]. mlp.up_proj.weight mlp.down_proj.weight`. */
const namesIn = (line: string): ReadonlyArray<string> => {
  const [, prefix = "", from, to, suffixes = ""] = /^(.*)\[(\d+)-(\d+)\]\. (.*)$/.exec(line) ?? []
  if (from === undefined) return [line]
  const numbers = Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i)
  return numbers.flatMap((number) => suffixes.split(" ").map((suffix) => `${prefix}${number}.${suffix}`))
}

const familyOf = (text: string): Family => {
  const [title = "", ...lines] = text.trim().split("\n")
  const namesOf = (lines: ReadonlyArray<string>) => lines.flatMap(namesIn)
  return {
    name: title.split(" ")[0] ?? "",
    used: namesOf(lines.filter((line) => !line.startsWith("- "))),
    unused: namesOf(lines.filter((line) => line.startsWith("- ")).map((line) => line.slice(2)))
  }
}

const parse = (text: string): ReadonlyArray<Family> =>
  text
    .split(/^= /m)
    .slice(1)
    .map(familyOf)

export const families = parse(readFileSync(new URL("families.txt", import.meta.url), "utf8"))

/** The module of a tensor. Modules that do not depend on each other are one: query, key and value, or embeddings. */
const moduleOf = (name: string): string =>
  name
    .replace(/\.(weight|bias|running_mean|running_var|in_proj_weight|in_proj_bias)$/, "")
    .replace(/\.parametrizations\.weight\.original[01]$/, "")
    .replace(/\.(query|key|value|[qkv]_(proj|lin|norm)|(query|key|value)_(proj|global|layernorm))$/, ".qkv")
    .replace(
      /\.(\w*(word|token|type|position|pos|class|segment|cls|distillation|register)\w*_(emb\w*|tokens?))$/,
      ".embedding"
    )
    .replace(/\.(emb\w*_tokens|w[tp]e|embed_positions|patch_embedding\w*(\.projection)?)$/, ".embedding")
    .replace(/^(logit_scale|text_projection|visual_projection).*$/, "scale")

/**
 * What a pass reads before another tower on which it does not depend: the token embeddings of a language model, which are
 * used after the projector, and the text tower of AltCLIP.
 */
const isReadAhead = (family: Family) => {
  const hasTowers = family.used.some((name) => /vision|visual|image|audio_tower/.test(name))
  const pattern = family.name.startsWith("AltCLIP")
    ? /^text_model\./
    : /^((language_model|text_model|model)\.)+(decoder\.)?embed_tokens\.weight$/
  return (name: string): boolean => hasTowers && pattern.test(name)
}

/** Tensors in a later chunk than one that the forward pass reads after them. */
export const inversions = (family: Family, chunks: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const readAhead = isReadAhead(family)
  const firstUse = new Map<string, number>()
  for (const [i, name] of family.used.entries()) {
    if (!firstUse.has(moduleOf(name))) firstUse.set(moduleOf(name), i)
  }
  const found: Array<string> = []
  let latest: readonly [number, string] = [-1, ""]
  for (const tensors of chunks) {
    const uses = tensors.flatMap((name) => {
      const at = firstUse.get(moduleOf(name))
      return at === undefined || readAhead(name) ? [] : [[at, name] as const]
    })
    for (const [at, name] of uses) if (at < latest[0]) found.push(`${name} after ${latest[1]}`)
    for (const use of uses) if (use[0] > latest[0]) latest = use
  }
  return found
}
