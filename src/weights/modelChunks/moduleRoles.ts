/**
 * The place of a module among the modules beside it, in the order of the forward pass, by the names that modules have in
 * the libraries of Hugging Face, timm and diffusers.
 */
import type { Norms } from "./layerRoles.js"

/** The places outside of layers. Modules of one place are alike, such as the word and the position embeddings. */
const place = {
  time: 0,
  features: 1,
  featureProjection: 2,
  tokens: 3,
  classToken: 4,
  types: 5,
  positions: 6,
  embeddingNorm: 7,
  embeddingProjection: 8,
  vision: 20,
  audio: 21,
  queries: 22,
  queryTower: 23,
  projector: 24,
  separator: 25,
  /** What is added to the places of embeddings that are used after another tower, with the output of the projector. */
  afterTowers: 23,
  text: 33,
  textProjector: 34,
  prompt: 35,
  fusion: 36,
  encoder: 40,
  body: 41,
  downBlocks: 42,
  midBlock: 43,
  upBlocks: 44,
  layers: 45,
  laterLayers: 46,
  betweenTowers: 48,
  beforeDecoder: 49,
  decoder: 50,
  codec: 51,
  beforeNorm: 54,
  norm: 55,
  afterNorm: 56,
  globalLayers: 57,
  pooler: 60,
  headConvolution: 69,
  head: 70,
  lateHead: 75,
  towerProjection: 80,
  textProjection: 81,
  scale: 90,
  bias: 91
} as const

/** A module that is to be placed among those beside it. */
export interface Module {
  readonly name: string
  /** Whether there are layers in it. */
  readonly isTower: boolean
  readonly siblings: Siblings
}

/** What is known of all modules at one point. */
export interface Siblings {
  readonly names: ReadonlyArray<string>
  /** The names of those that contain layers. */
  readonly towers: ReadonlyArray<string>
  /** Whether a norm beside layers is applied before them. */
  readonly normFirst: boolean
}

/** Numbered modules with such a name are the layers of a stack. Those of a convolutional feature extractor are not. */
const stackName = /^(?!conv)(?:\w+_)?(?:layers?|blocks?|resblocks|stages?|groups|self_attends|features|h|blk|down|up)$/

export const isStackName = (name: string): boolean => stackName.test(name)

/** Whether a list with this name may belong to a stack of layers, or be one. */
export const isNumberedLikeLayers = (name: string): boolean =>
  isStackName(name) || /^(attentions|ffns|convs|patch_emb\w*|layer_?norm\d?|norms?)$/.test(name)

const modality = /vision|visual|image|img|patch|pixel|video|^vpm$|^vit$|audio|speech|acoustic|^apm$/
const isModality = (name: string): boolean => modality.test(name) && !/decoder|emb|proj|_to_/.test(name)

const isLanguage = (name: string): boolean => /text|language|^ll?m$/.test(name)

type Rule = readonly [pattern: RegExp, place: number | ((module: Module) => number | undefined)]

const afterTowers = (at: number) => ({ siblings: { towers } }: Module): number =>
  towers.some(isModality) ? at + place.afterTowers : at

/** A projector is between the tower of one modality and that of another one, or behind the only tower. */
const projector = ({ siblings: { towers } }: Module): number => towers.some(isModality) ? place.projector : place.pooler

/** The projections of two towers into one space are applied last. */
const towerProjection = (module: Module): number =>
  module.siblings.names.includes("text_projection")
    ? module.name.startsWith("text") ? place.textProjection : place.towerProjection
    : projector(module)

const queries = ({ siblings: { names } }: Module): number =>
  names.includes("decoder") ? place.betweenTowers : place.queries

const norm = ({ siblings: { normFirst } }: Module): number => normFirst ? place.embeddingNorm : place.norm

/** A name that tells nothing, such as that of the model, is known by what is beside it. */
const body = ({ name, siblings: { towers } }: Module): number | undefined =>
  towers.every((other) =>
      other === name || isModality(other) || projectors.some(([pattern]) => pattern.test(other)) || other === "decoder"
    )
    ? place.body
    : undefined

/** What is no tower, whether there are layers in it or not. The first pattern that matches decides. */
const parts: ReadonlyArray<Rule> = [
  [/^(logit_scale|temperature)/, place.scale],
  [/^logit_bias/, place.bias],
  // Between the encoder and the decoder of speech synthesis, in an order that the names do not tell.
  [/^(pitch|energy|duration)_/, () => undefined],
  [/^(embed_out|vocab_\w+|embedding_(decoder|proj_layer)|output_embeddings?|class_embed)$/, place.head],
  [/^bbox_/, place.lateHead],
  [/unembed/, place.beforeNorm],
  [/^output_(hyper|layer)|^(?!input_)(\w+_)?linear$/, place.head],
  [/^(final_logits_bias|lm_bias)$/, place.lateHead],
  [/postnet/, place.head],
  [/^conv_head$/, place.headConvolution],
  [/^time_embedding$/, place.time],
  [/^adaln_single$/, place.types],
  [/^caption_projection$/, place.embeddingProjection],
  [/^scale_shift_table$/, place.afterNorm],
  [/^level_embed|refpoint/, place.embeddingProjection],
  [/^embed_(vision|audio)/, projector],
  [/^shared_image_embedding$/, place.features],
  [/(vision|visual|image)_emb/, place.vision],
  [/(^|_)quer(y|ies)(_|$)|^reference_points|^latents?$/, queries],
  [/^embedding_norm$|emb\w*norm_after|^pre_ln$/, place.norm],
  [
    /emb\w*_(norm|ln|layer_?norm)|^layer_?norm_emb|^pre_?(layer_?norm|layrnorm|norm)|norm_pre$|^ln_pre$|^post_conv_/,
    afterTowers(place.embeddingNorm)
  ],
  [/emb\w*_(project|hidden_mapping)|^project_in$|^per_layer_|^altup_proj/, afterTowers(place.embeddingProjection)],
  [/^post_\w*emb/, place.afterNorm],
  [
    /pos(ition\w*|itional)?_?(conv_)?emb|emb\w*_pos|^wpe$|position|rel\w*_(emb|bias)|rotary|^rope/,
    afterTowers(place.positions)
  ],
  [/(type|segment|time)\w*_emb/, afterTowers(place.types)],
  [/^(batch|group)_?norm$/, place.features],
  [/(cls|class|iou|dist\w*|mask\w*|register)_(tokens?|embed\w*)$/, afterTowers(place.classToken)],
  [/^(input|feature|patch)_proj|^bn1$/, place.featureProjection],
  [/stem|embedder|^(conv\d*|conv_in|patch_conv)$|prenet|^feature_(extractor|encoder)$/, place.features],
  [/(^|_)emb|embed|^wte$|^shared$|^w$/, afterTowers(place.tokens)],
  [/head|classif|predict|pred$|^cls$|^sequence_summary$|_qass$|^seq_rel|score|logit|^fc\d*$|^lm_|^bn2$/, place.head],
  [/^(qa|span|start|end)_|_out$|^outputs?$|^dense$|^generator|^pred_|^project_|^proj$|^answer/, place.head],
  [/^final_attn/, place.beforeNorm],
  [/(?<!pre)(^|_|layer|rms|batch|group)norm(_|\d|$)|^ln(_|$)/, norm],
  [/^upscale|^conv_1x1|^downsample$/, place.afterNorm],
  [/pooler|pooling|^pool$|^neck$|^top_(conv|bn)$|^transformation$/, place.pooler],
  [/^mid(_block)?$/, place.midBlock]
]

/** What is between two towers, or behind the only one, and may be a tower itself. */
const projectors: ReadonlyArray<Rule> = [
  [/^(visual|vision|image|audio|text)_projection$/, towerProjection],
  [/^post_quant/, place.beforeDecoder],
  [/q_?former/, place.queryTower],
  [/newline/, place.separator],
  [/^text_to_/, place.textProjector],
  [
    /enc(oder)?_to_dec(oder)?|^quant/,
    ({ siblings: { names } }) => names.includes("decoder") ? place.betweenTowers : place.head
  ],
  [/proj(ect(or|ion))?$|connector|merger|resampler|abstractor|adapt[eo]r|aligner|^mm_proj|^mlp1$/, projector]
]

/** What contains layers. */
const towers: ReadonlyArray<Rule> = [
  [/^backbone/, place.features],
  [/decoder/, place.decoder],
  [/fusion|cross_modal|multi_?modal|^mm_/, place.fusion],
  // The codec of MusicGen decodes what its decoder makes of a text.
  [/^audio_encoder$/, ({ siblings: { names } }) => names.includes("text_encoder") ? place.codec : place.audio],
  [/audio|speech|acoustic|^apm$/, place.audio],
  [modality, place.vision],
  [/prompt/, place.prompt],
  [/text|language|^ll?m$/, place.text],
  [/^global_transformer$/, place.globalLayers],
  [
    /encoder/,
    ({ siblings: { towers } }) => towers.some(isLanguage) && !towers.some(isModality) ? place.vision : place.encoder
  ],
  [/^down(_blocks?)?$/, place.downBlocks],
  [/^up(_blocks?)?$/, place.upBlocks],
  [/^single_transformer_blocks$/, place.laterLayers],
  [stackName, place.layers],
  [/^(transformer|model)$/, place.body],
  [/(?:)/, body]
]

/** What may be a tower, if it is none. */
const details: ReadonlyArray<Rule> = [
  [/^encoder$/, place.encoder],
  [/prompt/, place.prompt],
  [/^(weight|bias)$/, place.head],
  [/^decoder$/, place.lateHead]
]

/** Whether a module is no tower although there may be layers in it, such as those of a head. */
export const isPart = (name: string): boolean => parts.some(([pattern]) => pattern.test(name.toLowerCase()))

/** The place of a module outside of layers; `undefined` if its name does not tell it. */
export const placeOf = (module: Module): number | undefined => {
  const rules = [
    ...parts,
    ...projectors,
    ...(module.isTower ? towers : details)
  ]
  const found = rules.find(([pattern]) => pattern.test(module.name.toLowerCase()))?.[1]
  return typeof found === "function" ? found(module) : found
}

/** The place of layers. */
export const layersPlace = place.layers

/** Whether this is the place of the norm behind the layers. */
export const isLastNorm = (at: number | undefined): boolean => at === place.norm

/** Whether there may be several towers at this place, since they do not depend on each other. */
export const isFree = (at: number): boolean => at < place.queries || at >= place.norm

/** Where norms without a telling name are in a part at this place. */
export const normsOf = (at: number | undefined): Norms =>
  at === undefined || at >= place.norm
    ? "middle"
    : at < place.vision && at !== place.featureProjection
    ? "last"
    : "first"
