/**
 * The order of tensors by their names, held against the order in which the forward passes of published models read them.
 */
import { describe, expect, it } from "@effect/vitest"
import { Either } from "effect"
import { problem, sort, sortBy, type Sorted } from "../../../src/weights/modelChunks/forwardOrder.js"
import { byLayer, byName, bySize } from "../../../src/weights/modelChunks/grouping.js"
import { families, inversions } from "../../support/forwardOrder/families.js"

interface Named {
  readonly name: string
}

const named = (names: ReadonlyArray<string>): ReadonlyArray<Named> => names.map((name) => ({ name }))

/** Sorts what is in the order of a file, which is that of the names. */
const sorted = (names: ReadonlyArray<string>) => sort(named([...names].sort()))

const namesIn = ({ tensors }: { readonly tensors: ReadonlyArray<Named> }) => tensors.map(({ name }) => name)

const namesOf = ({ tensors }: Sorted<Named>) => tensors.map(({ tensor: { name } }) => name)

/** What the names leave open, if each tensor were a chunk. */
const problemOf = (names: ReadonlyArray<string>) => {
  const order = sorted(names)
  return problem(order, byName(order, (name) => name))
}

/**
 * Families of which the names do not tell the order within a layer, or within a part such as the neck of a SAM. It is
 * right from layer to layer.
 */
const unknownInside = new Set([
  "rwkv",
  "segformer",
  "dpt",
  "sam",
  "speecht5",
  "idefics2",
  "BitForImageClassification",
  "ConvBertModel",
  "CpmAntForCausalLM",
  "DiffLlamaForCausalLM",
  "FNetForPreTraining",
  "FunnelForPreTraining",
  "MobileBertForPreTraining",
  "MobileNetV2ForImageClassification",
  "OpenAIGPTLMHeadModel",
  "PoolFormerForImageClassification",
  "PvtForImageClassification",
  "WavLMForCTC",
  "flux",
  "sd3",
  "pixart",
  "XLMRobertaXLForMaskedLM",
  "got_ocr2",
  "got_ocr2-renamed"
])

describe("the order by the names of published models", () => {
  it("is that of the forward pass for the chunks of more than 150 families", () => {
    expect(families.length).toBeGreaterThan(180)
    for (const family of families) {
      const names = [...family.used, ...family.unused]
      const order = sorted(names)
      const groups = byLayer(order) ?? []
      expect(problem(order, groups), family.name).toBeUndefined()
      const chunked = groups.flatMap(namesIn)
      expect(chunked.sort(), family.name).toEqual([...names].sort())
      expect(inversions(family, groups.map(namesIn)), family.name).toEqual([])
    }
  })

  it("is that of the forward pass for each module, within layers too", () => {
    const known = families.filter(({ name }) => !unknownInside.has(name))
    expect(known.length).toBeGreaterThan(160)
    for (const family of known) {
      const order = sorted([...family.used, ...family.unused])
      expect(inversions(family, byName(order, (name) => name).map(namesIn)), family.name).toEqual([])
      expect(inversions(family, bySize(order, 3, () => 1).map(namesIn)), family.name).toEqual([])
    }
  })
})

describe("the order by the names of other libraries", () => {
  const models: Readonly<Record<string, ReadonlyArray<string>>> = {
    "timm ResNet": [
      "conv1.w",
      "bn1.w",
      "layer1.0.conv1.w",
      "layer1.0.bn1.w",
      "layer1.0.conv2.w",
      "layer4.0.conv1.w",
      "fc.w"
    ],
    "timm ViT": [
      "patch_embed.proj.w",
      "cls_token",
      "pos_embed",
      "blocks.2.norm1.w",
      "blocks.10.norm1.w",
      "norm.w",
      "head.w"
    ],
    "timm EfficientNet": ["conv_stem.w", "bn1.w", "blocks.0.0.conv_dw.w", "conv_head.w", "bn2.w", "classifier.w"],
    "torchvision VGG": ["features.2.w", "features.10.w", "classifier.0.w", "classifier.3.w"],
    "diffusers UNet": [
      "time_embedding.linear_1.w",
      "conv_in.w",
      "down_blocks.0.resnets.0.conv1.w",
      "down_blocks.1.resnets.0.conv1.w",
      "mid_block.resnets.0.conv1.w",
      "up_blocks.0.resnets.0.conv1.w",
      "conv_norm_out.w",
      "conv_out.w"
    ],
    "diffusers VAE": [
      "encoder.down_blocks.0.w",
      "encoder.mid_block.w",
      "quant_conv.w",
      "decoder.mid_block.w",
      "decoder.up_blocks.0.w"
    ],
    "Flux": [
      "x_embedder.w",
      "transformer_blocks.18.w",
      "single_transformer_blocks.2.w",
      "norm_out.linear.w",
      "proj_out.w"
    ],
    "Llama of Meta": ["tok_embeddings.w", "layers.2.attention.wq.w", "layers.10.attention.wq.w", "norm.w", "output.w"],
    "Llama in GGUF": ["token_embd.w", "blk.2.attn_norm.w", "blk.10.attn_norm.w", "output_norm.w", "output.w"],
    "CLIP of OpenAI": [
      "visual.conv1.w",
      "visual.transformer.resblocks.0.ln_1.w",
      "visual.ln_post.w",
      "visual.proj",
      "token_embedding.w",
      "transformer.resblocks.0.ln_1.w",
      "ln_final.w",
      "text_projection",
      "logit_scale"
    ],
    "InternVL": [
      "vision_model.encoder.layers.0.w",
      "mlp1.0.w",
      "mlp1.3.w",
      "language_model.model.layers.0.w",
      "language_model.output.w"
    ],
    "MiniCPM-V": [
      "vpm.encoder.layers.0.w",
      "resampler.query",
      "llm.model.embed_tokens.w",
      "llm.model.layers.0.w",
      "llm.lm_head.w"
    ],
    "ChatGLM": [
      "transformer.embedding.word_embeddings.w",
      "transformer.encoder.layers.0.w",
      "transformer.encoder.final_layernorm.w",
      "transformer.output_layer.w"
    ],
    "Sentence Transformers": [
      "0.auto_model.embeddings.word_embeddings.w",
      "0.auto_model.encoder.layer.0.w",
      "2.linear.w"
    ],
    "an MLP": ["fc1.w", "fc2.w", "fc10.w"],
    "linear layers": ["linear1.w", "linear2.w", "linear10.w"],
    "Sequential": ["0.w", "2.w", "10.w"],
    "an autoencoder": ["encoder.w", "decoder.w"],
    "LoRA": ["base_model.model.model.layers.9.q_proj.lora_A.w", "base_model.model.model.layers.10.q_proj.lora_A.w"]
  }
  for (const [what, names] of Object.entries(models)) {
    it(`is that of the forward pass for ${what}`, () => {
      expect(namesOf(sorted(names))).toEqual(names)
      expect(problemOf(names)).toBeUndefined()
    })
  }
})

describe("names that do not tell the order", () => {
  it("are unknown modules, and stacks of layers of which none is known to be the first", () => {
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
      [["alpha.w", "beta.w"], "\"alpha\", \"beta\""],
      [["foo.layers.0.w", "bar.layers.0.w"], "\"bar\", \"foo\""],
      [["model.layers.0.w", "model.x_layers.0.w", "model.norm.w"], "\"model.layers\", \"model.x_layers\""],
      [["model.layers.0.w", "model.frobnicate.w", "model.norm.w", "lm_head.w"], "\"model.frobnicate\""]
    ]
    for (const [names, modules] of cases) {
      expect(problemOf(names)).toContain(`do not tell the place of ${modules} in the forward pass`)
      const order = sorted(names)
      expect(problem(order, byName(order, () => "all"))).toBeUndefined()
    }
    expect(problemOf(["model.layers.0.w", "model.frobnicate.w", "lm_head.w"])).toContain(
      "(they are \"model.layers\", \"model.frobnicate\", \"lm_head\")"
    )
  })

  it("make no difference within a layer, nor under names that do", () => {
    expect(problemOf(["model.layers.0.foo.w", "model.layers.0.bar.w", "lm_head.w"])).toBeUndefined()
    expect(problemOf(["lm_head.foo.w", "lm_head.bar.w", "model.layers.0.w"])).toBeUndefined()
  })

  it("are put in the order of a list of modules", () => {
    const names = [
      "bar.layers.0.w",
      "bar.layers.10.w",
      "bar.layers.2.w",
      "bar.norm.w",
      "foo.layers.0.w",
      "head.w",
      "xyz"
    ]
    const order = Either.getOrThrow(sortBy(named(names), ["xyz", "foo", "bar.norm", "bar", "head"]))
    expect(namesOf(order)).toEqual([
      "xyz",
      "foo.layers.0.w",
      "bar.norm.w",
      "bar.layers.0.w",
      "bar.layers.2.w",
      "bar.layers.10.w",
      "head.w"
    ])
    expect(byLayer(order)?.map(({ name }) => name)).toEqual([
      "embeddings",
      "foo_layer_0",
      "bar_embeddings",
      "bar_layer_0",
      "bar_layer_2",
      "bar_layer_10",
      "head"
    ])
    // A layer that is interrupted is two chunks.
    const interrupted = Either.getOrThrow(sortBy(named(["h.0.a", "h.0.b", "h.1.a"]), ["h.0.b", "h.1", "h.0"]))
    expect(byLayer(interrupted)?.map(({ name }) => name)).toEqual(["layer_0", "layer_1", "layer_0_2"])
    expect(sortBy(named(names), ["foo", "bar", "head"])).toMatchObject({
      left: { option: "order", reason: "it must name a module for each tensor (none for \"xyz\")" }
    })
    expect(sortBy(named(names), ["ba"])).toMatchObject({ left: { reason: "no tensor is \"ba\" or in it" } })
  })
})
