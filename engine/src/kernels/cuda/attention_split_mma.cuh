// A split by tensor cores, for up to 16 query heads of D numbers: scores = Q · Kᵀ and sums = P · V as m16n8k16
// products, of which the query heads are the rows. Q, K and V go from global memory straight into the products'
// fragments: the order of a product's inner dimension, and of V's columns, is free, and chosen so that each lane's part
// is 16 bytes (8 of signed bytes) in one piece.
//
// Each warp has a quarter of the split and computes its own softmax; the quarters are joined through shared memory.
#pragma once

#include "attention_split.cuh"
#include "fragment_rows.cuh"

constexpr int QUERIES = 16;
constexpr int WARP_POSITIONS = SPLIT / SPLIT_WARPS;
constexpr int OCTETS = WARP_POSITIONS / OCTET;
// Numbers of a row that the 32 lanes cover with 8 each where four (keys) or eight (values) lanes share a row.
constexpr int KEY_PIECE = 32, VALUE_PIECE = 64;

// What warps hand to each other.
template <int D>
struct MmaSplitShared {
    // Four more than D, and `value_chunk`, keep the lanes' stores out of each other's banks.
    float sums[SPLIT_WARPS][QUERIES][D + 4];
    float highest[SPLIT_WARPS][QUERIES], total[SPLIT_WARPS][QUERIES];
};

// Where a warp's octets lie, and a lane's part of a fragment: rows `row` and `row + 8`, columns `2 * pair` and one on.
struct WarpPart {
    unsigned rows[OCTETS];
    int first;
    int row, pair;
};

// The fragment column n of V's products is chunk `value_chunk(n)` of eight numbers of a piece.
DEVICE int value_chunk(int column) { return column / 2 + 4 * (column % 2); }

template <class X, class S>
DEVICE void find_octets(WarpPart& part, const Split<X, S>& split) {
    int lane = threadIdx.x % WARP;
    part.first = split.first + threadIdx.x / WARP * WARP_POSITIONS;
    part.row = lane / 4, part.pair = lane % 4;
    int position = part.first + lane % OCTETS * OCTET;
    unsigned row = sees_any(split.seen, position, OCTET) ? row_of(split.pages, position) : 0;
#pragma unroll
    for (int i = 0; i < OCTETS; i++) part.rows[i] = __shfl_sync(ALL_LANES, row, i);
}

// Row `part.row` of each octet; chunk `part.pair` of each piece of four.
template <class X, class S, int D>
DEVICE void load_keys(Eight<S> (&keys)[OCTETS][D / KEY_PIECE], const Split<X, S>& split, const WarpPart& part) {
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
        const S* key = split.cache.keys + size_t(part.rows[i] + part.row) * D + 8 * part.pair;
        bool seen = sees(split.seen, part.first + i * OCTET + part.row);
#pragma unroll
        for (int piece = 0; piece < D / KEY_PIECE; piece++) load_eight(keys[i][piece], key + piece * KEY_PIECE, seen);
    }
}

// Rows `2 * part.pair` and one on of each octet; the lane's chunk of the piece.
template <class X, class S, int D>
DEVICE void load_values(Eight<S> (&values)[OCTETS][2], int piece, const Split<X, S>& split, const WarpPart& part) {
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            int within = 2 * part.pair + odd;
            const S* value = split.cache.values + size_t(part.rows[i] + within) * D;
            bool seen = sees(split.seen, part.first + i * OCTET + within);
            load_eight(values[i][odd], value + piece * VALUE_PIECE + 8 * value_chunk(part.row), seen);
        }
    }
}

// Scores are Q · Kᵀ of octet i's eight positions. The products' left sides are the same chunks of two queries.
template <class X, class S, int D>
DEVICE void score(float (&scores)[OCTETS][4], const Eight<S> (&keys)[OCTETS][D / KEY_PIECE], const Split<X, S>& split,
                  const WarpPart& part) {
    uint32_t queries[D / KEY_PIECE][2][4];
#pragma unroll
    for (int piece = 0; piece < D / KEY_PIECE; piece++) {
        const X* query = split.queries + part.row * D + piece * KEY_PIECE + 8 * part.pair;
        uint4 low = load_streaming_16(query, part.row < split.group);
        uint4 high = load_streaming_16(query + 8 * D, part.row + 8 < split.group);
        queries[piece][0][0] = low.x, queries[piece][0][1] = high.x;
        queries[piece][0][2] = low.y, queries[piece][0][3] = high.y;
        queries[piece][1][0] = low.z, queries[piece][1][1] = high.z;
        queries[piece][1][2] = low.w, queries[piece][1][3] = high.w;
    }
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
        scores[i][0] = scores[i][1] = scores[i][2] = scores[i][3] = 0.f;
#pragma unroll
        for (int piece = 0; piece < D / KEY_PIECE; piece++) {
            uint32_t pairs[4];
            to_pairs<X>(pairs, keys[i][piece]);
            mma_m16n8k16<X>(scores[i], queries[piece][0], {pairs[0], pairs[1]});
            mma_m16n8k16<X>(scores[i], queries[piece][1], {pairs[2], pairs[3]});
        }
    }
}

// The scales of the lane's two positions of each octet; zeros where none of them is seen.
template <class X, class S>
DEVICE void load_scales(float2 (&scales)[OCTETS], const float* all, const Split<X, S>& split, const WarpPart& part) {
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
        bool seen = sees_any(split.seen, part.first + i * OCTET + 2 * part.pair, 2);
        uint2 bits = load_streaming_8(all + part.rows[i] + 2 * part.pair, seen);
        scales[i] = make_float2(__uint_as_float(bits.x), __uint_as_float(bits.y));
    }
}

// The softmax of the warp's scores, which become weights; `highest` and `total` are of the lane's two rows.
template <class X, class S>
DEVICE void weigh_rows(float (&scores)[OCTETS][4], float (&highest)[2], float (&total)[2], const Split<X, S>& split,
                       const WarpPart& part) {
    highest[0] = highest[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            bool seen = sees(split.seen, part.first + i * OCTET + 2 * part.pair + k % 2);
            scores[i][k] = seen ? scores[i][k] * split.scale : -INFINITY;
            highest[k / 2] = fmaxf(highest[k / 2], scores[i][k]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        highest[half] = row_highest(highest[half]);
        float base = highest[half] == -INFINITY ? 0.f : highest[half];
        total[half] = 0.f;
#pragma unroll
        for (int i = 0; i < OCTETS; i++) {
#pragma unroll
            for (int k = 2 * half; k < 2 * half + 2; k++) {
                scores[i][k] = exp2_fast(scores[i][k] - base);
                total[half] += scores[i][k];
            }
        }
        total[half] = row_sum(total[half]);
    }
}

// Takes the values' scales into the weights, as parts of the largest among them, which is returned: what small
// scales there are would be lost on a half's range.
template <class X, class S>
DEVICE float scale_weights(float (&weights)[OCTETS][4], const float2 (&scales)[OCTETS], const Split<X, S>& split,
                           const WarpPart& part) {
    float largest = 0.f;
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
        int position = part.first + i * OCTET + 2 * part.pair;
        if (sees(split.seen, position)) largest = fmaxf(largest, scales[i].x);
        if (sees(split.seen, position + 1)) largest = fmaxf(largest, scales[i].y);
    }
    largest = row_highest(largest);
    if (largest == 0.f) largest = 1.f;
#pragma unroll
    for (int i = 0; i < OCTETS; i++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            bool seen = sees(split.seen, part.first + i * OCTET + 2 * part.pair + k % 2);
            weights[i][k] = seen ? weights[i][k] * ((k % 2 == 0 ? scales[i].x : scales[i].y) / largest) : 0.f;
        }
    }
    return largest;
}

// P · V for one piece of the values' numbers, times `factor`, into the warp's rows of `sums`.
template <class X, class S, int D>
DEVICE void sum_piece(float (&sums)[QUERIES][D + 4], int piece, const float (&weights)[OCTETS][4],
                      const Eight<S> (&values)[OCTETS][2], float factor, int group, const WarpPart& part) {
    float out[8][4] = {};
#pragma unroll
    for (int step = 0; step < OCTETS / 2; step++) {
        const float(&low)[4] = weights[2 * step];
        const float(&high)[4] = weights[2 * step + 1];
        uint32_t left[4] = {pack_floats<X>(low[0], low[1]), pack_floats<X>(low[2], low[3]),
                            pack_floats<X>(high[0], high[1]), pack_floats<X>(high[2], high[3])};
        uint32_t pairs[2][2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) to_pairs<X>(pairs[i / 2][i % 2], values[2 * step + i / 2][i % 2]);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            // The same number of two positions side by side.
            unsigned halves = n % 2 == 0 ? 0x5410 : 0x7632;
            mma_m16n8k16<X>(out[n], left, {__byte_perm(pairs[0][0][n / 2], pairs[0][1][n / 2], halves),
                                           __byte_perm(pairs[1][0][n / 2], pairs[1][1][n / 2], halves)});
        }
    }
    // Column 2 * pair + odd is chunk pair + 4 * odd.
#pragma unroll
    for (int k = 0; k < 4; k++) {
        int query = part.row + k / 2 * 8;
        if (query >= group) continue;
        float4* to = reinterpret_cast<float4*>(&sums[query][piece * VALUE_PIECE + 8 * (part.pair + 4 * (k % 2))]);
        to[0] = make_float4(out[0][k] * factor, out[1][k] * factor, out[2][k] * factor, out[3][k] * factor);
        to[1] = make_float4(out[4][k] * factor, out[5][k] * factor, out[6][k] * factor, out[7][k] * factor);
    }
}

// The warp's quarter, of which some position is seen.
template <class X, class S, int D>
DEVICE void attend_quarter(MmaSplitShared<D>& shared, const Split<X, S>& split) {
    int warp = threadIdx.x / WARP;
    WarpPart part;
    find_octets(part, split);
    // Keys and the first of the values are under way before anything waits for them.
    Eight<S> keys[OCTETS][D / KEY_PIECE], values[D / VALUE_PIECE][OCTETS][2];
    float2 key_scales[OCTETS], value_scales[OCTETS];
    load_keys<X, S, D>(keys, split, part);
    if constexpr (SCALED<S>) load_scales(key_scales, split.cache.key_scales, split, part);
    load_values<X, S, D>(values[0], 0, split, part);
    if constexpr (SCALED<S>) load_scales(value_scales, split.cache.value_scales, split, part);
    float scores[OCTETS][4], highest[2], total[2], factor = 1.f;
    score<X, S, D>(scores, keys, split, part);
#pragma unroll
    for (int piece = 1; piece < D / VALUE_PIECE; piece++) load_values<X, S, D>(values[piece], piece, split, part);
    if constexpr (SCALED<S>) {
#pragma unroll
        for (int i = 0; i < OCTETS; i++) {
            scores[i][0] *= key_scales[i].x, scores[i][1] *= key_scales[i].y;
            scores[i][2] *= key_scales[i].x, scores[i][3] *= key_scales[i].y;
        }
    }
    weigh_rows(scores, highest, total, split, part);
    if constexpr (SCALED<S>) factor = scale_weights(scores, value_scales, split, part);
#pragma unroll
    for (int piece = 0; piece < D / VALUE_PIECE; piece++) {
        sum_piece<X, S, D>(shared.sums[warp], piece, scores, values[piece], factor, split.group, part);
    }
    if (part.pair == 0) {
        shared.highest[warp][part.row] = highest[0], shared.highest[warp][part.row + 8] = highest[1];
        shared.total[warp][part.row] = total[0], shared.total[warp][part.row + 8] = total[1];
    }
}

// Joins the quarters; those of which nothing is seen left only a total of 0.
template <class X, class S, int D>
DEVICE void join_quarters(const MmaSplitShared<D>& shared, const Split<X, S>& split) {
    for (int i = threadIdx.x; i < split.group * (D / 2); i += SPLIT_THREADS) {
        int query = i / (D / 2), at = i % (D / 2) * 2;
        float highest = -INFINITY, total = 0.f;
        float2 sum = make_float2(0.f, 0.f);
#pragma unroll
        for (int warp = 0; warp < SPLIT_WARPS; warp++) highest = fmaxf(highest, shared.highest[warp][query]);
#pragma unroll
        for (int warp = 0; warp < SPLIT_WARPS; warp++) {
            if (shared.total[warp][query] == 0.f) continue;
            float factor = exp2_fast(shared.highest[warp][query] - highest);
            float2 part = *reinterpret_cast<const float2*>(&shared.sums[warp][query][at]);
            sum.x = fmaf(part.x, factor, sum.x), sum.y = fmaf(part.y, factor, sum.y);
            total = fmaf(shared.total[warp][query], factor, total);
        }
        float* record = split.records + query * split.record_stride;
        *reinterpret_cast<float2*>(record + at) = sum;
        if (at == 0) *reinterpret_cast<float2*>(record + D) = make_float2(highest, total);
    }
}

template <class X, class S, int D>
DEVICE void attend_split_mma(MmaSplitShared<D>& shared, const Split<X, S>& split) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (sees_any(split.seen, split.first + warp * WARP_POSITIONS, WARP_POSITIONS)) {
        attend_quarter<X, S, D>(shared, split);
    } else if (lane < QUERIES) {
        shared.highest[warp][lane] = -INFINITY, shared.total[warp][lane] = 0.f;
    }
    __syncthreads();
    join_quarters<X, S, D>(shared, split);
}
