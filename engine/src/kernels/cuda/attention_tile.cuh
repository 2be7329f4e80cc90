// Tiles of the cache in shared memory, for prompts' attention: TILE positions from a multiple of TILE on, D numbers of
// X each. Positions that no row sees are zeros, whatever the cache has in their place.
//
// A tile's chunks of 16 bytes are exchanged within their row (`chunk_at`), so that neither a row's nor a column's
// chunks lie in the same banks.
#pragma once

#include "pages.cuh"

constexpr int TILE = 64;
constexpr int TILE_OCTETS = TILE / OCTET;
constexpr int PREFILL_THREADS = 128;

// Where chunk `chunk` of row `row` is, in numbers of 16 bits.
template <int D>
DEVICE int chunk_at(int row, int chunk) {
    return row * D + (chunk ^ (row & 7)) * 8;
}

// Signed bytes on their way to a tile of X, with their scales.
template <class S, int D>
struct Staged {};
template <int D>
struct Staged<int8_t, D> {
    int8_t numbers[TILE * D];
    float scales[TILE];
};

// Begins to copy a tile of `numbers`, of which `rows` has the octets' first rows in the cache. What is of X goes to
// `tile` at once, signed bytes to `staged`.
template <class X, class S, int D>
DEVICE void copy_tile(X* tile, Staged<S, D>& staged, const S* numbers, const float* scales, const unsigned* rows,
                      int first, const Seen& seen) {
    constexpr int EACH = 16 / sizeof(S), CHUNKS = D / EACH, DOWN = PREFILL_THREADS / CHUNKS, TIMES = TILE / DOWN;
    static_assert(DOWN % OCTET == 0, "a thread's rows have the same place in their octets");
    int chunk = threadIdx.x % CHUNKS, row = threadIdx.x / CHUNKS % DOWN;
    const S* from = numbers + row % OCTET * D + chunk * EACH;
    unsigned octets[TIMES];
#pragma unroll
    for (int i = 0; i < TIMES; i++) octets[i] = rows[(row + i * DOWN) / OCTET];
#pragma unroll
    for (int i = 0; i < TIMES; i++, row += DOWN) {
        void* to = tile + chunk_at<D>(row, chunk);
        if constexpr (SCALED<S>) to = &staged.numbers[row * D + chunk * EACH];
        copy_async_16(to, from + size_t(octets[i]) * D, sees(seen, first + row));
    }
    if constexpr (SCALED<S>) {
        int four = 4 * threadIdx.x;
        if (four < TILE) {
            const float* from = scales + rows[four / OCTET] + four % OCTET;
            copy_async_16(&staged.scales[four], from, sees_any(seen, first + four, 4));
        }
    }
}

// Makes the tile of what was staged; all threads' copies are done and seen.
template <class X, class S, int D>
DEVICE void unpack_tile(X* tile, const Staged<S, D>& staged, int first, const Seen& seen) {
    if constexpr (SCALED<S>) {
        for (int i = threadIdx.x; i < TILE * D / 8; i += PREFILL_THREADS) {
            int row = i / (D / 8), chunk = i % (D / 8);
            Eight<S> stored;
            memcpy(&stored, &staged.numbers[row * D + chunk * 8], 8);
            float x[8], scale = staged.scales[row];
            to_floats(x, stored);
            bool is_seen = sees(seen, first + row);
#pragma unroll
            for (int k = 0; k < 8; k++) x[k] = is_seen ? x[k] * scale : 0.f;
            *reinterpret_cast<uint4*>(tile + chunk_at<D>(row, chunk)) =
                make_uint4(pack_floats<X>(x[0], x[1]), pack_floats<X>(x[2], x[3]), pack_floats<X>(x[4], x[5]),
                           pack_floats<X>(x[6], x[7]));
        }
    }
}
