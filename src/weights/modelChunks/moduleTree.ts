/**
 * The modules of a model, as the names of its tensors show them.
 */
import { isNumberedLikeLayers, isPart, isStackName } from "./moduleRoles.js"

/** A module: of `bert.pooler.dense.weight` those with the names `bert`, `pooler`, `dense` and `weight`. */
export interface Module<A> {
  readonly name: string
  readonly path: string
  readonly children: Map<string, Module<A>>
  /** Those with the name of the module. */
  readonly tensors: Array<A>
}

export const make = <A extends { readonly name: string }>(tensors: ReadonlyArray<A>): Module<A> => {
  const names = new Set(tensors.map(({ name }) => name))
  const root: Module<A> = { name: "", path: "", children: new Map(), tensors: [] }
  for (const tensor of tensors) {
    let module = root
    for (const name of segmentsOf(ownerOf(tensor.name, names))) {
      let child = module.children.get(name)
      if (child === undefined) {
        child = { name, path: module.path === "" ? name : `${module.path}.${name}`, children: new Map(), tensors: [] }
        module.children.set(name, child)
      }
      module = child
    }
    module.tensors.push(tensor)
  }
  return root
}

/** Older files hold the shared embeddings of T5 and BART three times; all are there for the first use. */
const ownerOf = (name: string, names: ReadonlySet<string>): string => {
  const [, parent = "", copy] = /^(.*\.)?((?:encoder|decoder)\.embed_tokens\.weight)$/.exec(name) ?? []
  return copy !== undefined && names.has(`${parent}shared.weight`) ? `${parent}shared.${copy}` : name
}

/** The `layer1` of a ResNet is the layer 1. */
const segmentsOf = (name: string): ReadonlyArray<string> =>
  name.split(".").flatMap((segment) => /^(layer|stage|block)(\d+)$/.exec(segment)?.slice(1) ?? segment)

export const childrenOf = <A>(module: Module<A>): ReadonlyArray<Module<A>> => [...module.children.values()]

export const allTensors = <A>(module: Module<A>): ReadonlyArray<A> => [
  ...module.tensors,
  ...childrenOf(module).flatMap(allTensors)
]

/** Whether the modules in it are numbered. */
export const isList = <A>({ children }: Module<A>): boolean =>
  children.size > 0 && [...children.keys()].every((name) => /^\d+$/.test(name))

/** Whether it is a list of layers. */
export const isStack = <A>(module: Module<A>): boolean => isStackName(module.name) && isList(module)

/** Whether there are layers in it, other than the details of an embedding or a head. */
export const isTower = <A>(module: Module<A>): boolean =>
  !isPart(module.name) && (isStack(module) || inStep(module).length > 0 || childrenOf(module).some(isTower))

/**
 * The lists in a module that run side by side, number by number: the blocks of a SegFormer with their patch embeddings and
 * norms, or the attentions and MLPs of an XLM.
 */
export const inStep = <A>(module: Module<A>): ReadonlyArray<Module<A>> => {
  const lists = childrenOf(module).filter((child) => isList(child) && isNumberedLikeLayers(child.name))
  const count = Math.max(...lists.map(({ children }) => children.size))
  const found = lists.filter(({ children }) => children.size === count)
  const stacks = lists.filter(({ name }) => isStackName(name))
  return count > 1 && found.length > 1 && stacks.length < 2 && stacks.every((stack) => found.includes(stack))
    ? found
    : []
}

/** The lists in a block of a UNet that run in turn: residual blocks, each with its attention. */
export const blocksOf = <A>(module: Module<A>): ReadonlyArray<Module<A>> =>
  ["resnets", "attentions"].flatMap((name) => module.children.get(name) ?? [])
