// Weights scale · q + least, q of 5 bits, scale and least for each 32 inputs: Q5_K, and Q5_0 as well.
//
// Tile: that of Q4K with the low four bits of q one bit further down; then [lane] a word of their high bits, with those
// of pair i of a half at bits 8 lower + 4 half + i and 16 further. Together they are the top of the mantissas of two
// halves, 32 + q each.
#pragma once

#include "q4k.cuh"

struct Q5K : Tiles<768> {
    template <class Place>
    DEVICE static uint4 weights(Place tile, int half, int lower, int lane) {
        uint32_t word = read<uint32_t>(tile + lane * 4 + (half * 2 + lower) * 128);
        uint32_t high = read<uint32_t>(tile + lane * 4 + 640) >> (lower * 8 + half * 4);
        uint32_t scales = read<uint32_t>(tile + lane / 4 * 4 + 512 + (half * 16 + lower * 8) * 4);
        uint32_t scale = low_twice(scales), least = fma_pair<f16>(scale, 0xd000d000, high_twice(scales));
        return make_uint4(pair(word, high << 9, scale, least), pair(word << 4, high << 8, scale, least),
                          pair(word >> 4, high << 7, scale, least),
                          pair(word << 8 | word >> 24, high << 6, scale, least));
    }
    DEVICE static uint32_t pair(uint32_t low, uint32_t high, uint32_t scale, uint32_t least) {
        uint32_t q = masked_or(high, 0x02000200, masked_or(low, 0x01e001e0, 0x50005000));
        return fma_pair<f16>(q, scale, least);
    }

    template <class Block>
    DEVICE static void repack(unsigned char* tile, const unsigned char* row, int block, int half, int lower, int lane) {
        Eight<Block> from(row, block * 64 + half * 32 + lane % 4 * 8);
        *reinterpret_cast<uint32_t*>(tile + lane * 4 + (half * 2 + lower) * 128) = Q4K::nibbles(from, 5);
        if (lane % 4 == 0)
            *reinterpret_cast<uint32_t*>(tile + lane + 512 + (half * 16 + lower * 8) * 4) =
                pack(from.scale(), from.least());
        if (half == 1) return;
        uint32_t first = 0, second = 0;
        for (int i = 0; i < 8; i++) {
            Eight<Block> eight(row, block * 64 + i / 4 * 32 + lane % 4 * 8);
            first |= eight.q(i % 4 * 2, 0) >> 4 << i;
            second |= eight.q(i % 4 * 2 + 1, 0) >> 4 << i;
        }
        tile[640 + lane * 4 + lower] = uint8_t(first);
        tile[640 + lane * 4 + 2 + lower] = uint8_t(second);
    }
};
