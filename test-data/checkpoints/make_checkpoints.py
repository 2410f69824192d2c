#!/usr/bin/env python3
"""Make the tiny random checkpoints of this folder and their known answers.

Needs (CPU is enough):
  pip install "torch==2.15.0" "transformers==5.23.0" "safetensors==0.8.0" numpy
  pip install "mlx[cpu]==0.32.4" "mlx-lm==0.32.2"        for the *-mlx-* ones only
Use:
  make_checkpoints.py OUT [--only NAME ...]    three *-mlx-* ones convert what OUT already holds

Every NAME gets a folder as it would lie on the Hugging Face Hub, and beside it
  reference.safetensors  input_ids [T] i32, logits [T, vocab] f32 at every position, greedy_ids [N] i32
  reference.json         versions, seed, and the smallest gap between best and second logit of the greedy steps
transformers computes in float64 from the weights as stored (norms and softmax in float32, as its code
has it); mlx-lm in float32. Seeds are tried from 7 up until the smallest gap is above 0.02 and half of the
greedy ids are different ones, so that equal ids mean something; the first ten cases are pinned to seed 7.
"""
import argparse
import copy
import json
import pathlib
import shutil
import tempfile

import numpy as np

MIN_GAP = 0.02
FIRST_SEED = 7
LINEAR, FULL = "linear_attention", "full_attention"


class Case:
    """One checkpoint: the class, its configuration, and how it is stored."""

    def __init__(self, cls, config, *, prompt=32, new=12, dtype="float32", tweak=None, save=None, config_json=None,
                 extra=None, tokens=None, pinned=False):
        self.cls = cls                  # name of the transformers class
        self.config = config            # () -> configuration
        self.prompt = prompt            # prompt tokens
        self.new = new                  # greedy tokens
        self.dtype = dtype              # of the stored weights; the reference uses the rounded values
        self.tweak = tweak              # (model, generator): changes to the random weights
        self.save = save or {}          # arguments of save_pretrained
        self.config_json = config_json  # (dict): changes to config.json after saving
        self.extra = extra              # (folder): more files
        self.tokens = tokens            # ids below this are used in prompts (default: all)
        self.pinned = pinned


def given():
    """The first ones: larger, vocabulary 512, four layers and more."""
    common = dict(vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.15, bos_token_id=1,
                  eos_token_id=2, pad_token_id=0)

    def case(cls, config, **values):
        return Case(cls, lambda: make_config(config, {**common, **values}), prompt=96, new=24, pinned=True)

    return {
        "llama": case("LlamaForCausalLM", "LlamaConfig", rope_theta=10000.0, tie_word_embeddings=False),
        "llama-rope3": case("LlamaForCausalLM", "LlamaConfig", tie_word_embeddings=True, head_dim=32,
                            rope_scaling=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                                              high_freq_factor=4.0, original_max_position_embeddings=64)),
        "qwen2": case("Qwen2ForCausalLM", "Qwen2Config", rope_theta=1e6, tie_word_embeddings=True),
        "qwen3": case("Qwen3ForCausalLM", "Qwen3Config", head_dim=32, rope_theta=1e6, tie_word_embeddings=True),
        "gemma3": case("Gemma3ForCausalLM", "Gemma3TextConfig", num_hidden_layers=7, head_dim=32,
                       query_pre_attn_scalar=32, sliding_window=24, sliding_window_pattern=3),
        "qwen3_5": case("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", num_hidden_layers=8, head_dim=32,
                        linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=4,
                        linear_num_value_heads=8, linear_conv_kernel_dim=4, full_attention_interval=4,
                        tie_word_embeddings=True),
        "qwen3_moe": case("Qwen3MoeForCausalLM", "Qwen3MoeConfig", head_dim=32, num_experts=8, num_experts_per_tok=2,
                          moe_intermediate_size=48, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[]),
    }


SMALL = dict(vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2, bos_token_id=1,
             eos_token_id=2, pad_token_id=0)
DELTA = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
             linear_conv_kernel_dim=4)


def make_config(name, values):
    import transformers
    return getattr(transformers, name)(**values)


def small(cls, config, values, **how):
    return Case(cls, lambda: make_config(config, {**SMALL, **values}), **how)


def llama(values, **how):
    return small("LlamaForCausalLM", "LlamaConfig", {"head_dim": 16, "tie_word_embeddings": False, **values}, **how)


def qwen2(values, **how):
    return small("Qwen2ForCausalLM", "Qwen2Config", {"rope_theta": 1e6, "tie_word_embeddings": True, **values}, **how)


def qwen3(values, **how):
    base = {"head_dim": 16, "rope_theta": 1e6, "tie_word_embeddings": True}
    return small("Qwen3ForCausalLM", "Qwen3Config", {**base, **values}, **how)


def qwen3_moe(values, **how):
    base = {"head_dim": 16, "rope_theta": 1e6, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2,
            "norm_topk_prob": True, "tie_word_embeddings": True}
    return small("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**base, **values}, **how)


def gemma3(values, **how):
    base = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
    return small("Gemma3ForCausalLM", "Gemma3TextConfig", {**base, **values}, tweak=quiet_embedding, **how)


def qwen3_5(values, **how):
    base = {"head_dim": 16, "tie_word_embeddings": True, **DELTA}
    return small("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", {**base, **values}, tweak=slow_decay, **how)


def shapes():
    """Every shape once, as small as it can be."""
    gemma_4b = dict(num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=7, hidden_size=40,
                    intermediate_size=24, head_dim=16, query_pre_attn_scalar=24, sliding_window=16,
                    rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                                         sliding_attention=dict(rope_type="default", rope_theta=1e4)))
    return {
        "llama-mha": llama(dict(num_key_value_heads=4, num_hidden_layers=3)),
        "llama-mqa": llama(dict(num_key_value_heads=1, num_hidden_layers=1, tie_word_embeddings=True)),
        "llama-head64": llama(dict(num_attention_heads=2, num_key_value_heads=1, head_dim=64, num_hidden_layers=1)),
        "llama-head128": llama(dict(num_attention_heads=2, num_key_value_heads=1, head_dim=128), dtype="float16"),
        "llama-bias": llama(dict(attention_bias=True, mlp_bias=True)),
        "llama-linear": llama(dict(rope_scaling=dict(rope_type="linear", factor=4.0, rope_theta=500000.0)),
                              config_json=old_style),
        "llama-shards": llama({}, save=dict(max_shard_size="36KB")),
        "mistral-window": small("MistralForCausalLM", "MistralConfig", dict(head_dim=16, sliding_window=16)),
        "qwen2-untied": qwen2(dict(tie_word_embeddings=False, num_hidden_layers=3)),
        "qwen2-odd": qwen2(dict(hidden_size=56, num_attention_heads=7, num_key_value_heads=1, intermediate_size=72,
                               num_hidden_layers=1)),
        "qwen2-window": qwen2(dict(use_sliding_window=True, sliding_window=16, max_window_layers=1)),
        "qwen2-padded": qwen2(dict(vocab_size=320), tokens=259, tweak=blank_padding, extra=byte_tokenizer),
        "qwen3-untied": qwen3(dict(tie_word_embeddings=False, head_dim=64, num_attention_heads=2,
                                   num_key_value_heads=1, num_hidden_layers=1)),
        "qwen3-bias": qwen3(dict(attention_bias=True, num_key_value_heads=4, num_hidden_layers=3)),
        "qwen3-bf16": qwen3(dict(head_dim=128, num_attention_heads=2, num_key_value_heads=1), dtype="bfloat16"),
        "qwen3_moe-16": qwen3_moe(dict(num_experts=16, num_experts_per_tok=4, norm_topk_prob=False,
                                       num_hidden_layers=1, tie_word_embeddings=False), dtype="bfloat16"),
        "qwen3_moe-steps": qwen3_moe(dict(num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3])),
        "qwen3_moe-fused": qwen3_moe(dict(num_hidden_layers=1), save=dict(save_original_format=False)),
        "gemma3-scaled": gemma3(gemma_4b, config_json=old_style),
        "gemma3-untied": gemma3(dict(tie_word_embeddings=False, attention_bias=True, num_hidden_layers=3,
                                     sliding_window_pattern=3)),
        "gemma3-head256": gemma3(dict(head_dim=256, query_pre_attn_scalar=256, num_attention_heads=2,
                                      num_key_value_heads=1, sliding_window_pattern=2), dtype="bfloat16"),
        "gemma3-vision": Case("Gemma3ForConditionalGeneration", lambda: gemma3_vision(gemma_4b), dtype="bfloat16",
                              tweak=quiet_embedding),
        "qwen3_5-equal": qwen3_5(dict(num_hidden_layers=3, layer_types=[FULL, LINEAR, LINEAR],
                                      linear_num_key_heads=3, linear_num_value_heads=3, linear_value_head_dim=16,
                                      tie_word_embeddings=False)),
        "qwen3_5-head256": qwen3_5(dict(head_dim=256, num_attention_heads=2, num_key_value_heads=1,
                                        full_attention_interval=2, linear_key_head_dim=16, linear_value_head_dim=16,
                                        rope_parameters=dict(rope_type="default", rope_theta=1e7,
                                                             partial_rotary_factor=0.25, mrope_interleaved=True,
                                                             mrope_section=[11, 11, 10])), dtype="bfloat16"),
        "qwen3_5-vision": Case("Qwen3_5ForConditionalGeneration", qwen3_5_vision, dtype="bfloat16", tweak=slow_decay),
    }


def gemma3_vision(text):
    vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=28,
                  patch_size=14, vision_use_head=False)
    return make_config("Gemma3Config", dict(
        text_config={**SMALL, **text, "num_hidden_layers": 6}, vision_config=vision, mm_tokens_per_image=4,
        boi_token_index=120, eoi_token_index=121, image_token_index=122, initializer_range=0.2))


def qwen3_5_vision():
    text = {**SMALL, **DELTA, "head_dim": 16, "num_hidden_layers": 4, "linear_num_value_heads": 8,
            "tie_word_embeddings": True}
    vision = dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=1, out_hidden_size=32, patch_size=4,
                  spatial_merge_size=2, temporal_patch_size=2, num_position_embeddings=16, in_channels=3)
    return make_config("Qwen3_5Config", dict(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=120, video_token_id=121,
        vision_start_token_id=122, vision_end_token_id=123))


# Changes to the random weights.

def randomize(model, gen):
    """Norm weights, biases and decay terms too, so that an engine that forgets one of them fails."""
    import torch
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn(p.shape, generator=gen, dtype=p.dtype) * (0.2 if "norm" in name else 0.1))


def slow_decay(model, gen):
    """A state that remembers: the usual start of the delta rule forgets nearly all at every token."""
    import torch
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("A_log"):
                p.copy_(torch.rand(p.shape, generator=gen, dtype=p.dtype).mul(2.0).add(0.05).log())
            elif name.endswith("dt_bias"):
                p.copy_(torch.randn(p.shape, generator=gen, dtype=p.dtype).sub(2.5))
            elif name.endswith("conv1d.weight"):
                p.copy_(torch.randn(p.shape, generator=gen, dtype=p.dtype).mul(0.6))


def quiet_embedding(model, gen):
    """Gemma multiplies embeddings by sqrt(hidden): at full size a tied head would repeat the last token for ever."""
    import torch
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.5)


def blank_padding(model, gen):
    """Rows past the tokenizer's last token are zero, as in a table rounded up for speed."""
    import torch
    with torch.no_grad():
        model.get_input_embeddings().weight[259:] = 0.0


# Files beside the weights.

def old_style(config):
    """The keys that transformers 4 wrote and most files on the Hub have."""
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.57.0"
    if "full_attention" in rope:
        local = rope["sliding_attention"]
        config["rope_local_base_freq"] = local["rope_theta"]
        rope = rope["full_attention"]
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
        config.pop("layer_types")
    config["rope_theta"] = rope["rope_theta"]
    kind = rope["rope_type"]
    scaling = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}
    key = "rope_type" if "rope_local_base_freq" in config else "type"
    config["rope_scaling"] = None if kind == "default" else {key: kind, **scaling}


def byte_tokenizer(folder):
    """A byte-level tokenizer of 259 tokens for an embedding of 320 rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>"] + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", dict(
        tokenizer_class="Qwen2Tokenizer", bos_token=None, eos_token="</s>", pad_token="<pad>", add_bos_token=False))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


# The reference of transformers.

def make(name, case, out):
    import torch
    import transformers
    from safetensors.torch import save_file
    folder = out / name
    for seed in range(FIRST_SEED, FIRST_SEED + 1000):
        torch.manual_seed(seed)
        gen = torch.Generator().manual_seed(seed + 1)
        config = case.config()
        config._attn_implementation = "eager"
        config._experts_implementation = "eager"
        model = getattr(transformers, case.cls)(config).eval().to(torch.float32)
        randomize(model, gen)
        if case.tweak:
            case.tweak(model, gen)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        copy.deepcopy(model).to(getattr(torch, case.dtype)).save_pretrained(folder, **case.save)
        wide = as_stored(model, getattr(torch, case.dtype)).to(torch.float64)
        vocab = config.get_text_config().vocab_size
        ids = torch.randint(3, case.tokens or min(vocab, 120 if "Conditional" in case.cls else vocab),
                            (1, case.prompt), generator=gen)
        with torch.no_grad():
            logits = wide(input_ids=ids, use_cache=False).logits[0]
            seq, gaps = ids, []
            for _ in range(case.new):
                last = wide(input_ids=seq, use_cache=False).logits[0, -1]
                top = torch.topk(last, 2)
                gaps.append(float(top.values[0] - top.values[1]))
                seq = torch.cat([seq, top.indices[:1].view(1, 1)], dim=1)
        if case.pinned or telling(gaps, seq[0, case.prompt:].tolist()):
            break
    else:
        raise SystemExit(f"{name}: no seed gives a telling continuation")
    if case.config_json:
        config = json.loads((folder / "config.json").read_text())
        case.config_json(config)
        write_json(folder / "config.json", config)
        check_reload(folder, case, ids, logits)
    if case.extra:
        case.extra(folder)
    save_file({"input_ids": ids[0].to(torch.int32).contiguous(),
               "logits": logits.to(torch.float32).contiguous(),
               "greedy_ids": seq[0, case.prompt:].to(torch.int32).contiguous()}, folder / "reference.safetensors")
    info = dict(architecture=case.cls, seed=seed, torch=torch.__version__, transformers=transformers.__version__,
                prompt_tokens=case.prompt, new_tokens=case.new, min_greedy_gap=min(gaps),
                logits_rms=float(logits.pow(2).mean().sqrt()), parameters=sum(p.numel() for p in model.parameters()))
    (folder / "reference.json").write_text(json.dumps(info, indent=2) + "\n")
    report(name, folder, info)


def as_stored(model, dtype):
    """The model with its weights rounded to `dtype`. Only the weights: `model.to(dtype)` would round the
    frequencies of the rotation too, which no loader does."""
    import torch
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype))
    return model


def telling(gaps, greedy):
    """Whether a greedy continuation proves anything: no step too close to call, and not one token over and over."""
    return min(gaps) > MIN_GAP and 2 * len(set(greedy)) >= len(greedy)


def check_reload(folder, case, ids, logits):
    """A rewritten configuration must still mean the same model."""
    import torch
    import transformers
    model = getattr(transformers, case.cls).from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        error = (model(input_ids=ids, use_cache=False).logits[0] - logits).abs().max()
    if error > 1e-4:
        raise SystemExit(f"{folder.name}: the rewritten configuration is another model ({error:.1e})")


def report(name, folder, info):
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:28} seed {info['seed']:3} gap {info['min_greedy_gap']:.4f} rms {info['logits_rms']:.2f} "
          f"{size / 1024:.0f} KiB", flush=True)


# MLX.

class Mlx:
    """A float checkpoint, converted by mlx-lm."""

    def __init__(self, source, bits, group, *, recipe=None, floats=(), dtype=None, pinned=False):
        self.source = source    # name of a checkpoint above, or a Case made for this only
        self.bits = bits        # None: not quantized
        self.group = group
        self.recipe = recipe    # a mixed recipe of mlx-lm
        self.floats = floats    # module paths left unquantized, said so in `quantization`
        self.dtype = dtype      # of scales, biases and whatever is not quantized
        self.pinned = pinned


def mlx_cases():
    wide = dict(hidden_size=64, intermediate_size=64, head_dim=32)
    g128 = dict(hidden_size=128, intermediate_size=128, head_dim=64, num_attention_heads=2, num_key_value_heads=1)
    one = dict(num_hidden_layers=1)
    gemma = dict(wide, num_hidden_layers=3, sliding_window_pattern=3, query_pre_attn_scalar=40,
                 num_key_value_heads=1,
                 rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                                      sliding_attention=dict(rope_type="default", rope_theta=1e4)))
    return {
        "qwen3-mlx-4bit": Mlx("qwen3", 4, 32, pinned=True),
        "qwen3-mlx-8bit": Mlx("qwen3", 8, 64, pinned=True),
        "qwen3_5-mlx-4bit": Mlx("qwen3_5", 4, 32, pinned=True),
        "llama-mlx-3bit": Mlx(llama(wide, config_json=old_style), 3, 64),
        "llama-mlx-f16": Mlx(llama(dict(wide, **one, attention_bias=True), config_json=old_style), 4, 64,
                             dtype="float16"),
        "qwen2-mlx-6bit": Mlx(qwen2(dict(g128, **one), config_json=old_style), 6, 128),
        "qwen3-mlx-2bit": Mlx(qwen3(dict(g128, **one)), 2, 128),
        "qwen3-mlx-mixed": Mlx(qwen3(dict(wide, num_hidden_layers=3, tie_word_embeddings=False)), 3, 32,
                               recipe="mixed_3_6", floats=("model.layers.1.self_attn.o_proj",)),
        "qwen3_moe-mlx-4bit": Mlx(qwen3_moe(dict(wide, **one, moe_intermediate_size=32), config_json=old_moe), 4, 32),
        "gemma3-mlx-4bit": Mlx(gemma3(gemma, config_json=old_style), 4, 64),
        "qwen3_5-mlx-5bit": Mlx(qwen3_5(dict(wide, num_hidden_layers=4, tie_word_embeddings=False)), 5, 32),
        "qwen3_5-mlx-bf16": Mlx(qwen3_5(dict(num_hidden_layers=4)), None, None, dtype="bfloat16"),
    }


def old_moe(config):
    old_style(config)
    config["num_experts"] = config.pop("num_local_experts")


def make_mlx(name, case, out):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for seed in range(FIRST_SEED, FIRST_SEED + 1000):
            source = scratch / name
            if isinstance(case.source, str):
                shutil.copytree(out / case.source, source, dirs_exist_ok=True)
            else:
                make_source(source, case.source, seed)
            wrap_qwen3_5(source / "config.json")
            info = convert(source, out / name, case, seed)
            if info or case.pinned:
                break
        else:
            raise SystemExit(f"{name}: no seed gives a telling continuation")
    report(name, out / name, info)


def wrap_qwen3_5(path):
    """mlx-lm knows the text model only under the name of the whole model."""
    text = json.loads(path.read_text())
    if text["model_type"] == "qwen3_5_text":
        write_json(path, dict(architectures=["Qwen3_5ForConditionalGeneration"], model_type="qwen3_5",
                              text_config=text, tie_word_embeddings=text["tie_word_embeddings"]))


def make_source(folder, case, seed):
    """The float checkpoint alone, and the prompt, without the answers."""
    import torch
    import transformers
    from safetensors.torch import save_file
    torch.manual_seed(seed)
    gen = torch.Generator().manual_seed(seed + 1)
    model = getattr(transformers, case.cls)(case.config()).eval().to(torch.float32)
    randomize(model, gen)
    if case.tweak:
        case.tweak(model, gen)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    if case.config_json:
        config = json.loads((folder / "config.json").read_text())
        case.config_json(config)
        write_json(folder / "config.json", config)
    ids = torch.randint(3, model.config.vocab_size, (case.prompt,), generator=gen).to(torch.int32)
    save_file({"input_ids": ids, "greedy_ids": torch.zeros(case.new, dtype=torch.int32)},
              folder / "reference.safetensors")


def convert(source, folder, case, seed):
    """Converts `source` as mlx-lm's own command does; None when a greedy step is too close to call."""
    import importlib
    import importlib.metadata
    import mlx.core as mx
    from mlx.utils import tree_map_with_path
    from mlx_lm import utils
    from safetensors.numpy import load_file, save_file
    mx.set_default_device(mx.cpu)
    model, config = utils.load_model(source, lazy=False)
    if case.dtype:
        keep = getattr(model, "cast_predicate", lambda _: True)
        dtype = getattr(mx, case.dtype)
        model.update(tree_map_with_path(
            lambda k, v: v.astype(dtype) if keep(k) and mx.issubdtype(v.dtype, mx.floating) else v,
            model.parameters()))
    if case.bits:
        builder = importlib.import_module("mlx_lm.convert").mixed_quant_predicate_builder
        mixed = builder(case.recipe, model, case.group) if case.recipe else None
        own = getattr(model, "quant_predicate", None)

        def predicate(path, module):
            if path in case.floats:
                return False
            return (mixed or own or (lambda *_: True))(path, module)

        plain = not (mixed or own or case.floats)
        model, config = utils.quantize_model(model, config, case.group, case.bits,
                                             quant_predicate=None if plain else predicate)
        for path in case.floats:
            config["quantization"][path] = False
    shutil.rmtree(folder, ignore_errors=True)
    utils.save_model(folder, model)
    utils.save_config(config, folder / "config.json")

    model, _ = utils.load_model(folder, lazy=False)
    model.set_dtype(mx.float32)
    given_answers = load_file(source / "reference.safetensors")
    ids, new = given_answers["input_ids"], len(given_answers["greedy_ids"])
    logits = np.array(model(mx.array(ids)[None])[0].astype(mx.float32))
    seq, gaps = list(ids), []
    for _ in range(new):
        last = np.array(model(mx.array(np.array(seq, dtype=np.int32))[None])[0, -1].astype(mx.float32))
        second, best = np.argsort(last)[-2:]
        gaps.append(float(last[best] - last[second]))
        seq.append(best)
    if not (case.pinned or telling(gaps, seq[len(ids):])):
        return None
    save_file({"input_ids": ids.astype(np.int32), "logits": logits,
               "greedy_ids": np.array(seq[len(ids):], dtype=np.int32)}, folder / "reference.safetensors")
    version = importlib.metadata.version
    info = dict(architecture=config["architectures"][0], seed=seed, mlx=version("mlx"), mlx_lm=version("mlx-lm"),
                prompt_tokens=len(ids), new_tokens=new, min_greedy_gap=min(gaps),
                logits_rms=float(np.sqrt(np.square(logits).mean())))
    (folder / "reference.json").write_text(json.dumps(info, indent=2) + "\n")
    return info


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", help="names; all without it")
    args = parser.parse_args()
    for name, case in {**given(), **shapes()}.items():
        if not args.only or name in args.only:
            make(name, case, args.out)
    for name, case in mlx_cases().items():
        if not args.only or name in args.only:
            make_mlx(name, case, args.out)


if __name__ == "__main__":
    main()
