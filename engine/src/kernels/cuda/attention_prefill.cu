// Attention of prompts' rows over the paged cache, on tensor cores (FlashAttention-2, arXiv 2307.08691).
//
// A block has one query head and up to ROWS consecutive rows of a sequence, a warp WARP_ROWS of them. It goes through
// the cache in tiles at multiples of their length whatever the rows, and a tile of which a row sees nothing leaves its
// sums as they are to the bit: so a row's result does not depend on the rows that are computed with it. The exception
// are values that are no numbers: they spoil the rows before them, too, as far as these have the same block and tile.
//
// Keys and values have one buffer each. While scores are computed the tile's values are on their way, while values are
// summed up the next tile's keys are.
#include "attention_tile.cuh"
#include "fragment_rows.cuh"

// m16 tiles of a warp: what it reads of keys and values serves them all.
constexpr int M_TILES = 2;
constexpr int WARP_ROWS = 16 * M_TILES;
constexpr int ROWS = PREFILL_THREADS / WARP * WARP_ROWS;
constexpr float LOG2_E = 1.44269504f;

template <class X, class S, int D>
struct PrefillShared {
    X queries[ROWS * D];
    X keys[TILE * D];
    X values[TILE * D];
    Staged<S, D> staged_keys, staged_values;
};

// The rows of a block, and what they see together.
struct Rows {
    int first, count;
    int position;
    Seen seen;
};

// A warp's sums: of each m16 tile the weighted values, and of the lane's two rows highest score and sum of weights.
template <int D>
struct Sums {
    float out[M_TILES][D / 8][4];
    float highest[M_TILES][2], total[M_TILES][2];
};

template <class X, int D>
DEVICE void copy_queries(X* shared, const X* queries, size_t stride, const Rows& rows) {
    constexpr int CHUNKS = D / 8, DOWN = PREFILL_THREADS / CHUNKS;
    int chunk = threadIdx.x % CHUNKS;
#pragma unroll 4
    for (int i = 0; i < ROWS / DOWN; i++) {
        int row = threadIdx.x / CHUNKS % DOWN + i * DOWN;
        bool valid = row < rows.count;
        copy_async_16(shared + chunk_at<D>(row, chunk), queries + (valid ? row : 0) * stride + chunk * 8, valid);
    }
}

// scores = Q · Kᵀ for the warp's rows and the tile's positions.
template <class X, int D>
DEVICE void score(float (&scores)[M_TILES][TILE / 8][4], const X* queries, const X* keys) {
    int lane = threadIdx.x % WARP, first_row = threadIdx.x / WARP * WARP_ROWS;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int n = 0; n < TILE / 8 * 4; n++) scores[m][n / 4][n % 4] = 0.f;
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t left[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            load_matrix_x4(left[m], queries + chunk_at<D>(first_row + m * 16 + lane % 16, 2 * k + lane / 16));
        }
#pragma unroll
        for (int n = 0; n < TILE / 16; n++) {
            uint32_t right[4];
            load_matrix_x4(right, keys + chunk_at<D>(16 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma_m16n8k16<X>(scores[m][2 * n], left[m], {right[0], right[1]});
                mma_m16n8k16<X>(scores[m][2 * n + 1], left[m], {right[2], right[3]});
            }
        }
    }
}

// Takes out the scores of positions that a row does not see.
DEVICE void mask(float (&scores)[M_TILES][TILE / 8][4], int first, int warp_position, int window) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            Seen seen = seen_from(warp_position + m * 16 + half * 8 + lane / 4, window);
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                int position = first + 8 * n + 2 * (lane % 4);
                if (!sees(seen, position)) scores[m][n][2 * half] = -INFINITY;
                if (!sees(seen, position + 1)) scores[m][n][2 * half + 1] = -INFINITY;
            }
        }
    }
}

// Scores become weights, 2^(score · scale - highest so far); what was summed up before is brought to the new highest.
template <int D>
DEVICE void weigh(float (&scores)[M_TILES][TILE / 8][4], Sums<D>& sums, float scale) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float highest = -INFINITY, total = 0.f;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                highest = fmaxf(highest, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
            }
            // Scaled before it is compared, so that where nothing is higher the factor is 2^0.
            highest = fmaxf(sums.highest[m][half], row_highest(highest) * scale);
            float base = highest == -INFINITY ? 0.f : highest;
            float factor = exp2_fast(sums.highest[m][half] - base);
            sums.highest[m][half] = highest;
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                float& low = scores[m][n][2 * half];
                float& high = scores[m][n][2 * half + 1];
                low = exp2_fast(fmaf(low, scale, -base)), high = exp2_fast(fmaf(high, scale, -base));
                total += low + high;
            }
            sums.total[m][half] = fmaf(sums.total[m][half], factor, total);
#pragma unroll
            for (int n = 0; n < D / 8; n++) sums.out[m][n][2 * half] *= factor, sums.out[m][n][2 * half + 1] *= factor;
        }
    }
}

// out += P · V.
template <class X, int D>
DEVICE void add_values(Sums<D>& sums, const float (&weights)[M_TILES][TILE / 8][4], const X* values) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        uint32_t left[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&pair)[4] = weights[m][2 * k + i / 2];
                left[m][i] = pack_floats<X>(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t right[4];
            load_matrix_x4_transposed(right, values + chunk_at<D>(16 * k + lane % 16, 2 * n + lane / 16));
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma_m16n8k16<X>(sums.out[m][2 * n], left[m], {right[0], right[1]});
                mma_m16n8k16<X>(sums.out[m][2 * n + 1], left[m], {right[2], right[3]});
            }
        }
    }
}

// Writes the warp's rows, through the place of its queries: a lane has 4 bytes here and there, a store wants 16.
template <class X, int D>
DEVICE void store_rows(X* out, size_t stride, X* shared, Sums<D>& sums, const Rows& rows) {
    constexpr int CHUNKS = D / 8;
    int lane = threadIdx.x % WARP, first_row = threadIdx.x / WARP * WARP_ROWS;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float factor = 1.f / row_sum(sums.total[m][half]);
            int row = first_row + m * 16 + half * 8 + lane / 4;
#pragma unroll
            for (int n = 0; n < CHUNKS; n++) {
                const float(&x)[4] = sums.out[m][n];
                uint32_t pair = pack(from_float<X>(x[2 * half] * factor), from_float<X>(x[2 * half + 1] * factor));
                *reinterpret_cast<uint32_t*>(shared + chunk_at<D>(row, n) + 2 * (lane % 4)) = pair;
            }
        }
    }
    __syncwarp();
    for (int i = lane; i < WARP_ROWS * CHUNKS; i += WARP) {
        int row = first_row + i / CHUNKS, chunk = i % CHUNKS;
        if (row >= rows.count) continue;
        *reinterpret_cast<uint4*>(out + row * stride + chunk * 8) =
            *reinterpret_cast<const uint4*>(shared + chunk_at<D>(row, chunk));
    }
}

// Where octet `threadIdx.x` of a tile lies; 0 if nothing of it is seen.
DEVICE unsigned find_octet(const Pages& pages, const Seen& seen, int tile) {
    int position = tile * TILE + int(threadIdx.x) * OCTET;
    return threadIdx.x < TILE_OCTETS && sees_any(seen, position, OCTET) ? row_of(pages, position) : 0;
}

template <class X, class S, int D>
DEVICE void attend_prefill(PrefillShared<X, S, D>& shared, const Cache<S>& cache, const Pages& pages, const Rows& rows,
                           int window, float scale, Sums<D>& sums) {
    // Of this tile and the next in turn.
    __shared__ unsigned octets[2][TILE_OCTETS];
    int warp_row = threadIdx.x / WARP * WARP_ROWS, warp_position = rows.position + warp_row;
    int warp_last = min(warp_position + WARP_ROWS - 1, rows.seen.last);
    Seen warp_seen = {seen_from(warp_position, window).first, warp_last};
    int tile = rows.seen.first / TILE, last = rows.seen.last / TILE;
    if (threadIdx.x < TILE_OCTETS) octets[tile % 2][threadIdx.x] = find_octet(pages, rows.seen, tile);
    __syncthreads();
    copy_tile<X, S, D>(shared.keys, shared.staged_keys, cache.keys, cache.key_scales, octets[tile % 2], tile * TILE,
                       rows.seen);
    copy_async_commit();
    for (; tile <= last; tile++) {
        int first = tile * TILE;
        bool is_seen = warp_row < rows.count && sees_any(warp_seen, first, TILE);
        copy_async_wait<0>();
        __syncthreads();
        // All have the keys, and are done with the values before.
        copy_tile<X, S, D>(shared.values, shared.staged_values, cache.values, cache.value_scales, octets[tile % 2],
                           first, rows.seen);
        copy_async_commit();
        unsigned next_octet = find_octet(pages, rows.seen, tile + 1);
        if constexpr (SCALED<S>) {
            unpack_tile<X, S, D>(shared.keys, shared.staged_keys, first, rows.seen);
            __syncthreads();
        }
        float scores[M_TILES][TILE / 8][4];
        if (is_seen) score<X, D>(scores, shared.queries, shared.keys);
        if (threadIdx.x < TILE_OCTETS) octets[(tile + 1) % 2][threadIdx.x] = next_octet;
        copy_async_wait<0>();
        __syncthreads();
        // All have the values, and are done with the keys.
        if (tile < last) {
            copy_tile<X, S, D>(shared.keys, shared.staged_keys, cache.keys, cache.key_scales, octets[(tile + 1) % 2],
                               first + TILE, rows.seen);
            copy_async_commit();
        }
        if constexpr (SCALED<S>) {
            unpack_tile<X, S, D>(shared.values, shared.staged_values, first, rows.seen);
            __syncthreads();
        }
        if (!is_seen) continue;
        bool all_see = first + TILE - 1 <= warp_position && first >= seen_from(warp_last, window).first;
        if (!all_see) mask(scores, first, warp_position, window);
        weigh(scores, sums, scale);
        add_values<X, D>(sums, scores, shared.values);
    }
}

// The grid is (tile of rows, head). The last tiles of a sequence have the most to do and come first.
template <class X, class S, int D>
DEVICE void attend_prefill(X* out, const X* qkv, const Cache<S>& cache, const int* tiles, const int* positions,
                           const int* table_offsets, const int* tables, int heads, Pages pages, int window,
                           float scale) {
    DYNAMIC_SHARED(unsigned char, bytes);
    PrefillShared<X, S, D>& shared = *reinterpret_cast<PrefillShared<X, S, D>*>(bytes);
    int index = gridDim.x - 1 - blockIdx.x, head = blockIdx.y;
    Rows rows;
    rows.first = tiles[2 * index], rows.count = tiles[2 * index + 1];
    rows.position = positions[rows.first];
    rows.seen = {seen_from(rows.position, window).first, rows.position + rows.count - 1};
    pages.table = tables + table_offsets[rows.first];
    pages.kv_head = head / (heads / pages.kv_heads);
    size_t stride = size_t(heads + 2 * pages.kv_heads) * D;
    copy_queries<X, D>(shared.queries, qkv + rows.first * stride + head * D, stride, rows);
    Sums<D> sums;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        sums.highest[m][0] = sums.highest[m][1] = -INFINITY, sums.total[m][0] = sums.total[m][1] = 0.f;
#pragma unroll
        for (int n = 0; n < D / 8 * 4; n++) sums.out[m][n / 4][n % 4] = 0.f;
    }
    attend_prefill<X, S, D>(shared, cache, pages, rows, window, scale * LOG2_E, sums);
    stride = size_t(heads) * D;
    store_rows<X, D>(out + rows.first * stride + head * D, stride, shared.queries, sums, rows);
}

#define ATTEND_PREFILL(suffix, X, S, D)                                                                               \
    KERNEL(__launch_bounds__(PREFILL_THREADS, 2) attend_prefill_##suffix##_##D)                                       \
    (X* out, const X* qkv, const void* keys, const void* values, const float* key_scales, const float* value_scales,  \
     const int* tiles, const int* positions, const int* table_offsets, const int* tables, int heads, int kv_heads,    \
     int block_size, int window, float scale) {                                                                       \
        begin();                                                                                                      \
        Cache<S> cache = {static_cast<const S*>(keys), static_cast<const S*>(values), key_scales, value_scales};      \
        attend_prefill<X, S, D>(out, qkv, cache, tiles, positions, table_offsets, tables, heads,                      \
                                {nullptr, block_size, kv_heads, 0}, window, scale);                                   \
    }                                                                                                                 \
    REGISTER(attend_prefill_##suffix##_##D)

ATTEND_PREFILL(bf16, bf16, bf16, 64)
ATTEND_PREFILL(bf16, bf16, bf16, 128)
ATTEND_PREFILL(f16, f16, f16, 64)
ATTEND_PREFILL(f16, f16, f16, 128)
ATTEND_PREFILL(bf16_q8, bf16, int8_t, 64)
ATTEND_PREFILL(bf16_q8, bf16, int8_t, 128)
ATTEND_PREFILL(f16_q8, f16, int8_t, 64)
ATTEND_PREFILL(f16_q8, f16, int8_t, 128)
