// GGUF's blocks of quantised weights, as files hold them: weight i = scale(i) · q(i) + least(i).
#pragma once

#include "common.cuh"

// A half in a block, which is aligned to two bytes only.
DEVICE float block_half(const unsigned char* at) { return to_float(low_half<f16>(at[0] | at[1] << 8)); }

struct BlockQ4_0 {
    static constexpr int INPUTS = 32, BYTES = 18;
    DEVICE static uint32_t q(const unsigned char* b, int i) { return b[2 + i % 16] >> i / 16 * 4 & 15; }
    DEVICE static float scale(const unsigned char* b, int) { return block_half(b); }
    DEVICE static float least(const unsigned char* b, int) { return -8 * block_half(b); }
};

struct BlockQ5_0 {
    static constexpr int INPUTS = 32, BYTES = 22;
    DEVICE static uint32_t q(const unsigned char* b, int i) {
        return (b[6 + i % 16] >> i / 16 * 4 & 15) | (b[2 + i / 8] >> i % 8 & 1) << 4;
    }
    DEVICE static float scale(const unsigned char* b, int) { return block_half(b); }
    DEVICE static float least(const unsigned char* b, int) { return -16 * block_half(b); }
};

// 6-bit scales and minima of eight 32-blocks, packed into 12 bytes, and a half for all of each.
struct KScales {
    static constexpr int INPUTS = 256;
    DEVICE static float scale(const unsigned char* b, int i) {
        const unsigned char* packed = b + 4;
        int j = i / 32, six = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        return block_half(b) * six;
    }
    DEVICE static float least(const unsigned char* b, int i) {
        const unsigned char* packed = b + 4;
        int j = i / 32, six = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4;
        return -block_half(b + 2) * six;
    }
};

struct BlockQ4K : KScales {
    static constexpr int BYTES = 144;
    DEVICE static uint32_t q(const unsigned char* b, int i) {
        return b[16 + i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
    }
};

struct BlockQ5K : KScales {
    static constexpr int BYTES = 176;
    DEVICE static uint32_t q(const unsigned char* b, int i) {
        return (b[48 + i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15) | (b[16 + i % 32] >> i / 32 & 1) << 4;
    }
};

struct BlockQ6K {
    static constexpr int INPUTS = 256, BYTES = 210;
    DEVICE static uint32_t q(const unsigned char* b, int i) {
        int group = i / 128, quarter = i / 32 % 4, at = i % 32;
        uint32_t low = b[group * 64 + quarter % 2 * 32 + at] >> quarter / 2 * 4 & 15;
        return low | (b[128 + group * 32 + at] >> 2 * quarter & 3) << 4;
    }
    DEVICE static float scale(const unsigned char* b, int i) { return block_half(b + 208) * int8_t(b[192 + i / 16]); }
};

struct BlockQ8_0 {
    static constexpr int INPUTS = 32, BYTES = 34;
    // Plus 128.
    DEVICE static uint32_t q(const unsigned char* b, int i) { return b[2 + i] ^ 128; }
    DEVICE static float scale(const unsigned char* b, int) { return block_half(b); }
};

// Eight weights side by side, from input `first` of a row of blocks on: they are in one block and share its scale. A
// row that is not there is one of zeros.
template <class Block>
struct Eight {
    const unsigned char* block;
    int first;

    DEVICE Eight(const unsigned char* row, int input)
        : block(row == nullptr ? nullptr : row + size_t(input / Block::INPUTS) * Block::BYTES),
          first(input % Block::INPUTS) {}
    DEVICE uint32_t q(int i, uint32_t zero) const { return block == nullptr ? zero : Block::q(block, first + i); }
    DEVICE f16 scale() const { return from_float<f16>(block == nullptr ? 0.f : Block::scale(block, first)); }
    DEVICE f16 least() const { return from_float<f16>(block == nullptr ? 0.f : Block::least(block, first)); }
};
