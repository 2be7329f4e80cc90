// Weights of 8 bits, e4m3 (sign, four bits of exponent with bias 7, three of mantissa), row after row, with one scale
// for each row: `row_scales`, applied to the finished sums.
#pragma once

#include "common.cuh"

// The nearest e4m3 number, ties to even; what is beyond 448 becomes 448.
DEVICE uint8_t to_e4m3(float x) {
    float magnitude = fminf(fabsf(x), 448.f);
    uint32_t code;
    if (magnitude < 0.015625f) {
        // Subnormal, multiples of 2^-9: adding 2^23 leaves the rounded multiple in the low bits.
        code = __float_as_uint(magnitude * 512.f + 8388608.f) & 0xff;
    } else {
        uint32_t bits = __float_as_uint(magnitude);
        code = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - ((127 - 7) << 3);
    }
    return uint8_t(code | (__float_as_uint(x) >> 24 & 0x80));
}

// Two e4m3 numbers, the high bytes of the halves of `bytes` (the low ones are zero), as a pair of 16-bit numbers that
// are E4M3_SCALE times too small: exponent and mantissa are moved to where they belong, with the bias left as it was.
template <class T>
constexpr float E4M3_SCALE = 1;
template <>
constexpr float E4M3_SCALE<f16> = 256;
template <class T>
DEVICE uint32_t from_e4m3(uint32_t bytes);
template <>
DEVICE uint32_t from_e4m3<f16>(uint32_t bytes) {
    return (bytes & 0x80008000) | (bytes >> 1 & 0x3f803f80);
}
template <>
DEVICE uint32_t from_e4m3<bf16>(uint32_t bytes) {
    // The bias differs by 120, too much for the sums to bear: 2^120, exact, puts it right at once.
    return fma_pair<bf16>((bytes & 0x80008000) | (bytes >> 4 & 0x07f007f0), 0x7b807b80, 0x80008000);
}

template <class T>
struct Fp8 {
    using Number = T;
    static constexpr bool REPACKED = false, ROW_SCALES = true;
    static constexpr float SCALE = E4M3_SCALE<T>;
    static constexpr int TILE_BYTES = 1024, STEP_BYTES = 64;

    // A lane's 16 bytes are 16 inputs side by side, eight for each half of the step.
    DEVICE static int eight(int half, int place) { return 2 * place + half; }

    DEVICE static const unsigned char* start(const void* weights, int row, int inputs, int block, int lane) {
        const unsigned char* first = static_cast<const unsigned char*>(weights) + size_t(row + lane / 4) * inputs;
        return first + block * 64 + lane % 4 * 16;
    }
    DEVICE static size_t row_bytes(int rows, int inputs) { return size_t(rows) * inputs; }
    DEVICE static void copy(Shared to, const unsigned char* from, int valid, int inputs) {
        copy_to_shared_16_ahead(to, from, valid > 0);
        copy_to_shared_16_ahead(to + 512, from + row_bytes(8, inputs), valid > 8);
    }

    DEVICE static uint4 weights(Shared tile, int half, int lower, int lane) {
        uint2 bytes = read<uint2>(tile + lane * 16 + lower * 512 + half * 8);
        return make_uint4(from_e4m3<T>(__byte_perm(bytes.x, 0, 0x1404)), from_e4m3<T>(__byte_perm(bytes.x, 0, 0x3424)),
                          from_e4m3<T>(__byte_perm(bytes.y, 0, 0x1404)), from_e4m3<T>(__byte_perm(bytes.y, 0, 0x3424)));
    }
};
