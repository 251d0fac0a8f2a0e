/**
 * The names of the parameters of real models, as the libraries of Hugging Face save them.
 */

const weightAndBias = (...modules: ReadonlyArray<string>) =>
  modules.flatMap((module) => [`${module}.weight`, `${module}.bias`])

const repeat = (count: number, layer: (i: number) => ReadonlyArray<string>) =>
  Array.from({ length: count }, (_, i) => layer(i)).flat()

/** `BertForPreTraining`. */
export const bert = (layers: number): ReadonlyArray<string> => [
  "bert.embeddings.position_ids",
  "bert.embeddings.word_embeddings.weight",
  "bert.embeddings.position_embeddings.weight",
  "bert.embeddings.token_type_embeddings.weight",
  ...weightAndBias("bert.embeddings.LayerNorm"),
  ...repeat(layers, (i) =>
    weightAndBias(
      ...[
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm"
      ].map((module) => `bert.encoder.layer.${i}.${module}`)
    )),
  ...weightAndBias("bert.pooler.dense"),
  "cls.predictions.bias",
  ...weightAndBias("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
  ...weightAndBias("cls.predictions.decoder", "cls.seq_relationship")
]

/** `GPT2LMHeadModel`. */
export const gpt2 = (layers: number): ReadonlyArray<string> => [
  "transformer.wte.weight",
  "transformer.wpe.weight",
  ...repeat(layers, (i) => [
    `transformer.h.${i}.attn.bias`,
    ...weightAndBias(
      ...["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"].map((module) =>
        `transformer.h.${i}.${module}`
      )
    )
  ]),
  ...weightAndBias("transformer.ln_f"),
  "lm_head.weight"
]

/** `LlamaForCausalLM`. */
export const llama = (layers: number): ReadonlyArray<string> => [
  "model.embed_tokens.weight",
  ...repeat(layers, (i) =>
    [
      "self_attn.q_proj.weight",
      "self_attn.k_proj.weight",
      "self_attn.v_proj.weight",
      "self_attn.o_proj.weight",
      "self_attn.rotary_emb.inv_freq",
      "mlp.gate_proj.weight",
      "mlp.up_proj.weight",
      "mlp.down_proj.weight",
      "input_layernorm.weight",
      "post_attention_layernorm.weight"
    ].map((name) => `model.layers.${i}.${name}`)),
  "model.norm.weight",
  "lm_head.weight"
]

/** `T5ForConditionalGeneration`. */
export const t5 = (layers: number): ReadonlyArray<string> => {
  const attention = (path: string, kind: string, first: boolean) => [
    ...["q", "k", "v", "o"].map((part) => `${path}.${kind}.${part}.weight`),
    ...(first ? [`${path}.${kind}.relative_attention_bias.weight`] : []),
    `${path}.layer_norm.weight`
  ]
  const dense = (path: string) => [
    `${path}.DenseReluDense.wi.weight`,
    `${path}.DenseReluDense.wo.weight`,
    `${path}.layer_norm.weight`
  ]
  return [
    "shared.weight",
    "encoder.embed_tokens.weight",
    ...repeat(layers, (i) => [
      ...attention(`encoder.block.${i}.layer.0`, "SelfAttention", i === 0),
      ...dense(`encoder.block.${i}.layer.1`)
    ]),
    "encoder.final_layer_norm.weight",
    "decoder.embed_tokens.weight",
    ...repeat(layers, (i) => [
      ...attention(`decoder.block.${i}.layer.0`, "SelfAttention", i === 0),
      ...attention(`decoder.block.${i}.layer.1`, "EncDecAttention", false),
      ...dense(`decoder.block.${i}.layer.2`)
    ]),
    "decoder.final_layer_norm.weight",
    "lm_head.weight"
  ]
}
