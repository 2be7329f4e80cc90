// The part of CUDA that our kernels use, for a C++ compiler: `common.cuh` includes this where nvcc does not compile.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "arithmetic.h"
#include "collectives.h"
#include "copies.h"
#include "halves.h"
#include "registry.h"
#include "vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
// Blocks run one after the other on one thread of the machine, so the block's memory is that thread's: the library's
// thread-local segment holds nothing else and is spoilt before each block.
#define __shared__ static thread_local

#define KERNEL(name) extern "C" void name
#define REGISTER(name) static const emulator::Registration registration_of_##name(#name, name);
#define DEVICE inline
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(emulator::dynamic_shared())

namespace emulator {
void* dynamic_shared();
// A thread that ends without having called this is a fault: on a GPU its kernel would run before its turn.
void wait_for_kernels_before();
}

// Kernels run one after the other here; what is done before the wait is not looked at.
inline void let_next_begin() {}
inline void wait_for_those_before() { emulator::wait_for_kernels_before(); }

// Where the thread that runs now is.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

inline uint4 load_streaming(const void* global) { return *static_cast<const uint4*>(global); }
