/**
 * The place of a module within a layer, or within another part of a model, by its name. Names that are not known stand in
 * the middle, in natural order: they never lead out of their layer.
 */

/** Where the norms without a telling name are: before attention and MLP, each behind its own, or at the end of the part. */
export type Norms = "first" | "middle" | "last"

/** What a module does in a layer, in the order of the forward pass. */
const roles = [
  "tokens",
  "class token",
  "types",
  "positions",
  "input",
  "convolutions",
  "norm before attention",
  "norm first",
  "attention",
  "query",
  "query norm",
  "second query",
  "key",
  "key norm",
  "value",
  "dense",
  "position bias",
  "attention output",
  "attention scale",
  "first norm after attention",
  "norm after attention",
  "norm in the middle",
  "norm before cross-attention",
  "cross-attention",
  "norm after cross-attention",
  "first projection",
  "step 1",
  "after step 1",
  "before step 2",
  "step 2",
  "after step 2",
  "before step 3",
  "step 3",
  "after step 3",
  "unknown",
  "convolution",
  "batch norm",
  "norm before MLP",
  "gate",
  "up",
  "MLP",
  "shared experts",
  "state",
  "norm before output",
  "output",
  "later output",
  "fusion",
  "MLP scale",
  "norm last",
  "norm after MLP",
  "sampling",
  "own tensors",
  "correction"
] as const

type Role = (typeof roles)[number]

type Rule = readonly [pattern: RegExp, role: Role | (Readonly<Record<Norms, Role>> & { readonly paired?: Role })]

/** The role of a module by its name: that of the first pattern that matches. */
const rules: ReadonlyArray<Rule> = [
  [/bias_table|relative_att|position_index|^rel_/, "position bias"],
  [/^probe$|(word|tok|token|tokens|patch|input|inputs)_?emb|emb\w*_(tokens|in)$|^wte$/, "tokens"],
  [/(cls|class|dist\w*|mask|register)_(tokens?|emb\w*)$/, "class token"],
  [/(type|segment)\w*_emb/, "types"],
  [/pos\w*_?emb|emb\w*_pos|^wpe$/, "positions"],

  [/^(q|query)_?(a_|b_)?(layer_?norm|norm|ln)/, "query norm"],
  [/^(k|key|kv)_?(a_|b_)?(layer_?norm|norm|ln)/, "key norm"],
  [/sub_norm$|^ffn_layernorm$|^inner_attn_ln$/, "norm before output"],
  [/^(self_attn|attention)_layer_?norm$/, {
    first: "norm before attention",
    middle: "norm after attention",
    last: "norm after attention"
  }],
  [/^sa_layer_norm/, "norm after attention"],
  [/^(encoder_attn|cross_attn|encoder_attention|cross_attention)_(layer_?norm|norm|ln)$/, {
    first: "norm before cross-attention",
    middle: "norm after cross-attention",
    last: "norm after cross-attention"
  }],
  [/^(final|ffn|output)_layer_?norm/, { first: "norm before MLP", middle: "norm after MLP", last: "norm after MLP" }],
  [/^full_layer_layer_norm$/, "norm after MLP"],
  [
    /^(input|pre)_(layer_?norm|norm)$|^(input|pre)_?(attn|attention)|norm_?before$|^temporal_pre/,
    "norm before attention"
  ],
  [/^(ln|norm|layer_?norm|rms_?norm)_?1$/, {
    first: "norm before attention",
    middle: "norm before attention",
    last: "norm after attention"
  }],
  [/^(ln|norm|layer_?norm|rms_?norm)_?2$/, {
    first: "norm before MLP",
    middle: "norm before MLP",
    last: "norm after MLP",
    paired: "before step 2"
  }],
  [/^norm_?3$/, {
    first: "norm before MLP",
    middle: "norm before MLP",
    last: "norm before MLP",
    paired: "before step 3"
  }],
  [/^time_emb_proj$/, "after step 1"],
  [/^(pre_(feed|ff|mlp)|channel_pre)\w*norm/, "norm before MLP"],
  [/^post_(feed|ff|mlp|moe)\w*norm/, "norm after MLP"],
  [/^post_self_attn_layernorm$/, "first norm after attention"],
  [/^post_(self_)?att\w*norm|norm_?after$/, "norm after attention"],
  [
    /^(attn|attention|self_attn|self_attention)_?(norm|ln)|^(ln|norm)_(attn|mlp)|^operator_norm/,
    "norm before attention"
  ],
  [/^(ffn|mlp|feed_?forward|ff)_?(norm|ln|layer_?norm)|^(ln|norm|layer_?norm)_?3$/, "norm before MLP"],
  [/^conv1$/, "step 1"],
  [/^bn1$/, "after step 1"],
  [/^conv2$/, "step 2"],
  [/^bn2$/, "after step 2"],
  [/^conv3$/, "step 3"],
  [/^bn3$/, "after step 3"],
  [/^bn\d?$|_bn$|^batch_?norm|normalization/, "batch norm"],
  [/norm|^ln(_|$)/, { first: "norm first", middle: "norm in the middle", last: "norm last" }],

  [/^convs$/, "convolutions"],
  [/^resnets$/, "convolutions"],
  [/^downsampling|^conv_in$|^in_proj|^(dw_?conv|conv_dw)$/, "input"],
  [
    /^(attentions?|attn|att|self|mixer)$|^self_?att|^mamba|^temporal_block|^linear_attn|^c_attn|qkv|^query_key_value/,
    "attention"
  ],
  [/^(q|query|wq|q_lin|q_a|query_proj|q_proj|q_a_proj|to_q|attn_q)$/, "query"],
  [/^q_b_proj$/, "second query"],
  [/^(k|key|wk|k_lin|key_proj|k_proj|kv_a|to_k|attn_k|kv_a_proj\w*)$/, "key"],
  [/^(v|value|wv|v_lin|value_proj|v_proj|kv_b|to_v|attn_v|kv_b_proj)$/, "value"],
  [/^dense$|transform$|^pre_|^layer_[12]$/, "dense"],
  [/^conv1d$/, "attention"],
  [/^pw_?conv1$|^x_proj$/, "first projection"],
  [/conv/, "convolution"],
  [/^reassemble/, "input"],
  [/^fus(e|ion)/, "fusion"],
  [/^attn_out(put)?$/, "attention output"],
  [/^(lambda|layer_?scale|ls|gamma)_?1$/, "attention scale"],
  [/^attn1$/, "attention"],
  [/^attn2$/, "step 2"],
  [/cross_?att|encoder_att|encdecatt/, "cross-attention"],
  [/^(lambda|layer_?scale|ls|gamma)_?2$|^layer_scale_parameter$|^gamma$/, "MLP scale"],
  [/^(gate|router|gate_proj|gate_up_proj|w1|wi|wi_0|ffn_gate)$/, "gate"],
  [/^(intermediate|fc1|fc_in|lin1|linear_?1|linear_fc1|c_fc|up_proj|w3|wi_1|dense_h_to_4h|dense1|ffn|ffn_up)$/, "up"],
  [/^(mlp|ffns|ff|feed_forward|densereludense|block_sparse_moe|ffn_layer|moe|experts|input_linear)$/, "MLP"],
  [/^shared_expert/, "shared experts"],
  [/^(a_log|d|dt_bias)$/, "state"],
  [
    /^(output|fc2|fc_out|lin2|linear_?2|linear_fc2|c_proj|down_proj|w2|wo|dense_4h_to_h|dense2|output_linear|ffn_output|ffn_down)$/,
    "output"
  ],
  [/^(out_proj|out_lin|o_proj|o|proj|proj_out|out|to_out|conv_out|decoder)$|projector$|lm_head|classifier$/, "output"],
  [/^(fc|lin|linear_?|dense)([3-9]|\d\d+)$/, "later output"],
  [/^downsample|^upsample|^shortcut/, "sampling"],
  // The last step of a module that has other modules in it.
  [/^(weight|bias)$/, "own tensors"],
  [/^e_score_correction$/, "correction"]
]

/** Where a module stands in its layer. `"paired"` norms are before the convolutions or attentions with their numbers. */
export const placeInLayer = (name: string, norms: Norms | "paired"): number => {
  const role = roleOf(name)
  return roles.indexOf(typeof role === "string" ? role : role[norms] ?? role.middle)
}

// Layers repeat their names: a model with 256 experts in each of 61 layers has 94,000 tensors.
const found = new Map<string, Rule[1]>()

const roleOf = (name: string): Rule[1] => {
  const before = found.get(name)
  if (before !== undefined) return before
  const text = name.toLowerCase().replace(/_bias$/, "")
  const role = rules.find(([pattern]) => pattern.test(text))?.[1] ?? "unknown"
  if (found.size === 1000) found.clear()
  found.set(name, role)
  return role
}
