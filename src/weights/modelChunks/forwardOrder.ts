/**
 * Sorts tensors in the order of the forward pass, by their names: module by module, from the outside in. The places of
 * modules are in `moduleRoles`, and those within a layer in `layerRoles`.
 */
import * as Either from "effect/Either"
import type { InvalidOption } from "../internal/options.js"
import { quoted, quotedList } from "../internal/text.js"
import { type Norms, placeInLayer } from "./layerRoles.js"
import { isFree, isLastNorm, layersPlace, normsOf, placeOf, type Siblings } from "./moduleRoles.js"
import * as Tree from "./moduleTree.js"
import { compareNatural } from "./naturalOrder.js"

interface Named {
  readonly name: string
}

/** Tensors in the order of the forward pass. */
export interface Sorted<A> {
  readonly tensors: ReadonlyArray<Placed<A>>
  readonly undecided: ReadonlyArray<Undecided<A>>
}

export interface Placed<A> {
  readonly tensor: A
  /** Its layer, or the part of the model outside of layers that it belongs to. */
  readonly part: string
  readonly layer?: Layer | undefined
}

/** A layer: layer `0` of the stack `bert.encoder`. */
interface Layer {
  readonly stack: string
  readonly number: string
}

/** Modules whose names do not tell their places among those beside them. */
interface Undecided<A> {
  readonly modules: ReadonlyArray<string>
  /** The module that contains them, and all tensors in it. */
  readonly parent: string
  readonly tensors: ReadonlyArray<A>
}

/** Sorts by the names alone. */
export const sort = <A extends Named>(tensors: ReadonlyArray<A>): Sorted<A> =>
  sortTower(Tree.make(tensors), { norms: "middle", normFirst: isNormFirst(tensors) })

/** Sorts by a list of modules, and by the names within each of them. */
export const sortBy = <A extends Named>(
  tensors: ReadonlyArray<A>,
  order: ReadonlyArray<string>
): Either.Either<Sorted<A>, InvalidOption> => {
  const fail = (reason: string) => Either.left({ option: "order", reason })
  const groups = new Map(order.map((module): [string, Array<A>] => [module, []]))
  const unused = new Set(order)
  const left: Array<string> = []
  for (const tensor of tensors) {
    const modules = modulesOf(tensor.name).filter((module) => groups.has(module))
    for (const module of modules) unused.delete(module)
    const group = groups.get(modules[0] ?? "")
    if (group === undefined) left.push(tensor.name)
    else group.push(tensor)
  }
  const [none] = unused
  if (none !== undefined) return fail(`no tensor is ${quoted(none)} or in it`)
  if (left.length > 0) return fail(`it must name a module for each tensor (none for ${quotedList(left)})`)
  return Either.right(concat([...groups.values()].map(sort)))
}

/** A tensor and the modules that contain it, from the inside out. */
const modulesOf = (name: string): ReadonlyArray<string> => {
  const segments = name.split(".")
  return segments.map((_, i) => segments.slice(0, segments.length - i).join("."))
}

/** Why the order of these chunks is unknown. `undefined` if the names of the tensors tell it. */
export const problem = <A extends Named>(
  { tensors, undecided }: Sorted<A>,
  chunks: ReadonlyArray<{ readonly tensors: ReadonlyArray<A> }>
): string | undefined => {
  if (undecided.length === 0) return undefined
  const chunkOf = new Map(chunks.flatMap((chunk, i) => chunk.tensors.map((tensor) => [tensor, i] as const)))
  const found = undecided.find(({ tensors }) => new Set(tensors.map((tensor) => chunkOf.get(tensor))).size > 1)
  if (found === undefined) return undefined
  const modules = [...new Set(tensors.map(({ tensor }) => moduleBeside(found.parent, tensor.name)))]
  return `the names of the tensors do not tell the place of ${quotedList(found.modules)} in the forward pass; ` +
    `set order to the modules in the order of the forward pass (they are ${quotedList(modules)})`
}

/** The module of a tensor that is in `parent`, or beside it, or beside a module that contains it. */
const moduleBeside = (parent: string, tensor: string): string => {
  const [path, segments] = [parent === "" ? [] : parent.split("."), tensor.split(".")]
  const common = path.findIndex((segment, i) => segment !== segments[i])
  return segments.slice(0, 1 + (common === -1 ? path.length : common)).join(".")
}

const concat = <A>(parts: ReadonlyArray<Sorted<A>>): Sorted<A> => ({
  tensors: parts.flatMap(({ tensors }) => tensors),
  undecided: parts.flatMap(({ undecided }) => undecided)
})

const decided = <A>(tensors: ReadonlyArray<Placed<A>>): Sorted<A> => ({ tensors, undecided: [] })

/** What is known from outside. */
interface Surroundings {
  readonly norms: Norms
  readonly normFirst: boolean
}

/** One module, or several that run side by side. */
interface Step<A> {
  readonly name: string
  readonly place: number | undefined
  readonly isTower: boolean
  readonly modules: ReadonlyArray<Tree.Module<A>>
}

/** A module with layers in it, or the whole model. */
const sortTower = <A extends Named>(module: Tree.Module<A>, outer: Surroundings): Sorted<A> => {
  const children = Tree.childrenOf(module)
  if (Tree.isList(module)) return concat(sortModules(children, outer.norms).map((child) => sortTower(child, outer)))
  const normFirst = outer.normFirst || hasPostNorm(module)
  const steps = stepsOf(module, normFirst)
  const inner = hasLastNorm(module, steps) ? { ...outer, norms: "first" as const } : outer
  const inOrder = sortByPlace(steps, inner.norms)
  return concat([
    { tensors: module.tensors.map((tensor) => ({ tensor, part: module.path })), undecided: undecidedOf(module, steps) },
    ...inOrder.map((step) => sortStep(module, step, inner))
  ])
}

const sortStep = <A extends Named>(parent: Tree.Module<A>, step: Step<A>, inner: Surroundings): Sorted<A> => {
  const { isTower, modules, place } = step
  const isLayers = modules.length > 1 || modules.every(Tree.isStack)
  if (!isTower) return decided(modules.flatMap((part) => placed(sortPart(part, normsOf(place)), part.path)))
  if (!isLayers) return concat(modules.map((tower) => sortTower(tower, inner)))
  const stack = /^(layers?|h|blocks?|stages?)$/.test(step.name) ? parent.path : `${parent.path}.${step.name}`
  return decided(sortLayers(stack.replace(/^\./, ""), modules, inner.norms))
}

const sortLayers = <A extends Named>(
  stack: string,
  lists: ReadonlyArray<Tree.Module<A>>,
  norms: Norms
): ReadonlyArray<Placed<A>> => {
  return inTurn(lists, norms).flatMap(([number, tensors]) => placed(tensors, `${stack} ${number}`, { stack, number }))
}

/** The tensors of lists that run side by side, number by number. */
const inTurn = <A extends Named>(
  lists: ReadonlyArray<Tree.Module<A>>,
  norms: Norms
): ReadonlyArray<readonly [number: string, tensors: ReadonlyArray<A>]> => {
  const numbers = [...new Set(lists.flatMap(({ children }) => [...children.keys()]))].sort(compareNatural)
  const inOrder = sortModules(lists, "last")
  return numbers.map((number) => [
    number,
    inOrder.flatMap(({ children, name }) => {
      const layer = children.get(number)
      return layer === undefined ? [] : sortPart(layer, normsIn(name, norms))
    })
  ])
}

/** A layer or another part of a model, in which an unknown name is no reason to give up. */
const sortPart = <A extends Named>(part: Tree.Module<A>, outer: Norms): ReadonlyArray<A> => {
  const norms = normsIn(part.name, outer)
  const blocks = Tree.blocksOf(part)
  const paired = part.children.has("conv2") || part.children.has("attn2")
    ? "paired"
    : hasNormInAttention(part)
    ? "middle"
    : norms
  const children = sortModules(Tree.childrenOf(part), paired)
  const tensorsOf = (child: Tree.Module<A>): ReadonlyArray<A> => {
    if (!blocks.includes(child)) return sortPart(child, norms)
    return child === blocks[0] ? inTurn(blocks, norms).flatMap(([, tensors]) => tensors) : []
  }
  return [...part.tensors, ...children.flatMap(tensorsOf)]
}

const placed = <A>(tensors: ReadonlyArray<A>, part: string, layer?: Layer): ReadonlyArray<Placed<A>> =>
  tensors.map((tensor) => ({ tensor, part, layer }))

/** An embedding ends with its norm. */
const normsIn = (name: string, outer: Norms): Norms => /emb/.test(name) ? "last" : outer

/** In the layers of ESM, the first norm is within the attention, and the one beside it is that of the MLP. */
const hasNormInAttention = <A>({ children }: Tree.Module<A>): boolean =>
  ["LayerNorm", "ln"].some((name) => children.get("attention")?.children.has(name))

const sortModules = <A>(
  modules: ReadonlyArray<Tree.Module<A>>,
  norms: Norms | "paired"
): ReadonlyArray<Tree.Module<A>> =>
  sortByPlace(modules.map((module) => ({ name: module.name, module, place: 0 })), norms).map(({ module }) => module)

/** Sorts what is side by side: by place, then by its place in a layer, then by name. */
const sortByPlace = <T extends { readonly name: string; readonly place: number | undefined }>(
  items: ReadonlyArray<T>,
  norms: Norms | "paired"
): ReadonlyArray<T> =>
  items
    .map((item) => ({ item, places: [item.place ?? Infinity, placeInLayer(item.name, norms)] as const }))
    .sort(({ item: a, places: [a1, a2] }, { item: b, places: [b1, b2] }) =>
      (a1 === b1 ? 0 : a1 - b1) || a2 - b2 || compareNatural(a.name, b.name)
    )
    .map(({ item }) => item)

const stepsOf = <A>(module: Tree.Module<A>, normFirst: boolean): ReadonlyArray<Step<A>> => {
  const children = Tree.childrenOf(module)
  const together = Tree.inStep(module)
  const siblings: Siblings = {
    names: children.map(({ name }) => name),
    towers: children.filter(Tree.isTower).map(({ name }) => name),
    normFirst
  }
  const alone = children.filter((child) => !together.includes(child)).map((child): Step<A> => {
    const isTower = Tree.isTower(child)
    return { name: child.name, isTower, place: placeOf({ name: child.name, isTower, siblings }), modules: [child] }
  })
  return together.length === 0
    ? alone
    : [...alone, { name: "layers", isTower: true, place: layersPlace, modules: together }]
}

/** Those whose place is not known, or is that of another tower too. */
const undecidedOf = <A>(parent: Tree.Module<A>, steps: ReadonlyArray<Step<A>>): ReadonlyArray<Undecided<A>> => {
  const isDecided = ({ isTower, place }: Step<A>) =>
    place !== undefined &&
    (!isTower || isFree(place) || steps.filter((other) => other.isTower && other.place === place).length === 1)
  const isNumbered = new Set(steps.map(({ name }) => name.replace(/\d+$/, ""))).size === 1
  const modules = isNumbered ? [] : steps.filter((step) => !isDecided(step)).flatMap(({ modules }) => modules)
  return modules.length === 0
    ? []
    : [{ modules: modules.map(({ path }) => path), parent: parent.path, tensors: Tree.allTensors(parent) }]
}

/** Whether there is a norm behind the layers, as in models that apply those within a layer first. DETR has one too. */
const hasLastNorm = <A>(module: Tree.Module<A>, steps: ReadonlyArray<Step<A>>): boolean =>
  steps.some(({ name, place }) => isLastNorm(place) && !(module.name === "decoder" && name === "layernorm"))

/** Whether the layers are those of BERT, which has no norm behind them: one beside them is applied before. */
const hasPostNorm = <A>(module: Tree.Module<A>): boolean =>
  /^(qformer|wrapped_encoder)$/.test(module.name) ||
  Tree.childrenOf(module).some((stack) =>
    Tree.isStack(stack) &&
    Tree.childrenOf(stack).some(({ children }) => children.get("output")?.children.has("LayerNorm"))
  )

/** Whether a speech model has its norm before the layers: the one whose first convolution alone has a norm. */
const isNormFirst = (tensors: ReadonlyArray<Named>): boolean => {
  const some = (pattern: RegExp) => tensors.some(({ name }) => pattern.test(name))
  return some(/pos_conv_embed\.layers\./) ||
    some(/conv_layers\.0\.layer_norm/) && !some(/conv_layers\.1\.layer_norm/)
}
