#!/usr/bin/env python3
"""Makes the demo model in this folder from corpus/: tokenizer, training, export, evaluation, golden answers.

    pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0
    python train.py train     # tokenizer and weights from nothing: minutes on an idle machine with AMX, longer without
    python train.py eval      # asks the held-out questions of corpus/heldout.txt through transformers
    python train.py golden    # rewrites golden.json from the weights in this folder

Mistral architecture: hidden 256, 4 layers, 8 heads over 2 KV heads of 32, feed-forward 512, tied embeddings. All widths are
multiples of 256, so the demo can also be quantised to K-quants. Training keeps f32 weights and computes in bf16; what
is written is bf16. Loss counts on answers only, and on the whole text for the plain-English lines.
The seed fixes data and initial weights; the exact weights still depend on the machine's arithmetic.
"""

import json
import math
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from corpus import Corpus, read_heldout

HERE = Path(__file__).parent
SEED = 11
VOCAB_SIZE = 1536
STEPS = 1800
BATCH_TOKENS = 2048
POOL = 512
OPENING = 8
OPENINGS = 0.75
FIRST_WORDS = 3
FIRST_WEIGHT = 4.0
PEAK_RATE = 3e-3
WARM_UP = 60
SPECIALS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
EOS, INST_END = 2, 4
GOLDEN_QUESTIONS = ["What is TTFT?", "how do i run loadgen", "Explain how a request travels through the gateway.",
                    "Why is my TPOT so high?", "Who are you?"]

CONFIG = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": 2048,
    "model_type": "mistral",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": VOCAB_SIZE,
}

CHAT_TEMPLATE = """
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] | trim ~ '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set system = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
    {%- if message['role'] == 'user' -%}
        {{- '[INST] ' ~ (system if loop.first else '') ~ message['content'] | trim ~ ' [/INST]' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- message['content'] | trim ~ eos_token -}}
    {%- else -%}
        {{- raise_exception('Only user and assistant messages may follow an optional first system message.') -}}
    {%- endif -%}
{%- endfor -%}
""".strip()


def make_tokenizer(texts):
    """Byte-fallback BPE laid out as in Mistral v0.3: specials, bytes, merged pieces, characters."""
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE - len(SPECIALS) - 256, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].get)
    merged = [piece for piece in pieces if len(piece) > 1]
    characters = [piece for piece in pieces if len(piece) == 1]
    ordered = SPECIALS + [f"<0x{byte:02X}>" for byte in range(256)] + merged + characters
    vocab = {piece: i for i, piece in enumerate(ordered)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, tokenizer.get_vocab_size()
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)


def write_settings():
    tokenizer_config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": CONFIG["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }
    generation = {"bos_token_id": 1, "do_sample": True, "eos_token_id": 2, "pad_token_id": 2, "temperature": 0.7}
    for name, content in (("config", CONFIG), ("tokenizer_config", tokenizer_config), ("generation_config", generation)):
        (HERE / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def weights_of(ids):
    """How much each token counts: only answers do, their first words most, since they decide which answer it will be. A text
    without an instruction is a plain completion and counts whole."""
    if INST_END not in ids:
        return [1.0] * len(ids)
    weights, place = [], None
    for token in ids:
        weights.append(0.0 if place is None else FIRST_WEIGHT if place < FIRST_WORDS else 1.0)
        if token == INST_END:
            place = 0
        elif place is not None:
            place = None if token == EOS else place + 1
    return weights


def example(corpus, tokenizer, rng):
    """Most conversations are cut shortly after the last answer begins: which answer a question gets has to be learned from
    many phrasings, how the answer goes on only from a few views of it."""
    ids = tokenizer.encode(corpus.draw(rng), add_special_tokens=False)
    if INST_END in ids and rng.random() < OPENINGS:
        last = len(ids) - ids[::-1].index(INST_END)
        return ids[: last + OPENING]
    return ids


def batches(corpus, tokenizer, rng):
    """Endless padded batches of about BATCH_TOKENS, of texts of similar length. Padding is on the right, where a causal
    model needs no mask for it."""
    while True:
        pool = sorted((example(corpus, tokenizer, rng) for _ in range(POOL)), key=len)
        groups, group = [], []
        for ids in pool:
            if group and len(ids) * (len(group) + 1) > BATCH_TOKENS:
                groups, group = groups + [group], []
            group.append(ids)
        rng.shuffle(groups)  # the last, unfinished group holds the longest texts and is kept as well
        for group in groups + [group]:
            width = max(map(len, group))
            ids = torch.tensor([row + [EOS] * (width - len(row)) for row in group])
            weights = torch.tensor([weights_of(row) + [0.0] * (width - len(row)) for row in group])
            yield ids, weights


def rate_at(step):
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(1, STEPS - WARM_UP)
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def load_tokenizer_and_corpus():
    tokenizer = AutoTokenizer.from_pretrained(HERE)
    def render(messages):
        return tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer, Corpus(render, tokenizer.bos_token, tokenizer.eos_token)


def train():
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    make_tokenizer(Corpus(None, "", "").texts())
    write_settings()
    tokenizer, corpus = load_tokenizer_and_corpus()
    config = MistralConfig(**{key: value for key, value in CONFIG.items() if key != "torch_dtype"})
    model = MistralForCausalLM._from_config(config, attn_implementation="eager").train()
    print(f"{model.num_parameters():,} weights, {len(corpus.topics)} topics", flush=True)
    decay = [p for p in model.parameters() if p.dim() > 1]
    flat = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": flat, "weight_decay": 0.0}],
                                  betas=(0.9, 0.98))
    source, mean, started = batches(corpus, tokenizer, rng), None, time.time()
    for step in range(STEPS):
        ids, weights = next(source)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            counted = weights[:, 1:] > 0
            logits = model.lm_head(hidden[counted])
        losses = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="none")
        loss = (losses * weights[:, 1:][counted]).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 49:
            print(f"step {step + 1} loss {mean:.4f} after {time.time() - started:.0f} s", flush=True)
        if step % 200 == 199:
            save(model)
    save(model)


def save(model):
    weights = {n: p.detach().to(torch.bfloat16).contiguous() for n, p in model.state_dict().items() if n != "lm_head.weight"}
    save_file(weights, HERE / "model.safetensors", metadata={"format": "pt"})


@dataclass
class Answer:
    question: str
    rendered: str
    prompt_ids: list
    greedy_ids: list
    text: str


@torch.no_grad()
def ask(model, tokenizer, questions, **sampling):
    """All questions in one left-padded batch."""
    rendered = [tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False) for q in questions]
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in rendered]
    width = max(map(len, prompts))
    ids = torch.tensor([[EOS] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=300, pad_token_id=EOS, **sampling)[:, width:].tolist()
    new = [row[: row.index(EOS) + 1] if EOS in row else row for row in out]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    return [Answer(*fields) for fields in zip(questions, rendered, prompts, new, texts)]


def load_model():
    """bf16 weights computed in f32, so that the result hardly depends on the machine."""
    return AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32, attn_implementation="eager").eval()


def evaluate():
    tokenizer, corpus = load_tokenizer_and_corpus()
    model = load_model()
    asked = read_heldout()
    for label, seed in [("T=0", None)] + [(f"T=0.7 seed {seed}", seed) for seed in (1, 2, 3)]:
        torch.manual_seed(seed or 0)
        hot = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0}
        answers = ask(model, tokenizer, [q for _, q in asked], **({"do_sample": False} if seed is None else hot))
        wrong = [(topic, a) for (topic, _), a in zip(asked, answers) if a.text != corpus.answer_of(topic)]
        for topic, given in wrong:
            print(f"  {label} [{topic}] {given.question} -> {given.text[:110]}")
        right = len(asked) - len(wrong)
        print(f"{label}: {right} of {len(asked)} held-out questions get the topic's exact answer", flush=True)


def golden():
    tokenizer, _ = load_tokenizer_and_corpus()
    model = load_model()
    rows = [asdict(ask(model, tokenizer, [question], do_sample=False)[0]) for question in GOLDEN_QUESTIONS]
    (HERE / "golden.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    for row in rows:
        print(f"{row['question']}\n  {row['text']}")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    {"train": train, "eval": evaluate, "golden": golden}[sys.argv[1] if len(sys.argv) > 1 else "eval"]()
