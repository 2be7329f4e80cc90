// A row of logits as the block that samples from it sees it, and passes over it. Each warp has one segment of the
// row, in the order of the ids.
#pragma once
#include "common.cuh"

// Threads of a block that samples.
constexpr int SAMPLERS = 1024;
constexpr int SEGMENTS = SAMPLERS / WARP;
// Tokens that a thread takes at once, a group, and that a warp does.
constexpr int TOKENS = 4;
constexpr int STRIDE = TOKENS * WARP;

constexpr float INFINITE = __builtin_huge_valf(), NOT_A_NUMBER = __builtin_nanf("");

struct Row {
    const float* logits;
    int vocabulary;
    // Whether each group is 16 aligned bytes.
    bool aligned;
};

// The logits of the group that begins with `id`; beyond `end` they are NaN, which no pass takes for a token.
DEVICE float4 load_group(const Row& row, int id, int end) {
    const float* in = row.logits + id;
    if (row.aligned && id + TOKENS <= end) return *reinterpret_cast<const float4*>(in);
    float4 out = {NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER};
    if (id < end) out.x = in[0];
    if (id + 1 < end) out.y = in[1];
    if (id + 2 < end) out.z = in[2];
    if (id + 3 < end) out.w = in[3];
    return out;
}

// A warp's part of the row.
struct Segment {
    int begin, end;
};
DEVICE Segment segment_of(const Row& row, int index) {
    int len = (row.vocabulary + SEGMENTS * STRIDE - 1) / (SEGMENTS * STRIDE) * STRIDE;
    return {min(index * len, row.vocabulary), min((index + 1) * len, row.vocabulary)};
}

// Calls `visit(id, logits)` for each group of tokens, `id` being the first's; each thread's in the order of the ids.
// The next logits are on their way while these are visited.
template <class Visit>
DEVICE void for_each_group(const Row& row, Visit visit) {
    Segment segment = segment_of(row, threadIdx.x / WARP);
    int id = segment.begin + threadIdx.x % WARP * TOKENS;
    float4 next = load_group(row, id, segment.end);
#pragma unroll 1
    for (; id < segment.end; id += STRIDE) {
        float logits[TOKENS] = {next.x, next.y, next.z, next.w};
        next = load_group(row, id + STRIDE, segment.end);
        visit(id, logits);
    }
}

// The token with the highest logit: the first of them, and never one that is NaN.
struct Best {
    float logit;
    int id;
};
DEVICE Best better(Best a, Best b) {
    return b.logit > a.logit || (b.logit == a.logit && b.id < a.id) ? b : a;
}
DEVICE Best warp_best(Best best) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        Best other = {__shfl_xor_sync(ALL_LANES, best.logit, offset), __shfl_xor_sync(ALL_LANES, best.id, offset)};
        best = better(best, other);
    }
    return best;
}
static __device__ __noinline__ Best best_of(Row row) {
    __shared__ float logits[SEGMENTS];
    __shared__ int ids[SEGMENTS];
    Best best = {-INFINITE, 0x7fffffff};
    for_each_group(row, [&](int id, const float(&logits)[TOKENS]) {
#pragma unroll
        for (int i = 0; i < TOKENS; i++) {
            if (logits[i] > best.logit) best = {logits[i], id + i};
        }
    });
    best = warp_best(best);
    // Nobody still reads what was best of another row.
    __syncthreads();
    int lane = threadIdx.x % WARP;
    if (lane == 0) logits[threadIdx.x / WARP] = best.logit, ids[threadIdx.x / WARP] = best.id;
    __syncthreads();
    return warp_best({logits[lane], ids[lane]});
}
