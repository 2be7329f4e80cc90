#!/usr/bin/env python3
"""Makes the model goldens beside this file: tiny random Mistral models and what transformers says about them.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 gguf==0.19.0 numpy==2.4.6
    python make_goldens.py            # rewrites every folder
    python make_goldens.py plain_gqa  # rewrites one

Each folder is a Hugging Face checkpoint (no tokenizer: prompts are ids) plus golden.json:

    dtype             dtype of the weights
    min_gap           smallest distance between the two best logprobs over all greedy steps of all prompts
    max_dtype_error   largest |logprob in dtype - logprob in f32| over all listed entries (0 for f32 models)
    prompts[]         prompt: ids; greedy: 24 new ids; logprobs: for the first 8 of them the ten best [id, logprob],
                      computed in the dtype of the weights; logprobs_f32: the same ids, same weights, computed in f32

Everything is read back through `from_pretrained`, so config.json means here what it means to transformers.
Weights are random but scaled so that distributions are neither flat nor collapsed, and prompts are searched until no
greedy step is nearly a tie: a correct implementation that rounds differently still takes the same path.
In half precision the path must also be the same when the same weights are computed in f32, and the logprobs of both
must agree within HALF_ERROR, so that the goldens bind implementations of either kind.

Choices that keep the set under 3 MB: vocabularies of 128 to 256 ids, and 16 hidden units with tied embeddings for the
one with v0.3's 32768 ids. Most config.json files are written as on the Hub (`rope_theta`, `torch_dtype`), the one
in `head_dim_sharded` as transformers 5 writes them (`rope_parameters`, `dtype`): loaders meet both.
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import MistralForCausalLM

HERE = Path(__file__).parent
NEW_TOKENS = 24
LOGPROB_STEPS = 8
TOP = 10
HALF_ERROR = 0.018
MIN_DISTINCT = 5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIN_GAP = {"float32": 0.01, "bfloat16": 0.05, "float16": 0.03}


@dataclass
class Case:
    name: str
    dtype: str
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    prompt_lengths: tuple
    window: int | None = None
    head_dim: int | None = None
    theta: float = 10000.0
    tied: bool = False
    shards: int = 1
    new_style_config: bool = False
    f16_values: bool = False  # values that f16 holds exactly, so that an F16 GGUF is the same model
    special_ids: tuple = field(default=())  # put into the prompts: ids only a large vocabulary has
    logit_scale: float = 1.6
    mix: float = 1.0  # how much the blocks add to the residual stream, relative to the embeddings
    seed: int = 1

    @property
    def min_gap(self):
        return MIN_GAP[self.dtype]

    @property
    def width(self):
        return self.head_dim or self.hidden // self.heads


CASES = [
    Case("plain_gqa", "float32", 64, 32, 2, 4, 2, 128, (1, 9, 47), f16_values=True),
    Case("sliding_window", "float32", 64, 48, 2, 4, 1, 128, (5, 16, 53), window=16, logit_scale=2.0),
    Case("head_dim_sharded", "float32", 64, 48, 2, 2, 1, 128, (3, 21, 44), head_dim=48, shards=3, new_style_config=True),
    Case("tied_bf16", "bfloat16", 64, 64, 2, 4, 2, 256, (4, 18, 50), tied=True, logit_scale=0.5, mix=0.8),
    Case("vocab_v03", "bfloat16", 16, 32, 2, 2, 1, 32768, (6, 19, 60), theta=1e6, head_dim=32, tied=True,
         special_ids=(3, 4, 32767, 770, 32000), logit_scale=0.45, mix=0.65),
    Case("k_quant_f16", "float16", 256, 256, 1, 8, 1, 256, (4, 17, 41), tied=True, mix=4.0),
]


def config_of(case):
    config = {
        "architectures": ["MistralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": case.hidden,
        "initializer_range": 0.02,
        "intermediate_size": case.ffn,
        "max_position_embeddings": 32768 if case.theta > 10000 else 512,
        "model_type": "mistral",
        "num_attention_heads": case.heads,
        "num_hidden_layers": case.layers,
        "num_key_value_heads": case.kv_heads,
        "rms_norm_eps": 1e-05,
        "sliding_window": case.window,
        "tie_word_embeddings": case.tied,
        "use_cache": True,
        "vocab_size": case.vocab,
    }
    if case.head_dim:
        config["head_dim"] = case.head_dim
    if case.new_style_config:
        config["dtype"] = case.dtype
        config["rope_parameters"] = {"rope_theta": case.theta, "rope_type": "default"}
    else:
        config["torch_dtype"] = case.dtype
        config["rope_theta"] = case.theta
    return dict(sorted(config.items()))


def weights_of(case):
    """Random weights under the Hub's names. The residual stream starts at `embedding` and every block adds about
    twice that, so that the output depends on the context and not mostly on the last token."""
    rng = torch.Generator().manual_seed(case.seed)
    dtype = DTYPES[case.dtype]

    def finish(tensor):
        return (tensor.half().float() if case.f16_values else tensor).to(dtype).contiguous()

    def matrix(rows, columns, gain):
        return finish(torch.randn(rows, columns, generator=rng) * gain / columns**0.5)

    def norm():
        return finish(1 + 0.2 * torch.randn(case.hidden, generator=rng))

    head_gain = case.logit_scale
    embedding = head_gain / case.hidden**0.5 if case.tied else 1.0
    weights = {"model.embed_tokens.weight": finish(torch.randn(case.vocab, case.hidden, generator=rng) * embedding)}
    for layer in range(case.layers):
        prefix = f"model.layers.{layer}."
        query, key = case.heads * case.width, case.kv_heads * case.width
        weights |= {
            prefix + "self_attn.q_proj.weight": matrix(query, case.hidden, 1.5),
            prefix + "self_attn.k_proj.weight": matrix(key, case.hidden, 1.5),
            prefix + "self_attn.v_proj.weight": matrix(key, case.hidden, 1.0),
            prefix + "self_attn.o_proj.weight": matrix(case.hidden, query, 3 * case.mix * embedding),
            prefix + "mlp.gate_proj.weight": matrix(case.ffn, case.hidden, 1.5),
            prefix + "mlp.up_proj.weight": matrix(case.ffn, case.hidden, 1.5),
            prefix + "mlp.down_proj.weight": matrix(case.hidden, case.ffn, 2 * case.mix * embedding),
            prefix + "input_layernorm.weight": norm(),
            prefix + "post_attention_layernorm.weight": norm(),
        }
    weights["model.norm.weight"] = norm()
    if not case.tied:
        weights["lm_head.weight"] = matrix(case.vocab, case.hidden, head_gain)
    return weights


def save_checkpoint(case, weights, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(case), indent=2) + "\n")
    if case.shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    step = -(-len(names) // case.shards)
    weight_map = {}
    for shard in range(case.shards):
        file = f"model-{shard + 1:05}-of-{case.shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard * step : (shard + 1) * step]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in part}
    total = sum(t.numel() * t.element_size() for t in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def load(folder, dtype, **overrides):
    model = MistralForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager", **overrides).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


@torch.no_grad()
def greedy(model, prompt, min_gap):
    """Ids and logprobs of every greedy step through the KV cache, or None as soon as two ids are nearly tied."""
    ids, cache, step, rows, gap = torch.tensor([prompt]), None, [], [], float("inf")
    for _ in range(NEW_TOKENS):
        out = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        row = out.logits[0, -1].float().log_softmax(-1)
        best = row.topk(2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        if gap < min_gap:
            return None
        step.append(int(best.indices[0]))
        rows.append(row)
        ids = torch.tensor([step[-1:]])
    return step, rows, gap


@torch.no_grad()
def generated(model, prompt):
    """The same through `generate`, the way users run it."""
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True)
    return out[0, len(prompt) :].tolist()


def entry(prompt, run, run_f32):
    tops = [row.topk(TOP) for row in run[1][:LOGPROB_STEPS]]
    pairs = [[[int(i), round(float(p), 6)] for i, p in zip(t.indices, t.values)] for t in tops]
    pairs_f32 = [[[i, round(float(row[i]), 6)] for i, _ in step] for step, row in zip(pairs, run_f32[1])]
    error = max(abs(a[1] - b[1]) for s, t in zip(pairs, pairs_f32) for a, b in zip(s, t))
    made = {"prompt": prompt, "greedy": run[0], "logprobs": pairs}
    return (made | {"logprobs_f32": pairs_f32}, error)


def search_prompt(case, length, model, model_f32, rng):
    for attempt in range(20000):
        prompt = [1] + rng.integers(3, case.vocab, length - 1).tolist()
        for place, special in zip(range(2, length, 2), case.special_ids):
            prompt[place] = special
        if length == 1:
            prompt = [int(rng.integers(3, case.vocab))]
        run = greedy(model, prompt, case.min_gap)
        if run is None or len(set(run[0])) < MIN_DISTINCT:
            continue
        run_f32 = greedy(model_f32, prompt, case.min_gap) if model_f32 is not model else run
        if run_f32 is None or run_f32[0] != run[0]:
            continue
        made, error = entry(prompt, run, run_f32)
        if error > HALF_ERROR or (case.vocab > 32000 and max(run[0]) < 32000):
            continue
        assert generated(model, prompt) == run[0], f"{case.name}: generate and the loop disagree"
        if model_f32 is model:
            del made["logprobs_f32"]
        return made, min(run[2], run_f32[2]), error, attempt
    raise SystemExit(f"{case.name}: no prompt of {length} ids without a near tie, try another seed or logit_scale")


@torch.no_grad()
def assert_window_matters(case, folder, prompt):
    """The window must change both the logits and the greedy ids of a prompt longer than it."""
    windowed, full = load(folder, torch.float32), load(folder, torch.float32, sliding_window=None)
    ids = torch.tensor([prompt["prompt"]])
    difference = float((windowed(ids).logits - full(ids).logits)[0].abs().amax(-1)[-1])
    inside = float((windowed(ids).logits - full(ids).logits)[0, : case.window].abs().max())
    assert inside < 1e-4, "positions inside the window must not change"
    assert difference > 0.1 and generated(full, prompt["prompt"]) != prompt["greedy"], "the window changes nothing"
    return difference


def write_gguf(case, weights, path):
    """The same weights as llama.cpp's converter lays them out: F16 matrices, F32 norms, and rows of Q and K permuted from
    half-split to interleaved rotary pairs. The vocabulary is a stand-in: one piece per id."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(case.name)
    writer.add_context_length(512)
    writer.add_embedding_length(case.hidden)
    writer.add_block_count(case.layers)
    writer.add_feed_forward_length(case.ffn)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(case.theta)
    writer.add_rope_dimension_count(case.width)
    writer.add_vocab_size(case.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    pieces = ["<unk>", "<s>", "</s>"] + ["\u2581"] + [chr(33 + i) for i in range(94)]
    pieces += [chr(0x3B1 + i) for i in range(case.vocab - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * 3 + [-float(i) for i in range(case.vocab - 3)])
    writer.add_token_types([2, 3, 3] + [1] * (case.vocab - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, case.layers)
    for name, tensor in weights.items():
        data = tensor.float().numpy()
        for part, heads in (("q_proj", case.heads), ("k_proj", case.kv_heads)):
            if part in name:
                split = data.reshape(heads, 2, data.shape[0] // heads // 2, data.shape[1])
                data = split.swapaxes(1, 2).reshape(data.shape)
        data = np.ascontiguousarray(data, dtype=np.float32 if data.ndim == 1 else np.float16)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(case):
    folder = HERE / case.name
    weights = weights_of(case)
    save_checkpoint(case, weights, folder)
    model = load(folder, DTYPES[case.dtype])
    model_f32 = model if case.dtype == "float32" else load(folder, torch.float32)
    assert model.config.rope_parameters["rope_theta"] == case.theta and model.config.sliding_window == case.window
    rng = np.random.default_rng(case.seed)
    found = [search_prompt(case, n, model, model_f32, rng) for n in case.prompt_lengths]
    golden = {
        "case": case.name,
        "dtype": case.dtype,
        "made_with": f"torch {torch.__version__.split('+')[0]}, transformers 5.23.0, eager attention, CPU",
        "min_gap": round(min(f[1] for f in found), 6),
        "max_dtype_error": round(max(f[2] for f in found), 6),
    }
    if case.window:
        golden["full_attention_logit_difference"] = round(assert_window_matters(case, folder, found[-1][0]), 6)
    golden["prompts"] = [f[0] for f in found]
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    if case.f16_values:
        write_gguf(case, weights, folder / "gguf_f16.gguf")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{case.name}: {size} bytes, min gap {golden['min_gap']}, dtype error {golden['max_dtype_error']}, "
          f"attempts {[f[3] for f in found]}, distinct {[len(set(f[0]['greedy'])) for f in found]}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for case in CASES:
        if not sys.argv[1:] or case.name in sys.argv[1:]:
            make(case)
