// CUDA's arithmetic functions that C++ lacks. The approximate ones (`__expf`, `rsqrtf`) are exact here: no kernel may
// lean on their last bits.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }

inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Four bytes chosen from the eight of `x` (0..3) and `y` (4..7) by the low three bits of each nibble of `selector`.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    uint64_t bytes = uint64_t(y) << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return out;
}
// The sum of four products of signed bytes, added to `sum`.
inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; i++) sum += int(int8_t(a >> 8 * i)) * int(int8_t(b >> 8 * i));
    return sum;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

template <class T>
inline T __ldg(const T* pointer) { return *pointer; }

// Threads run one at a time and switch only inside calls of the emulator: plain operations are atomic.
template <class T>
inline T atomicAdd(T* target, T x) {
    T old = *target;
    *target = old + x;
    return old;
}
template <class T>
inline T atomicMax(T* target, T x) {
    T old = *target;
    if (x > old) *target = x;
    return old;
}
template <class T>
inline T atomicMin(T* target, T x) {
    T old = *target;
    if (x < old) *target = x;
    return old;
}
template <class T>
inline T atomicExch(T* target, T x) {
    T old = *target;
    *target = x;
    return old;
}
template <class T>
inline T atomicCAS(T* target, T expected, T x) {
    T old = *target;
    if (old == expected) *target = x;
    return old;
}
// As in CUDA: counts up to `limit`, then starts again from zero.
inline unsigned atomicInc(unsigned* target, unsigned limit) {
    unsigned old = *target;
    *target = old >= limit ? 0 : old + 1;
    return old;
}
inline void __threadfence() { asm volatile("" ::: "memory"); }
inline void __threadfence_block() { asm volatile("" ::: "memory"); }
