// Weights scale · q + least, q of 4 bits, scale and least for each 32 inputs: Q4_K, and Q4_0 as well.
//
// Tile: [half][lower][lane] a word of eight q; then [half][row] (scale, least) as halves. In a word the four pairs of
// neighbours have their first q at bits 6, 2, 10 and 30 (going on at bit 0) and the second 16 bits further: one shift,
// or none, brings a pair to where it is the top of the mantissas of two halves, 16 + q each.
#pragma once

#include "tiles.cuh"

struct Q4K : Tiles<640> {
    template <class Place>
    DEVICE static uint4 weights(Place tile, int half, int lower, int lane) {
        uint32_t word = read<uint32_t>(tile + lane * 4 + (half * 2 + lower) * 128);
        uint32_t scales = read<uint32_t>(tile + lane / 4 * 4 + 512 + (half * 16 + lower * 8) * 4);
        uint32_t scale = low_twice(scales);
        // least - 16 scale: 16 + q needs no correction of its own.
        uint32_t least = fma_pair<f16>(scale, 0xcc00cc00, high_twice(scales));
        return make_uint4(pair(word, scale, least), pair(word << 4, scale, least), pair(word >> 4, scale, least),
                          pair(word << 8 | word >> 24, scale, least));
    }
    DEVICE static uint32_t pair(uint32_t shifted, uint32_t scale, uint32_t least) {
        return fma_pair<f16>(masked_or(shifted, 0x03c003c0, 0x4c004c00), scale, least);
    }

    template <class Block>
    DEVICE static void repack(unsigned char* tile, const unsigned char* row, int block, int half, int lower, int lane) {
        Eight<Block> from(row, block * 64 + half * 32 + lane % 4 * 8);
        *reinterpret_cast<uint32_t*>(tile + lane * 4 + (half * 2 + lower) * 128) = nibbles(from, 6);
        if (lane % 4 == 0)
            *reinterpret_cast<uint32_t*>(tile + lane + 512 + (half * 16 + lower * 8) * 4) =
                pack(from.scale(), from.least());
    }
    // The low four bits of eight q, such that the shifts of `weights` bring each pair to bit `at`.
    template <class Block>
    DEVICE static uint32_t nibbles(const Eight<Block>& from, int at) {
        uint32_t word = 0;
        for (int i = 0; i < 8; i++) {
            uint32_t turned = (from.q(i, 0) & 15) << (at + i % 2 * 16);
            int turn = i / 2 == 0 ? 0 : i / 2 == 1 ? 4 : i / 2 == 2 ? 28 : 8;
            word |= turned >> turn | turned << (31 - turn) << 1;
        }
        return word;
    }
};
