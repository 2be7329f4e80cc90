// What every kernel is written with: number types, warp and block reductions, matrix instructions, asynchronous
// copies. The same source is compiled by nvcc for the GPU and, with `engine/cuda/emulator`, by a C++ compiler for
// tests on a machine without one; whatever only the GPU has is behind a function of this file.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define KERNEL(name) extern "C" __global__ void name
// Tells the emulator of a kernel; nvcc knows it anyway.
#define REGISTER(name)
#define DEVICE __device__ __forceinline__
// The block's dynamic shared memory, as an array.
#define DYNAMIC_SHARED(type, name)                                        \
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared_bytes)
using f16 = __half;
using bf16 = __nv_bfloat16;
#else
#include "emulator.h"
#endif

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// A kernel is launched while the one before it still runs (programmatic dependent launch, from sm_90 on), so that its
// blocks are in place when that ends. Every kernel of ours says first that the next may come, and waits before it reads
// or writes what others do: with `begin`, or apart where something can be done in between that depends on nobody.
DEVICE void let_next_begin();
DEVICE void wait_for_those_before();
DEVICE void begin() {
    let_next_begin();
    wait_for_those_before();
}

// Numbers. Every kernel computes in single precision, whatever its rows are stored as.
DEVICE float to_float(float x) { return x; }
template <class T>
DEVICE T from_float(float x);
template <>
DEVICE float from_float<float>(float x) { return x; }

#ifdef __CUDACC__
DEVICE float to_float(f16 x) { return __half2float(x); }
DEVICE float to_float(bf16 x) { return __bfloat162float(x); }
// Rounds to nearest even; a half that would overflow becomes the largest there is, so that no row turns infinite.
template <>
DEVICE f16 from_float<f16>(float x) { return __float2half_rn(x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x); }
template <>
DEVICE bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
#endif

// Two numbers of 16 bits side by side, the first in the low half.
template <class T>
DEVICE uint32_t pack(T low, T high) {
    static_assert(sizeof(T) == 2, "16 bits each");
    uint16_t bits[2];
    memcpy(&bits[0], &low, 2);
    memcpy(&bits[1], &high, 2);
    return uint32_t(bits[0]) | uint32_t(bits[1]) << 16;
}
template <class T>
DEVICE T low_half(uint32_t pair) {
    T out;
    uint16_t bits = uint16_t(pair);
    memcpy(&out, &bits, 2);
    return out;
}
template <class T>
DEVICE T high_half(uint32_t pair) {
    return low_half<T>(pair >> 16);
}

// Reductions over a warp; every lane gets the result, and all get the same bits.
DEVICE float warp_sum(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}
DEVICE float warp_max(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

// d += a · b for one m16n8k16 tile; fragments lie among the lanes as PTX ISA 9.7.14.5 (mma.m16n8k16) says.
// `T` is f16 or bf16: what `a` and `b` hold.
template <class T>
DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

// Four 8×8 matrices of 16-bit numbers from shared memory, as ldmatrix.x4 gives them; each lane gives the address
// of one row (16 bytes, aligned).
DEVICE void load_matrix_x4(uint32_t (&out)[4], const void* row);
// The same, each matrix transposed.
DEVICE void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row);

// 16 bytes from global to shared memory, without a register on the way; zeros where `valid` is false.
// Both addresses are aligned to 16.
DEVICE void copy_async_16(void* shared, const void* global, bool valid);
// Ends a group of copies.
DEVICE void copy_async_commit();
// Waits until at most `Pending` groups of this thread are under way; a barrier makes them seen by others.
template <int Pending>
DEVICE void copy_async_wait();

// A load of 16 bytes that is used once: not kept in the first-level cache. Not through the path for constants (`.nc`):
// what is loaded may be the work of a kernel that still ran when this one began.
DEVICE uint4 load_streaming(const void* global);

#ifdef __CUDACC__
DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n");
#endif
}
DEVICE void wait_for_those_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
template <>
DEVICE void mma_m16n8k16<f16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
DEVICE void mma_m16n8k16<bf16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE uint32_t shared_address(const void* pointer) { return uint32_t(__cvta_generic_to_shared(pointer)); }
DEVICE void load_matrix_x4(uint32_t (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void copy_async_16(void* shared, const void* global, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int Pending>
DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}
DEVICE uint4 load_streaming(const void* global) {
    uint4 out;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
                 : "l"(global));
    return out;
}
#endif

// A place in the block's dynamic shared memory as the number that the instructions take. Kept as a number, it is not
// worked out again from the array wherever it is used.
#ifdef __CUDACC__
using Shared = uint32_t;
DEVICE Shared shared_start(void* pointer) {
    Shared start = shared_address(pointer);
    asm volatile("" : "+r"(start));
    return start;
}
#else
using Shared = unsigned char*;
DEVICE Shared shared_start(void* pointer) { return static_cast<unsigned char*>(pointer); }
#endif

// Reads a T of 2, 4, 8 or 16 bytes, from shared or other memory.
template <class T>
DEVICE T read(const unsigned char* from) { return *reinterpret_cast<const T*>(from); }
// The copy `copy_async_16` with another way to say where to.
DEVICE void copy_to_shared_16(Shared to, const void* global, bool valid);
// The same, for rows that are read to their end: the other half of a line of 128 bytes comes to the second-level cache
// as well.
DEVICE void copy_to_shared_16_ahead(Shared to, const void* global, bool valid);

// a · b + c of two pairs of 16-bit numbers, each rounded once.
template <class T>
DEVICE uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c);
// The first, or the second, of a pair of 16-bit numbers twice.
DEVICE uint32_t low_twice(uint32_t pair);
DEVICE uint32_t high_twice(uint32_t pair);
// (x & mask) | bits, in one instruction.
DEVICE uint32_t masked_or(uint32_t x, uint32_t mask, uint32_t bits);

#ifdef __CUDACC__
template <class T>
DEVICE T read(Shared from) {
    uint4 words = {};
    if (sizeof(T) == 16)
        asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];\n"
                     : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                     : "r"(from)
                     : "memory");
    else if (sizeof(T) == 8)
        asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];\n" : "=r"(words.x), "=r"(words.y) : "r"(from)
                     : "memory");
    else if (sizeof(T) == 4)
        asm volatile("ld.shared.u32 %0, [%1];\n" : "=r"(words.x) : "r"(from)
                     : "memory");
    else
        asm volatile("{.reg .b16 half; ld.shared.b16 half, [%1]; cvt.u32.u16 %0, half;}\n" : "=r"(words.x) : "r"(from)
                     : "memory");
    T out;
    memcpy(&out, &words, sizeof(T));
    return out;
}
DEVICE void copy_to_shared_16(Shared to, const void* global, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
DEVICE void copy_to_shared_16_ahead(Shared to, const void* global, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes)
                 : "memory");
}
template <>
DEVICE uint32_t fma_pair<f16>(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t out;
    asm("fma.rn.f16x2 %0, %1, %2, %3;\n" : "=r"(out) : "r"(a), "r"(b), "r"(c));
    return out;
}
template <>
DEVICE uint32_t fma_pair<bf16>(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t out;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(out) : "r"(a), "r"(b), "r"(c));
    return out;
}
DEVICE uint32_t low_twice(uint32_t pair) {
    uint32_t out;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {low, low};}\n" : "=r"(out) : "r"(pair));
    return out;
}
DEVICE uint32_t high_twice(uint32_t pair) {
    uint32_t out;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {high, high};}\n" : "=r"(out) : "r"(pair));
    return out;
}
DEVICE uint32_t masked_or(uint32_t x, uint32_t mask, uint32_t bits) {
    uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;\n" : "=r"(out) : "r"(x), "r"(mask), "r"(bits));
    return out;
}
#else
DEVICE void copy_to_shared_16(Shared to, const void* global, bool valid) { copy_async_16(to, global, valid); }
DEVICE void copy_to_shared_16_ahead(Shared to, const void* global, bool valid) { copy_async_16(to, global, valid); }
template <class T>
DEVICE uint32_t fma_pair(uint32_t a, uint32_t b, uint32_t c) {
    float low = to_float(low_half<T>(a)) * to_float(low_half<T>(b)) + to_float(low_half<T>(c));
    float high = to_float(high_half<T>(a)) * to_float(high_half<T>(b)) + to_float(high_half<T>(c));
    return pack(from_float<T>(low), from_float<T>(high));
}
DEVICE uint32_t low_twice(uint32_t pair) { return (pair & 0xffff) | pair << 16; }
DEVICE uint32_t high_twice(uint32_t pair) { return pair >> 16 | (pair & 0xffff0000); }
DEVICE uint32_t masked_or(uint32_t x, uint32_t mask, uint32_t bits) { return (x & mask) | bits; }
#endif

// 2^x, good to the last few bits; 0 for -infinity.
DEVICE float exp2_fast(float x);
// Two numbers rounded to T, as a pair.
template <class T>
DEVICE uint32_t pack_floats(float low, float high);
// `load_streaming` of 16 or 8 bytes where `valid` holds, else zeros without a look at the address; never a branch.
DEVICE uint4 load_streaming_16(const void* global, bool valid);
DEVICE uint2 load_streaming_8(const void* global, bool valid);

#ifdef __CUDACC__
DEVICE float exp2_fast(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(out) : "f"(x));
    return out;
}
template <>
DEVICE uint32_t pack_floats<f16>(float low, float high) {
    uint32_t out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(out) : "f"(high), "f"(low));
    return out;
}
template <>
DEVICE uint32_t pack_floats<bf16>(float low, float high) {
    uint32_t out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(out) : "f"(high), "f"(low));
    return out;
}
DEVICE uint4 load_streaming_16(const void* global, bool valid) {
    uint4 out;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.s32 p, %5, 0;\nmov.u32 %0, 0;\nmov.u32 %1, 0;\nmov.u32 %2, 0;\nmov.u32 %3, 0;\n"
        "@p ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n}\n"
        : "=&r"(out.x), "=&r"(out.y), "=&r"(out.z), "=&r"(out.w)
        : "l"(global), "r"(int(valid)));
    return out;
}
DEVICE uint2 load_streaming_8(const void* global, bool valid) {
    uint2 out;
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.s32 p, %3, 0;\nmov.u32 %0, 0;\nmov.u32 %1, 0;\n"
        "@p ld.global.L1::no_allocate.v2.u32 {%0,%1}, [%2];\n}\n"
        : "=&r"(out.x), "=&r"(out.y)
        : "l"(global), "r"(int(valid)));
    return out;
}
#else
DEVICE float exp2_fast(float x) { return exp2f(x); }
template <class T>
DEVICE uint32_t pack_floats(float low, float high) {
    return pack(from_float<T>(low), from_float<T>(high));
}
DEVICE uint4 load_streaming_16(const void* global, bool valid) {
    return valid ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
}
DEVICE uint2 load_streaming_8(const void* global, bool valid) {
    return valid ? *static_cast<const uint2*>(global) : make_uint2(0, 0);
}
#endif
