// Weights scale · (q - 32), q of 6 bits, scale for each 16 inputs: Q6_K.
//
// Tile: [half][lower][lane] a word of the low four bits of eight q; then [lower][lane] a word of the two high bits of
// the q of both halves; then [row][16 inputs] scales as halves. The first words are as Q4K's, with the pairs to be
// shifted to bit 4; in the second, pair i of a half is at bit 8 half + 2 i, to be shifted to bit 8. Together they are
// the top of the mantissas of two halves, 64 + q each.
#pragma once

#include "q4k.cuh"

struct Q6K : Tiles<896> {
    template <class Place>
    DEVICE static uint4 weights(Place tile, int half, int lower, int lane) {
        uint32_t low = read<uint32_t>(tile + lane * 4 + (half * 2 + lower) * 128);
        uint32_t high = read<uint32_t>(tile + lane * 4 + 512 + lower * 128) >> 8 * half;
        Place scales = tile + lane / 4 * 8 + lane % 4 / 2 * 2 + 768;
        uint32_t scale = low_twice(read<uint16_t>(scales + lower * 64 + half * 4));
        return make_uint4(pair(low, high << 8, scale), pair(low << 4, high << 6, scale),
                          pair(low >> 4, high << 4, scale), pair(low << 8 | low >> 24, high << 2, scale));
    }
    // 64 + q, then exactly q - 32, then times the scale.
    DEVICE static uint32_t pair(uint32_t low, uint32_t high, uint32_t scale) {
        uint32_t q = masked_or(high, 0x03000300, masked_or(low, 0x00f000f0, 0x54005400));
        return fma_pair<f16>(fma_pair<f16>(q, 0x3c003c00, 0xd600d600), scale, 0x80008000);
    }

    template <class Block>
    DEVICE static void repack(unsigned char* tile, const unsigned char* row, int block, int half, int lower, int lane) {
        Eight<Block> from(row, block * 64 + half * 32 + lane % 4 * 8);
        *reinterpret_cast<uint32_t*>(tile + lane * 4 + (half * 2 + lower) * 128) = Q4K::nibbles(from, 4);
        if (lane % 2 == 0)
            *reinterpret_cast<f16*>(tile + 768 + (lower * 8 + lane / 4) * 8 + half * 4 + lane % 4) = from.scale();
        if (half == 1) return;
        uint32_t high = 0;
        for (int i = 0; i < 16; i++) {
            Eight<Block> eight(row, block * 64 + i / 8 * 32 + lane % 4 * 8);
            high |= eight.q(i % 8, 0) >> 4 << (i / 2 * 2 + i % 2 * 16);
        }
        *reinterpret_cast<uint32_t*>(tile + lane * 4 + 512 + lower * 128) = high;
    }
};
