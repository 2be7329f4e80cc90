// A split for every type and every head size up to 256, by single multiplications: scores with one position per
// thread, then weighted values with eight numbers of a position per thread. Four queries are computed together.
#pragma once

#include "attention_split.cuh"

constexpr int TOGETHER = 4;
static_assert(TOGETHER == SPLIT_WARPS, "a warp per query computes the weights");
constexpr int MOST_NUMBERS = 256;

struct AnySplitShared {
    float queries[TOGETHER][MOST_NUMBERS];
    float weights[TOGETHER][SPLIT];
    // Of the values; zero where a position is not seen.
    float scales[SPLIT];
    // Weighted values, `[part][query][head_dim]`; there are as many parts as fit.
    float sums[TOGETHER * SPLIT_THREADS * 8];
};

// The scores of the thread's position.
template <class X, class S>
DEVICE void score_position(AnySplitShared& shared, const Split<X, S>& split) {
    int position = split.first + threadIdx.x;
    bool seen = sees(split.seen, position);
    size_t row = seen ? row_of(split.pages, position) : 0;
    float scores[TOGETHER] = {};
    const S* key = split.cache.keys + row * split.head_dim;
#pragma unroll 4
    for (int at = 0; at < split.head_dim; at += 8) {
        Eight<S> stored;
        float numbers[8];
        load_eight(stored, key + at, seen);
        to_floats(numbers, stored);
#pragma unroll
        for (int q = 0; q < TOGETHER; q++) {
#pragma unroll
            for (int i = 0; i < 8; i++) scores[q] = fmaf(shared.queries[q][at + i], numbers[i], scores[q]);
        }
    }
    float key_scale = split.scale, value_scale = seen ? 1.f : 0.f;
    if constexpr (SCALED<S>) {
        if (seen) key_scale *= split.cache.key_scales[row], value_scale = split.cache.value_scales[row];
    }
    shared.scales[threadIdx.x] = value_scale;
#pragma unroll
    for (int q = 0; q < TOGETHER; q++) shared.weights[q][threadIdx.x] = seen ? scores[q] * key_scale : -INFINITY;
}

// Turns the scores of one query, the warp's, into weights times the values' scales.
DEVICE void weigh(AnySplitShared& shared, int query, float* record_end) {
    constexpr int EACH = SPLIT / WARP;
    int lane = threadIdx.x % WARP;
    float(&weights)[SPLIT] = shared.weights[query];
    float highest = -INFINITY, total = 0.f;
#pragma unroll
    for (int i = 0; i < EACH; i++) highest = fmaxf(highest, weights[lane + i * WARP]);
    highest = warp_max(highest);
    float base = highest == -INFINITY ? 0.f : highest;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float weight = exp2f(weights[lane + i * WARP] - base);
        total += weight;
        weights[lane + i * WARP] = weight * shared.scales[lane + i * WARP];
    }
    total = warp_sum(total);
    if (lane == 0 && record_end != nullptr) record_end[0] = highest, record_end[1] = total;
}

// How lanes share the values of a warp's positions: `across` lanes for a position's numbers, `down` positions at once.
struct Lanes {
    int across, down, chunk, first;
};
DEVICE Lanes lanes_for(int head_dim) {
    int lane = threadIdx.x % WARP, across = head_dim / 8;
    return {across, WARP / across, lane % across, lane / across};
}

// The thread's part of the weighted values, into `sums`.
template <class X, class S>
DEVICE void sum_values(AnySplitShared& shared, const Split<X, S>& split) {
    Lanes lanes = lanes_for(split.head_dim);
    int warp = threadIdx.x / WARP, warp_first = warp * (SPLIT / SPLIT_WARPS);
    if (lanes.first >= lanes.down) return;
    float sums[TOGETHER][8] = {};
    for (int within = lanes.first; within < SPLIT / SPLIT_WARPS; within += lanes.down) {
        int position = split.first + warp_first + within;
        if (!sees(split.seen, position)) continue;
        Eight<S> stored;
        float numbers[8];
        size_t row = row_of(split.pages, position);
        load_eight(stored, split.cache.values + row * split.head_dim + 8 * lanes.chunk, true);
        to_floats(numbers, stored);
#pragma unroll
        for (int q = 0; q < TOGETHER; q++) {
            float weight = shared.weights[q][warp_first + within];
#pragma unroll
            for (int i = 0; i < 8; i++) sums[q][i] = fmaf(weight, numbers[i], sums[q][i]);
        }
    }
    int part = warp * lanes.down + lanes.first;
#pragma unroll
    for (int q = 0; q < TOGETHER; q++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            shared.sums[(part * TOGETHER + q) * split.head_dim + 8 * lanes.chunk + i] = sums[q][i];
        }
    }
}

template <class X, class S>
DEVICE void attend_split_any(AnySplitShared& shared, const Split<X, S>& split) {
    int parts = lanes_for(split.head_dim).down * SPLIT_WARPS;
    for (int first = 0; first < split.group; first += TOGETHER) {
        int count = min(TOGETHER, split.group - first);
        const X* queries = split.queries + first * split.head_dim;
        for (int i = threadIdx.x; i < TOGETHER * split.head_dim; i += SPLIT_THREADS) {
            int query = i / split.head_dim;
            shared.queries[query][i % split.head_dim] = query < count ? to_float(queries[i]) : 0.f;
        }
        __syncthreads();
        score_position(shared, split);
        __syncthreads();
        int query = threadIdx.x / WARP;
        float* records = split.records + first * split.record_stride;
        weigh(shared, query, query < count ? records + query * split.record_stride + split.head_dim : nullptr);
        __syncthreads();
        sum_values(shared, split);
        __syncthreads();
        for (int i = threadIdx.x; i < count * split.head_dim; i += SPLIT_THREADS) {
            int query = i / split.head_dim, at = i % split.head_dim;
            float sum = 0.f;
            for (int part = 0; part < parts; part++) {
                sum += shared.sums[(part * TOGETHER + query) * split.head_dim + at];
            }
            records[query * split.record_stride + at] = sum;
        }
    }
}
