/**
 * Groups of tensors, for the parameter names of real models in the libraries of Hugging Face.
 */
import { describe, expect, it } from "@effect/vitest"
import { sort } from "../../../src/weights/modelChunks/forwardOrder.js"
import { byLayer, byName, bySize } from "../../../src/weights/modelChunks/grouping.js"
import { bert, gpt2, llama, t5 } from "../../support/modelNames.js"

const sorted = (names: ReadonlyArray<string>) => sort(names.map((name) => ({ name })))

/** In the order of a file, which does not depend on layers. */
const shuffled = (names: ReadonlyArray<string>) => [...names].sort()

const chunks = (names: ReadonlyArray<string>) => byLayer(sorted(shuffled(names)))?.map(({ name }) => name)

const tensorsOf = (names: ReadonlyArray<string>, chunk: string) =>
  byLayer(sorted(shuffled(names)))?.find(({ name }) => name === chunk)?.tensors.map(({ name }) => name)

const layers = (count: number, label = "") => Array.from({ length: count }, (_, i) => `${label}layer_${i}`)

describe("byLayer", () => {
  it("splits BERT into embeddings, layers, and pooler and training heads as head", () => {
    expect(chunks(bert(12))).toEqual(["embeddings", ...layers(12), "head"])
    expect(tensorsOf(bert(12), "embeddings")).toEqual([
      "bert.embeddings.LayerNorm.bias",
      "bert.embeddings.LayerNorm.weight",
      "bert.embeddings.position_embeddings.weight",
      "bert.embeddings.position_ids",
      "bert.embeddings.token_type_embeddings.weight",
      "bert.embeddings.word_embeddings.weight"
    ])
    expect(tensorsOf(bert(12), "layer_11")).toHaveLength(16)
    expect(tensorsOf(bert(12), "head")).toContain("cls.predictions.decoder.weight")
    expect(tensorsOf(bert(12), "head")).toContain("bert.pooler.dense.bias")
    expect(chunks(bert(2).map((name) => name.replace(/^bert\./, "")))).toEqual(["embeddings", ...layers(2), "head"])
  })

  it("splits GPT-2 into embeddings, layers, and the last norm as head, with and without a prefix", () => {
    expect(chunks(gpt2(12))).toEqual(["embeddings", ...layers(12), "head"])
    expect(tensorsOf(gpt2(12), "embeddings")).toEqual(["transformer.wte.weight", "transformer.wpe.weight"])
    expect(tensorsOf(gpt2(12), "head")).toEqual(["transformer.ln_f.bias", "transformer.ln_f.weight", "lm_head.weight"])
    expect(chunks(gpt2(12).map((name) => name.replace("transformer.", "")))).toEqual([
      "embeddings",
      ...layers(12),
      "head"
    ])
  })

  it("splits Llama into embeddings, layers by number, and norm and head", () => {
    expect(chunks(llama(32))).toEqual(["embeddings", ...layers(32), "head"])
    expect(tensorsOf(llama(32), "embeddings")).toEqual(["model.embed_tokens.weight"])
    expect(tensorsOf(llama(32), "layer_31")).toEqual([
      "model.layers.31.input_layernorm.weight",
      "model.layers.31.mlp.down_proj.weight",
      "model.layers.31.mlp.gate_proj.weight",
      "model.layers.31.mlp.up_proj.weight",
      "model.layers.31.post_attention_layernorm.weight",
      "model.layers.31.self_attn.k_proj.weight",
      "model.layers.31.self_attn.o_proj.weight",
      "model.layers.31.self_attn.q_proj.weight",
      "model.layers.31.self_attn.rotary_emb.inv_freq",
      "model.layers.31.self_attn.v_proj.weight"
    ])
    expect(tensorsOf(llama(32), "head")).toEqual(["model.norm.weight", "lm_head.weight"])
  })

  it("splits T5 into embeddings, encoder layers, encoder norm, decoder layers, and head", () => {
    expect(chunks(t5(6))).toEqual([
      "embeddings",
      ...layers(6, "encoder_"),
      "encoder_norm",
      ...layers(6, "decoder_"),
      "head"
    ])
    expect(tensorsOf(t5(6), "embeddings")).toEqual([
      "decoder.embed_tokens.weight",
      "encoder.embed_tokens.weight",
      "shared.weight"
    ])
    expect(tensorsOf(t5(6), "encoder_layer_0")).toContain(
      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    expect(tensorsOf(t5(6), "decoder_layer_5")).toContain("decoder.block.5.layer.2.DenseReluDense.wo.weight")
    expect(tensorsOf(t5(6), "encoder_norm")).toEqual(["encoder.final_layer_norm.weight"])
    expect(tensorsOf(t5(6), "head")).toEqual(["decoder.final_layer_norm.weight", "lm_head.weight"])
    // The encoder alone is one stack.
    const encoder = t5(3).filter((name) => !/^(decoder|lm_head)/.test(name))
    expect(chunks(encoder)).toEqual(["embeddings", ...layers(3), "head"])
  })

  it("names the stacks of one module by the segments in which they differ", () => {
    const bart = ["encoder", "decoder"].flatMap((side) => [
      `model.${side}.embed_positions.weight`,
      `model.${side}.layers.0.fc1.weight`,
      `model.${side}.layers.1.fc1.weight`
    ])
    expect(chunks([...bart, "model.shared.weight", "lm_head.weight"])).toEqual([
      "embeddings",
      "encoder_layer_0",
      "encoder_layer_1",
      "decoder_embeddings",
      "decoder_layer_0",
      "decoder_layer_1",
      "head"
    ])
    expect(chunks(["a.layers.0.x", "a.b.layers.0.x"])).toEqual(["layer_0", "b_layer_0"])
  })

  it("returns undefined for names without layers", () => {
    expect(chunks(["conv1.weight", "fc.bias", "layer.weight", "layers.x.0"])).toBeUndefined()
    expect(chunks([])).toBeUndefined()
  })
})

describe("byName and bySize", () => {
  it("byName groups by the function, in the order of the forward pass", () => {
    const groups = byName(sorted(shuffled(bert(4))), (name) => {
      const layer = /layer\.(\d+)/.exec(name)?.[1]
      return layer === undefined ? name.includes("embeddings") ? "z" : "a" : Number(layer) < 2 ? "y" : "x"
    })
    expect(groups.map(({ name }) => name)).toEqual(["z", "y", "x", "a"])
  })

  it("bySize packs tensors in the order of the forward pass, and larger ones alone", () => {
    const sizes = new Map([["wte.weight", 50], ["h.0.a", 4], ["h.0.b", 4], ["h.1.a", 4], ["h.10.a", 11], ["ln_f", 1]])
    const groups = bySize(sorted([...sizes.keys()].sort()), 10, ({ name }) => sizes.get(name) ?? 0)
    expect(groups.map(({ name, tensors }) => [name, ...tensors.map(({ name }) => name)])).toEqual([
      ["chunk_0", "wte.weight"],
      ["chunk_1", "h.0.a", "h.0.b"],
      ["chunk_2", "h.1.a"],
      ["chunk_3", "h.10.a"],
      ["chunk_4", "ln_f"]
    ])
  })
})
