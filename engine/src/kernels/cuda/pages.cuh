// The paged cache of a layer's keys or values, as attention reads it: `[block][kv head][position in block][head_dim]`
// of X, or of signed bytes with a scale per row in `[block][kv head][position in block]`. A *row* here is the numbers
// of one position and head; rows count through the whole cache.
//
// Block sizes are multiples of 8, so that 8 positions from a multiple of 8 on lie in consecutive rows: an *octet*.
#pragma once

#include "common.cuh"

constexpr int OCTET = 8;

// The positions that a query sees: its own, and before it as many as the window allows.
struct Seen {
    int first, last;
};
DEVICE Seen seen_from(int position, int window) { return {max(position + 1 - window, 0), position}; }
DEVICE bool sees(const Seen& seen, int position) {
    return unsigned(position - seen.first) <= unsigned(seen.last - seen.first);
}
// Whether it sees any of `count` positions.
DEVICE bool sees_any(const Seen& seen, int first, int count) {
    return first <= seen.last && first + count > seen.first;
}

// Where a sequence's rows of one head lie.
struct Pages {
    const int* table;
    int block_size, kv_heads, kv_head;
};
// The row of a position that the sequence has. A cache has fewer than 2^32 rows: of 64 bytes they would take 256 GB.
DEVICE unsigned row_of(const Pages& pages, int position) {
    unsigned block = unsigned(position) / unsigned(pages.block_size);
    unsigned within = unsigned(position) - block * pages.block_size;
    return (unsigned(pages.table[block]) * pages.kv_heads + pages.kv_head) * pages.block_size + within;
}

// A layer's cache; the scales are of use where S is signed bytes.
template <class S>
struct Cache {
    const S* keys;
    const S* values;
    const float* key_scales;
    const float* value_scales;
};
template <class S>
constexpr bool SCALED = sizeof(S) == 1;

// Eight numbers of a row, as stored.
template <class S>
struct Eight {
    uint32_t words[2 * sizeof(S)];
};
// Reads them, or zeros where `valid` is false; they are used once. The address is aligned to their size.
template <class S>
DEVICE void load_eight(Eight<S>& out, const S* numbers, bool valid) {
    if constexpr (sizeof(S) == 1) {
        uint2 words = load_streaming_8(numbers, valid);
        out.words[0] = words.x, out.words[1] = words.y;
    } else {
#pragma unroll
        for (int i = 0; i < int(sizeof(S)) / 2; i++) {
            uint4 words = load_streaming_16(reinterpret_cast<const uint4*>(numbers) + i, valid);
            out.words[4 * i] = words.x, out.words[4 * i + 1] = words.y;
            out.words[4 * i + 2] = words.z, out.words[4 * i + 3] = words.w;
        }
    }
}

// A signed byte of a word as a number. With its highest bit turned it counts from -128, and as the low bits of 2^23 it
// stands for itself: two additions in place of a slow conversion.
DEVICE float byte_to_float(uint32_t word, int byte) {
    uint32_t bits = __byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7540u | unsigned(byte));
    return __uint_as_float(bits) - 8388736.f;
}

// The stored numbers, without their scale.
template <class S>
DEVICE void to_floats(float (&out)[8], const Eight<S>& in) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if constexpr (sizeof(S) == 1) out[i] = byte_to_float(in.words[i / 4], i % 4);
        else if constexpr (sizeof(S) == 4) out[i] = __uint_as_float(in.words[i]);
        else out[i] = to_float(i % 2 == 0 ? low_half<S>(in.words[i / 2]) : high_half<S>(in.words[i / 2]));
    }
}
// The same as pairs of X, which has room for every signed byte.
template <class X, class S>
DEVICE void to_pairs(uint32_t (&out)[4], const Eight<S>& in) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(S) == 2) {
            out[i] = in.words[i];
        } else {
            float low = byte_to_float(in.words[i / 2], i % 2 * 2), high = byte_to_float(in.words[i / 2], i % 2 * 2 + 1);
            out[i] = pack_floats<X>(low, high);
        }
    }
}
