"""
Makes families.txt: the names of the tensors of published models, in the order in which a forward pass reads them.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==4.57.6 timm==1.0.31 diffusers==0.35.2 "huggingface_hub<1"
    venv/bin/python generate.py > families.txt

Each model is small (12 layers, so that layer 10 has to come after layer 9) and made from a configuration; nothing is
downloaded. Its names are those that `save_pretrained` writes, without tied weights: for models whose modules were
renamed since they were published, the published names and, as "<family>-renamed", those of today. A dispatch mode sees
every operation of a pass with all inputs (text, image, audio) and notes the first use of each tensor.

A line is the name of a tensor. `model.layers.[0-11]. a b` stands for the tensors a and b of layer 0, then of layer 1, and
so on. `= family Class` begins a family; a line with `- ` has tensors that the pass does not read.
"""
import copy, hashlib, inspect, os, re, sys, tempfile, warnings

warnings.filterwarnings("ignore")
os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
import diffusers as d
import torch
import transformers as t
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

torch.set_num_threads(1)


# The order of a pass

class FirstUse(TorchDispatchMode):
    def __init__(self, names):
        super().__init__()
        self.names, self.seen = names, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for value in tree_iter((args, kwargs or {})):
            if isinstance(value, torch.Tensor) and value.device.type != "meta":
                name = self.names.get(value.data_ptr())
                if name is not None:
                    self.seen.setdefault(name)
        return func(*args, **(kwargs or {}))


def make_distinct(model):
    generator = torch.Generator().manual_seed(0)
    done = set()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.numel() and tensor.is_floating_point() and tensor.data_ptr() not in done:
                done.add(tensor.data_ptr())
                tensor.copy_((torch.rand(tensor.shape, generator=generator) * 0.05 + 0.01).to(tensor.dtype))


def digest(tensor):
    data = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha1(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + data).hexdigest()


def saved_names(model):
    """The names in a saved file by the digest of their tensors."""
    names = {}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, safe_serialization=True)
        for file in os.listdir(folder):
            if file.endswith(".safetensors"):
                with safe_open(os.path.join(folder, file), "pt") as opened:
                    for name in opened.keys():
                        names.setdefault(digest(opened.get_tensor(name)), []).append(name)
    return names


def order_of(model, inputs):
    """The names of the tensors in the order of their first use, and those of the others."""
    state = {name: value for name, value in model.state_dict(keep_vars=True).items() if value.numel()}
    owners = {}
    for name, value in state.items():
        # Tables of indexes are the same in all layers.
        if value.is_floating_point():
            owners.setdefault(value.data_ptr(), name)
    with torch.no_grad(), FirstUse(owners) as pass_:
        model(**inputs)
    saved = saved_names(model)
    used = list(dict.fromkeys(name for key in pass_.seen for name in saved.get(digest(state[key]), [])))
    return used, [name for names in saved.values() for name in names if name not in set(used)]


# Small configurations

small = dict(
    hidden_size=64, d_model=64, n_embd=64, dim=64, embedding_size=32, emb_dim=64, embed_dim=64, hidden_dim=64,
    num_hidden_layers=12, num_layers=12, n_layer=12, n_layers=12, encoder_layers=12, decoder_layers=12,
    num_decoder_layers=12, depth=12, num_attention_heads=4, n_head=4, n_heads=4, num_heads=4,
    encoder_attention_heads=4, decoder_attention_heads=4, num_key_value_heads=2, intermediate_size=96, n_inner=96,
    encoder_ffn_dim=96, decoder_ffn_dim=96, ffn_dim=96, d_ff=96, d_kv=16, head_dim=16, moe_intermediate_size=32,
    shared_expert_intermediate_size=32, vocab_size=160, max_position_embeddings=128, n_positions=128, image_size=32,
    patch_size=8, num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=4, q_lora_rank=16,
    kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16, n_group=1, topk_group=1,
    first_k_dense_replace=1, projection_dim=32, word_embed_proj_dim=64, max_source_positions=64,
    max_target_positions=64, num_mel_bins=16, type_vocab_size=2, rescale_every=0)
token_ids = [f"{name}_token_id" for name in
             "pad bos eos sep mask cls unk decoder_start forced_eos forced_bos".split()]


def shrink(config, **given):
    base = config()
    defaults = base.to_dict()
    known = {name for c in config.__mro__ if c is not t.PretrainedConfig and "__init__" in c.__dict__
             and issubclass(c, t.PretrainedConfig) for name in inspect.signature(c.__init__).parameters}
    made = {name: value for name, value in small.items() if name in known and (
        isinstance(defaults.get(name), int) or name in ("num_key_value_heads", "head_dim", "q_lora_rank") and name in defaults)}
    for name in known:
        part = getattr(base, name, None)
        if name.endswith("_config") and isinstance(part, t.PretrainedConfig):
            made[name] = shrink(type(part), **given.pop(name, {})).to_dict()
    for name in token_ids:
        value = getattr(base, name, None)
        if type(value) is int and value >= 150:
            made[name] = 1
    return config(**{**made, **given})


def default_inputs(model):
    config, known, main = model.config, inspect.signature(model.forward).parameters, model.main_input_name
    inputs = {}
    if "input_ids" in known:
        inputs["input_ids"] = (torch.arange(24).reshape(1, 24) * 7) % 140 + 6
    if "pixel_values" in known and (main == "pixel_values" or hasattr(config, "vision_config")):
        size = getattr(getattr(config, "vision_config", config), "image_size", 32)
        inputs["pixel_values"] = pixels(size)
    if main == "input_values":
        inputs["input_values"] = torch.rand(1, 8000)
    if "decoder_input_ids" in known and config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :8]
    return inputs


# Inputs

def ids(images=0, text=8):
    """Text in which so many tokens (150) stand for an image or a sound."""
    tokens = [(i * 7) % 140 + 6 for i in range(text)]
    return torch.tensor([tokens[:2] + [150] * images + tokens[2:]])


def pixels(size=32, *before):
    return torch.rand(1, *before, 3, size, size)


def one_image(count, **more):
    return dict(input_ids=ids(count), pixel_values=pixels(), **more)


def patches(size):
    return dict(input_ids=ids(4), pixel_values=torch.rand(16, 6 * size * size), image_grid_thw=torch.tensor([[1, 4, 4]]))


def vision(**more):
    return dict(hidden_size=32, num_hidden_layers=12, num_attention_heads=4, intermediate_size=48, image_size=32,
                patch_size=8, **more)


clip = vision(model_type="clip_vision_model", projection_dim=16)
siglip = vision(model_type="siglip_vision_model", vision_use_head=False)
mrope = dict(rope_scaling=dict(type="mrope", mrope_section=[2, 3, 3]))
qwen_tokens = dict(image_token_id=150, vision_start_token_id=149, vision_end_token_id=148, video_token_id=147)
bert = dict(hidden_size=64, num_hidden_layers=12, num_attention_heads=4, intermediate_size=96, vocab_size=160)
pyramid = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
swin = dict(image_size=64, patch_size=2, embed_dim=12, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4], window_size=4)
qformer = dict(hidden_size=32, encoder_hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48,
               vocab_size=160)
opt = dict(model_type="opt", hidden_size=64, word_embed_proj_dim=64, ffn_dim=96, num_hidden_layers=12,
           num_attention_heads=4, vocab_size=160, pad_token_id=1)
audio = torch.rand(1, 8000)
stable = dict(do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True)
detr = dict(use_pretrained_backbone=False, d_model=64, num_queries=5)
resnet = dict(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=["stage4"])

families = []


def family(name, cls, inputs=None, *, whole=False, **options):
    """`whole`: the options are the configuration; otherwise they are added to a small one."""
    families.append((name, cls, inputs, whole, options))


# Text
family("bert", "BertForPreTraining")
family("bert-question-answering", "BertForQuestionAnswering")
family("roberta", "RobertaForMaskedLM")
family("roberta-classification", "RobertaForSequenceClassification")
family("xlm-roberta", "XLMRobertaForMaskedLM")
family("camembert", "CamembertModel")
family("distilbert", "DistilBertForSequenceClassification")
family("distilbert-masked", "DistilBertForMaskedLM")
family("albert", "AlbertForPreTraining")
family("electra", "ElectraForPreTraining")
family("electra-generator", "ElectraForMaskedLM")
family("deberta", "DebertaForMaskedLM")
family("deberta-v3", "DebertaV2Model", relative_attention=True, position_buckets=32, norm_rel_ebd="layer_norm",
       share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False)
family("mpnet", "MPNetForMaskedLM")
family("modernbert", "ModernBertForMaskedLM")
family("esm", "EsmForMaskedLM", dict(input_ids=ids()), vocab_size=165, pad_token_id=1, mask_token_id=32,
       position_embedding_type="rotary", emb_layer_norm_before=False)
family("longformer", "LongformerForMaskedLM")
family("gpt2", "GPT2LMHeadModel")
family("gpt_neo", "GPTNeoForCausalLM", attention_types=[[["global", "local"], 6]])
family("gptj", "GPTJForCausalLM", rotary_dim=8)
family("gpt_neox", "GPTNeoXForCausalLM")
family("gpt_bigcode", "GPTBigCodeForCausalLM")
family("opt", "OPTForCausalLM")
family("opt-350m", "OPTForCausalLM", word_embed_proj_dim=32, do_layer_norm_before=False)
family("bloom", "BloomForCausalLM")
family("falcon", "FalconForCausalLM")
family("falcon-40b", "FalconForCausalLM", new_decoder_architecture=True, num_kv_heads=2)
family("mpt", "MptForCausalLM")
family("llama", "LlamaForCausalLM")
family("mistral", "MistralForCausalLM")
family("mixtral", "MixtralForCausalLM")
family("qwen2", "Qwen2ForCausalLM")
family("qwen3", "Qwen3ForCausalLM")
family("qwen3_moe", "Qwen3MoeForCausalLM")
family("gemma", "GemmaForCausalLM")
family("gemma2", "Gemma2ForCausalLM")
family("gemma3-text", "Gemma3ForCausalLM")
family("phi", "PhiForCausalLM")
family("phi3", "Phi3ForCausalLM")
family("stablelm", "StableLmForCausalLM")
family("cohere", "CohereForCausalLM")
family("olmo", "OlmoForCausalLM")
family("olmo2", "Olmo2ForCausalLM")
family("granite", "GraniteForCausalLM")
family("starcoder2", "Starcoder2ForCausalLM")
family("deepseek_v2", "DeepseekV2ForCausalLM", n_shared_experts=1, topk_method="greedy", num_key_value_heads=4,
       num_experts_per_tok=4, n_group=1, topk_group=1, head_dim=8)
family("deepseek_v3", "DeepseekV3ForCausalLM", num_key_value_heads=4)
family("mamba", "MambaForCausalLM")
family("rwkv", "RwkvForCausalLM", attention_hidden_size=64)
family("t5", "T5ForConditionalGeneration")
family("t5-v1.1", "T5ForConditionalGeneration", feed_forward_proj="gated-gelu", tie_word_embeddings=False)
family("t5-encoder", "T5EncoderModel")
family("mt5", "MT5ForConditionalGeneration")
family("bart", "BartForConditionalGeneration")
family("mbart", "MBartForConditionalGeneration")
family("pegasus", "PegasusForConditionalGeneration")
family("marian", "MarianMTModel", decoder_vocab_size=160)
family("m2m_100", "M2M100ForConditionalGeneration")
family("encoder-decoder", "EncoderDecoderModel", dict(input_ids=ids(), decoder_input_ids=ids()), whole=True,
       encoder=dict(model_type="bert", **bert),
       decoder=dict(model_type="bert", is_decoder=True, add_cross_attention=True, **bert))

# Images
family("vit", "ViTForImageClassification")
family("deit", "DeiTForImageClassification")
family("beit", "BeitForImageClassification")
family("dinov2", "Dinov2Model")
family("swin", "SwinForImageClassification", dict(pixel_values=pixels(64)), **swin)
family("convnext", "ConvNextForImageClassification", dict(pixel_values=pixels(64)), hidden_sizes=[8, 16, 24, 32],
       depths=[2, 2, 12, 2])
family("resnet", "ResNetForImageClassification", dict(pixel_values=pixels(64)), embedding_size=8, **pyramid)
family("segformer", "SegformerForSemanticSegmentation", dict(pixel_values=pixels(64)),
       num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=16, **pyramid)
family("dpt", "DPTForDepthEstimation", backbone_out_indices=[2, 5, 8, 11], neck_hidden_sizes=[8, 16, 24, 32],
       fusion_hidden_size=16)
family("detr", "DetrForObjectDetection", dict(pixel_values=pixels(64)), backbone="resnet18", **detr)
family("detr-resnet", "DetrForObjectDetection", dict(pixel_values=pixels(64)), use_timm_backbone=False, backbone=None,
       backbone_config=t.ResNetConfig(**resnet), **detr)
family("yolos", "YolosForObjectDetection", dict(pixel_values=pixels()), image_size=[32, 32])
family("sam", "SamModel", dict(pixel_values=pixels(64), input_points=torch.rand(1, 1, 1, 2) * 30,
                               input_labels=torch.ones(1, 1, 1, dtype=torch.long)),
       vision_config=dict(hidden_size=32, output_channels=32, num_hidden_layers=4, num_attention_heads=4, image_size=64,
                          patch_size=8, num_pos_feats=16, mlp_dim=48, global_attn_indexes=[1, 3]),
       prompt_encoder_config=dict(hidden_size=32, image_size=64, patch_size=8, mask_input_channels=16),
       mask_decoder_config=dict(hidden_size=32, mlp_dim=48, num_attention_heads=4, iou_head_hidden_dim=16))

# Sound
family("whisper", "WhisperForConditionalGeneration",
       dict(input_features=torch.rand(1, 16, 128), decoder_input_ids=ids()))
family("wav2vec2", "Wav2Vec2ForCTC")
family("wav2vec2-lv60", "Wav2Vec2ForCTC", **stable)
family("hubert", "HubertForCTC")
family("hubert-large", "HubertForCTC", **stable)
family("data2vec-audio", "Data2VecAudioForCTC")
family("speecht5", "SpeechT5ForTextToSpeech", lambda model: dict(
    input_ids=ids(), decoder_input_values=torch.rand(1, 6, 16), speaker_embeddings=torch.rand(1, 512)))
family("musicgen", "MusicgenForConditionalGeneration",
       dict(input_ids=ids(), decoder_input_ids=torch.zeros(4, 3, dtype=torch.long)), whole=True,
       text_encoder=dict(model_type="t5", vocab_size=160, d_model=64, d_kv=16, d_ff=96, num_layers=12, num_heads=4),
       audio_encoder=dict(model_type="encodec", num_filters=4, hidden_size=16, codebook_size=32, codebook_dim=16),
       decoder=dict(model_type="musicgen_decoder", vocab_size=64, hidden_size=32, num_hidden_layers=12,
                    num_attention_heads=4, ffn_dim=48, num_codebooks=4, pad_token_id=63))

# Several towers
family("clip", "CLIPModel")
family("siglip", "SiglipModel")
family("chinese_clip", "ChineseCLIPModel")
family("clap", "ClapModel", dict(input_ids=ids(), input_features=torch.rand(1, 1, 1001, 64), is_longer=torch.tensor([[True]])),
       audio_config=dict(hidden_size=128, patch_embeds_hidden_size=16, depths=[2, 2, 2, 2],
                         num_attention_heads=[2, 2, 4, 4], num_mel_bins=64, spec_size=256, window_size=8))
family("blip", "BlipForConditionalGeneration", dict(input_ids=ids(), pixel_values=pixels()))
family("blip-2", "Blip2ForConditionalGeneration", one_image(8, attention_mask=torch.ones(1, 16, dtype=torch.long)),
       image_token_index=150, num_query_tokens=8, vision_config=vision(), qformer_config=qformer, text_config=opt)
family("instructblip", "InstructBlipForConditionalGeneration",
       one_image(8, attention_mask=torch.ones(1, 16, dtype=torch.long), qformer_input_ids=ids()),
       image_token_index=150, num_query_tokens=8, vision_config=vision(), qformer_config=qformer, text_config=opt)
family("git", "GitForCausalLM", dict(input_ids=ids(), pixel_values=pixels()), vision_config=vision())
family("llava", "LlavaForConditionalGeneration", one_image(16), image_token_index=150, vision_config=clip)
family("llava_next", "LlavaNextForConditionalGeneration",
       dict(input_ids=ids(56), pixel_values=pixels(32, 3), image_sizes=torch.tensor([[64, 32]])),
       image_token_index=150, vision_config=clip, image_grid_pinpoints=[[64, 32]])
family("paligemma", "PaliGemmaForConditionalGeneration",
       one_image(16, token_type_ids=torch.zeros(1, 24, dtype=torch.long)), image_token_index=150, vision_config=siglip,
       projection_dim=64)
family("gemma3", "Gemma3ForConditionalGeneration",
       one_image(4, token_type_ids=torch.zeros(1, 12, dtype=torch.long)), image_token_index=150,
       mm_tokens_per_image=4, vision_config=siglip)
family("mistral3", "Mistral3ForConditionalGeneration", one_image(4, image_sizes=torch.tensor([[32, 32]])),
       image_token_index=150, vision_config=vision(model_type="pixtral", head_dim=8))
family("qwen2_vl", "Qwen2VLForConditionalGeneration", patches(14), **qwen_tokens, text_config=mrope,
       vision_config=dict(depth=12, embed_dim=32, patch_size=14, hidden_size=64, num_heads=4, mlp_ratio=2))
family("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", patches(14), **qwen_tokens, text_config=mrope,
       vision_config=dict(depth=12, hidden_size=32, out_hidden_size=64, num_heads=4, patch_size=14,
                          intermediate_size=48, fullatt_block_indexes=[3, 7, 11]))
family("idefics2", "Idefics2ForConditionalGeneration", dict(input_ids=ids(4), pixel_values=pixels(32, 1)),
       image_token_id=150, vision_config=vision(),
       perceiver_config=dict(hidden_size=64, resampler_n_latents=4, resampler_depth=3, resampler_n_heads=4,
                             num_key_value_heads=2, resampler_head_dim=16))
family("idefics3", "Idefics3ForConditionalGeneration", dict(input_ids=ids(4), pixel_values=pixels(32, 1)),
       image_token_id=150, scale_factor=2, vision_config=vision())
family("internvl", "InternVLForConditionalGeneration", one_image(4), image_token_id=150, image_seq_length=4,
       vision_config=dict(hidden_size=32, num_hidden_layers=12, num_attention_heads=4, intermediate_size=48,
                          image_size=[32, 32], patch_size=[8, 8]))
family("kosmos-2", "Kosmos2ForConditionalGeneration",
       one_image(4, image_embeds_position_mask=torch.tensor([[0, 0, 1, 1, 1, 1] + [0] * 6])), latent_query_num=4,
       vision_config=vision(), text_config=dict(vocab_size=160, embed_dim=64, layers=12, ffn_dim=96, attention_heads=4))
family("qwen2_audio", "Qwen2AudioForConditionalGeneration",
       dict(input_ids=ids(32), input_features=torch.rand(1, 16, 128), attention_mask=torch.ones(1, 40, dtype=torch.long),
            feature_attention_mask=torch.ones(1, 128, dtype=torch.long)), audio_token_index=150,
       audio_config=dict(num_mel_bins=16, max_source_positions=64, d_model=32, encoder_layers=12,
                         encoder_attention_heads=4, encoder_ffn_dim=48))
family("vision-encoder-decoder", "VisionEncoderDecoderModel", dict(pixel_values=pixels(), decoder_input_ids=ids()),
       whole=True, encoder=dict(model_type="vit", image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=12,
                                num_attention_heads=4, intermediate_size=96),
       decoder=dict(model_type="trocr", d_model=64, decoder_layers=12, decoder_attention_heads=4, decoder_ffn_dim=96,
                    vocab_size=160))


# Others, with the inputs that all take
for cls in """
AltCLIPModel ArceeForCausalLM BertGenerationDecoder BigBirdForPreTraining BioGptForCausalLM BitForImageClassification
BlenderbotForConditionalGeneration ChineseCLIPVisionModel CLIPTextModelWithProjection CLIPVisionModelWithProjection
Cohere2ForCausalLM ConvBertModel CpmAntForCausalLM CTRLLMHeadModel Data2VecTextForMaskedLM
Data2VecVisionForImageClassification DiffLlamaForCausalLM Dinov2WithRegistersForImageClassification DPRQuestionEncoder
ErnieForPreTraining Ernie4_5ForCausalLM Exaone4ForCausalLM FalconMambaForCausalLM FlaubertWithLMHeadModel
FNetForPreTraining FunnelForPreTraining GlmForCausalLM Glm4ForCausalLM GPTNeoXJapaneseForCausalLM GptOssForCausalLM
GraniteMoeForCausalLM HeliumForCausalLM IJepaForImageClassification ImageGPTForCausalImageModeling LayoutLMForMaskedLM
LEDForConditionalGeneration LongT5ForConditionalGeneration LukeForMaskedLM MegatronBertForPreTraining
MobileBertForPreTraining MobileNetV1ForImageClassification MobileNetV2ForImageClassification
MvpForConditionalGeneration NemotronForCausalLM OlmoeForCausalLM OpenAIGPTLMHeadModel Owlv2Model OwlViTModel
PersimmonForCausalLM PixtralVisionModel PLBartForConditionalGeneration PoolFormerForImageClassification
PvtForImageClassification Qwen2MoeForCausalLM RemBertForMaskedLM RobertaPreLayerNormForMaskedLM RoFormerForMaskedLM
SeedOssForCausalLM SmolLM3ForCausalLM UniSpeechSatForCTC ViTMSNForImageClassification WavLMForCTC XGLMForCausalLM
XLMRobertaXLForMaskedLM XLMWithLMHeadModel YosoForMaskedLM
""".split():
    family(cls, cls)
family("aya_vision", "AyaVisionForConditionalGeneration", one_image(4), image_token_index=150,
       vision_config=vision(model_type="siglip_vision_model"), downsample_factor=2)
family("vipllava", "VipLlavaForConditionalGeneration", one_image(16), image_token_index=150, vision_config=clip,
       vision_feature_layers=[-2, -3, -4, -5, 6])
family("fuyu", "FuyuForCausalLM", dict(input_ids=ids(4), image_patches=torch.rand(1, 4, 192),
                                       image_patches_indices=torch.tensor([[-1, -1, 0, 1, 2, 3] + [-1] * 6])),
       image_token_id=150, patch_size=8, text_config=dict(model_type="persimmon", hidden_size=64, num_hidden_layers=12,
                                                          num_attention_heads=4, intermediate_size=96, vocab_size=160))
family("llama4", "Llama4ForConditionalGeneration", one_image(4), image_token_index=150, boi_token_index=149,
       eoi_token_index=148, text_config=dict(intermediate_size_mlp=96),
       vision_config=dict(hidden_size=32, num_hidden_layers=12, num_attention_heads=4, intermediate_size=128,
                          vision_output_dim=32, projector_input_dim=32, projector_output_dim=32, image_size=32,
                          patch_size=8, pixel_shuffle_ratio=0.5))
family("smolvlm", "SmolVLMForConditionalGeneration", dict(input_ids=ids(4), pixel_values=pixels(32, 1)),
       image_token_id=150, scale_factor=2, vision_config=vision())
family("voxtral", "VoxtralForConditionalGeneration", dict(input_ids=ids(16), input_features=torch.rand(1, 16, 128)),
       audio_token_id=150, audio_config=dict(num_mel_bins=16, max_source_positions=64, hidden_size=32,
                                             num_hidden_layers=12, num_attention_heads=4, intermediate_size=128))
family("flava", "FlavaModel", dict(input_ids=ids(), pixel_values=pixels()))
family("got_ocr2", "GotOcr2ForConditionalGeneration", dict(input_ids=ids(256), pixel_values=pixels(1024)),
       image_token_index=150, vision_config=dict(hidden_size=32, output_channels=16, num_hidden_layers=4,
                                                 num_attention_heads=4, image_size=1024, patch_size=16, mlp_dim=48,
                                                 global_attn_indexes=[1, 3]))

# Of the library diffusers
diffusers = [
    ("unet", lambda: d.UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=2, cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
     dict(sample=torch.rand(1, 4, 16, 16), timestep=torch.tensor([1]), encoder_hidden_states=torch.rand(1, 3, 8))),
    ("vae", lambda: d.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=2, norm_num_groups=4),
     dict(sample=torch.rand(1, 3, 16, 16))),
    ("flux", lambda: d.FluxTransformer2DModel(
        in_channels=16, num_layers=12, num_single_layers=12, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True),
     dict(hidden_states=torch.rand(1, 4, 16), encoder_hidden_states=torch.rand(1, 3, 32),
          pooled_projections=torch.rand(1, 32), timestep=torch.tensor([1.]), img_ids=torch.zeros(4, 3),
          txt_ids=torch.zeros(3, 3), guidance=torch.tensor([1.]))),
    ("sd3", lambda: d.SD3Transformer2DModel(
        sample_size=16, num_layers=12, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=32,
        caption_projection_dim=32, pooled_projection_dim=32, pos_embed_max_size=16),
     dict(hidden_states=torch.rand(1, 16, 16, 16), encoder_hidden_states=torch.rand(1, 3, 32),
          pooled_projections=torch.rand(1, 32), timestep=torch.tensor([1.]))),
    ("pixart", lambda: d.PixArtTransformer2DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=12,
        cross_attention_dim=32, sample_size=8, caption_channels=16, use_additional_conditions=False),
     dict(hidden_states=torch.rand(1, 4, 8, 8), encoder_hidden_states=torch.rand(1, 3, 16),
          timestep=torch.tensor([1]), added_cond_kwargs=dict(resolution=None, aspect_ratio=None)))]


# The file

def lines(names):
    """Layers of which all have the same tensors in the same order are one line."""
    blocks = []
    for name in names:
        match = re.match(r"(.*?\.)(\d+)\.(.*)$", name)
        if match is None:
            blocks.append(name)
            continue
        prefix, number, rest = match[1], int(match[2]), match[3]
        if blocks and not isinstance(blocks[-1], str) and blocks[-1][:2] == [prefix, number]:
            blocks[-1][3].append(rest)
        else:
            blocks.append([prefix, number, number, [rest]])
    merged = []
    for block in blocks:
        last = merged[-1] if merged else None
        if isinstance(block, list) and isinstance(last, list) and [last[0], last[2] + 1, last[3]] == [block[0], block[1], block[3]]:
            last[2] = block[2]
        else:
            merged.append(block)
    return [b if isinstance(b, str) else f"{b[0]}[{b[1]}-{b[2]}]. {' '.join(b[3])}" for b in merged]


def write(name, cls, used, unused):
    print(f"= {name} {cls}", *lines(used), sep="\n")
    for line in lines(unused):
        print("-", line)
    sys.stdout.flush()


def main(wanted):
    for name, cls, inputs, whole, options in families:
        if wanted and name not in wanted:
            continue
        made = getattr(t, cls)
        torch.manual_seed(0)
        config = made.config_class(**copy.deepcopy(options)) if whole else shrink(made.config_class, **copy.deepcopy(options))
        model = made(config).eval()
        make_distinct(model)
        given = default_inputs(model) if inputs is None else inputs(model) if callable(inputs) else inputs
        used, unused = order_of(model, given)
        write(name, cls, used, unused)
        model._checkpoint_conversion_mapping = {}
        renamed, others = order_of(model, given)
        if renamed != used:
            write(f"{name}-renamed", cls, renamed, others)
    for name, make, inputs in diffusers:
        if not wanted or name in wanted:
            model = make().eval()
            make_distinct(model)
            write(name, type(model).__name__, *order_of(model, inputs))


if __name__ == "__main__":
    print("\n".join(f"# {line}".rstrip() for line in __doc__.strip().splitlines()))
    main(sys.argv[1:])
