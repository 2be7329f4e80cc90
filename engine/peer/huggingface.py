#!/usr/bin/env python3
"""Measures transformers on a GPU, as `engine-bench --peer engine/peer/huggingface.py` asks for it:

    MODEL=FOLDER [PROMPTS=128,512] [BATCHES=1,8,25,50] [STEPS=12] [PEER_SECONDS=300] engine/peer/huggingface.py

MODEL is a Hugging Face folder; it is computed in bf16. Prints a line per prompt length, and one per batch and prompt
length for decoding at that context, the best of its steps each. Prompts go through PyTorch's flash attention as the
library calls it; decoding is a `StaticCache` with `torch.compile(mode="reduce-overhead")`, the library's own advice.
Where compiling fails, the plain model is measured instead, and stderr says so.

Rows are computed from the smallest to the largest; those that PEER_SECONDS would not last for are left out.
PEER_DEVICE=cpu tries it without a GPU. Written for torch 2.11 and transformers 5.17.
"""

import gc
import importlib.util
import itertools
import math
import os
import statistics
import sys
import time

# The weights are a local folder: nothing is asked of a server.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, StaticCache

STARTED = time.monotonic()
MODEL = os.environ["MODEL"]
PROMPTS = sorted(int(number) for number in os.environ.get("PROMPTS", "128,512").split(","))
BATCHES = sorted(int(number) for number in os.environ.get("BATCHES", "1,8,25,50").split(","))
STEPS = int(os.environ.get("STEPS", "12"))
SECONDS = float(os.environ.get("PEER_SECONDS", "300"))
DEVICE = torch.device(os.environ.get("PEER_DEVICE", "cuda"))
PROMPTS_MEASURED = 3
# The first compiles, the second runs what was compiled, the third records a CUDA graph.
WARM_UPS = 4
# Caches are a multiple of this long, so that attention's kernels may load whole vectors of the mask.
CACHE_MULTIPLE = 64


def log(text):
    print(f"transformers: {text}", file=sys.stderr, flush=True)


def seconds_left():
    return SECONDS - (time.monotonic() - STARTED)


def timed(function):
    """Seconds that `function` takes, by the device's own clock where it has one."""
    if DEVICE.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def load():
    """The model on the device; directly where `accelerate` is installed, else by way of the host."""
    options = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    if importlib.util.find_spec("accelerate"):
        return AutoModelForCausalLM.from_pretrained(MODEL, device_map=DEVICE, **options).eval()
    return AutoModelForCausalLM.from_pretrained(MODEL, **options).to(DEVICE).eval()


def random_tokens(model, *shape):
    return torch.randint(3, model.config.vocab_size, shape, device=DEVICE)


def measure_prefill(model, prompt):
    """A prompt from an empty cache: a new one each time, so that attention may take its causal path."""
    tokens = random_tokens(model, 1, prompt)

    def compute():
        model(tokens, use_cache=True, logits_to_keep=1)

    compute()
    seconds = [timed(compute) for _ in range(min(STEPS, PROMPTS_MEASURED))]
    best, middle = min(seconds), statistics.median(seconds)
    print(f"pp{prompt}: {prompt / best:.2f} t/s best, {prompt / middle:.2f} t/s median of {len(seconds)}", flush=True)


class Decode:
    """One token for each sequence after its context, always the same step."""

    def __init__(self, model, batch, prompt):
        self.prompt, self.cache = prompt, self.filled_cache(model, batch, prompt)
        self.tokens = random_tokens(model, batch, 1)

    @staticmethod
    def filled_cache(model, batch, prompt):
        """A cache of anything: computing so many prompts would take long, and what they say has no bearing on speed."""
        config, length = model.config, -(-(prompt + 1) // CACHE_MULTIPLE) * CACHE_MULTIPLE
        cache = StaticCache(config=config, max_cache_len=length)
        cache.early_initialization(batch, config.num_key_value_heads, config.head_dim, torch.bfloat16, DEVICE)
        for layer in cache.layers:
            layer.keys.normal_()
            layer.values.normal_()
        return cache

    def take_back(self):
        """The context is as long as before the step."""
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self.prompt)

    def step(self, forward):
        self.take_back()
        torch.compiler.cudagraph_mark_step_begin()
        return timed(lambda: forward(self.tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1))

    def measure(self, forward):
        for _ in range(WARM_UPS):
            self.step(forward)
        return [self.step(forward) for _ in range(STEPS)]


def measure_compiled(model, decode):
    """The seconds of each step, compiled if that succeeds."""
    torch.compiler.reset()
    try:
        return decode.measure(torch.compile(model.forward, mode="reduce-overhead", dynamic=False))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        log(f"compiling failed, so what follows is the plain model: {type(error).__name__}: {str(error)[:500]}")
        torch.compiler.reset()
        return decode.measure(model.forward)


def measure_decode(model, batch, prompt):
    decode = Decode(model, batch, prompt)
    seconds = measure_compiled(model, decode)
    best, middle = min(seconds), statistics.median(seconds)
    print(f"tg B={batch} at {prompt}: step {best * 1e3:.3f} ms best ({batch / best:.2f} tok/s), "
          f"{middle * 1e3:.3f} ms median ({batch / middle:.2f} tok/s) of {len(seconds)}", flush=True)


def give_memory_back():
    torch.compiler.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def measure_within_time(name, measure, longest):
    """Measures one row unless there is too little time for it; returns what the longest has taken."""
    if seconds_left() < longest * 1.2:
        log(f"{name} is left out: {seconds_left():.0f} s are left, and the longest row has taken {longest:.0f} s")
        return longest
    start = time.monotonic()
    try:
        measure()
    except torch.cuda.OutOfMemoryError:
        log(f"{name} is left out: the GPU's memory does not hold it")
    give_memory_back()
    took = time.monotonic() - start
    log(f"{name} took {took:.0f} s")
    return max(longest, took)


@torch.no_grad()
def main():
    model = load()
    log(f"loaded after {time.monotonic() - STARTED:.0f} s")
    longest = 0.0
    for prompt in PROMPTS:
        longest = measure_within_time(f"pp{prompt}", lambda: measure_prefill(model, prompt), longest)
    longest = 0.0
    for batch, prompt in sorted(itertools.product(BATCHES, PROMPTS), key=math.prod):
        longest = measure_within_time(f"tg B={batch} at {prompt}", lambda: measure_decode(model, batch, prompt), longest)


if __name__ == "__main__":
    main()
