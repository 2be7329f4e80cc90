// CUDA's arithmetic functions that C++ lacks. The approximate ones (`__expf`, `rsqrtf`) are exact here: no kernel may
// lean on their last bits.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>

inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline int __ffs(int x) { return __builtin_ffs(x); }

// Four bytes chosen from the eight of `x` (0..3) and `y` (4..7) by the low three bits of each nibble of `selector`.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return out;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// Threads run one at a time and switch only inside calls of the emulator: plain operations are atomic.
template <class T>
inline T atomicAdd(T* target, T x) {
    T old = *target;
    *target = old + x;
    return old;
}
inline void __threadfence() { asm volatile("" ::: "memory"); }
