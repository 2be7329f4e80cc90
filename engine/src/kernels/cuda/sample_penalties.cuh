// What was seen of each token, and what that takes from its logit.
#pragma once
#include "sample_row.cuh"

// The top bit of a token's count: it is in the prompt. The others: how often it is in the answer.
constexpr unsigned IN_PROMPT = 0x80000000u;

struct Penalties {
    float repetition, presence, frequency;
};

// A product that is not fused with the sum it goes into, so that it is rounded as on the CPU.
#ifdef __CUDACC__
DEVICE float product(float a, float b) { return __fmul_rn(a, b); }
#else
DEVICE float product(float a, float b) { return a * b; }
#endif

DEVICE float penalized(float logit, unsigned count, const Penalties& penalties) {
    if (count == 0) return logit;
    logit = logit > 0.f ? logit / penalties.repetition : product(logit, penalties.repetition);
    unsigned generated = count & ~IN_PROMPT;
    if (generated == 0) return logit;
    return logit - (penalties.presence + product(penalties.frequency, float(generated)));
}

// The row after penalties, in `out`.
DEVICE Row penalize(float* out, const unsigned* counts, const Row& row, const Penalties& penalties) {
    for_each_group(row, [&](int id, const float(&logits)[TOKENS]) {
#pragma unroll
        for (int i = 0; i < TOKENS; i++) {
            if (id + i < row.vocabulary) out[id + i] = penalized(logits[i], counts[id + i], penalties);
        }
    });
    __syncthreads();
    return {out, row.vocabulary, row.aligned};
}
