// The 16-bit floating-point types and their conversions, rounded to nearest even as the GPU's are.
#pragma once

#include <cstdint>
#include <cstring>

struct alignas(2) f16 { uint16_t bits; };
struct alignas(2) bf16 { uint16_t bits; };

namespace emulator {

inline uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline float f16_to_float(uint16_t half) {
    // The exponent is rebased by a product, which also normalises the subnormal ones.
    float x = float_of(uint32_t(half & 0x7fff) << 13) * float_of(0x77800000);
    uint32_t special = (half & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return float_of(float_bits(x) | special | uint32_t(half & 0x8000) << 16);
}

inline uint16_t float_to_f16(float x) {
    uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
    // Subnormal: adding 0.5 lets the addition itself round at the last place there is.
    if (magnitude < 0x38800000) return uint16_t(sign | (float_bits(float_of(magnitude) + 0.5f) - 0x3f000000));
    uint32_t odd = magnitude >> 13 & 1;
    return uint16_t(sign | (magnitude - 0x38000000 + 0xfff + odd) >> 13);
}

inline float bf16_to_float(uint16_t half) { return float_of(uint32_t(half) << 16); }

inline uint16_t float_to_bf16(float x) {
    uint32_t bits = float_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace emulator

template <class T>
inline T from_float(float x);
template <>
inline f16 from_float<f16>(float x) {
    return {emulator::float_to_f16(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x)};
}
template <>
inline bf16 from_float<bf16>(float x) { return {emulator::float_to_bf16(x)}; }
inline float to_float(f16 x) { return emulator::f16_to_float(x.bits); }
inline float to_float(bf16 x) { return emulator::bf16_to_float(x.bits); }
