// What the machine can do at best, measured by a kernel that does nothing else.
#include "common.cuh"

// Loads that each thread has under way.
constexpr int IN_FLIGHT = 8;
// Threads of a block; each page of 4096 bytes is one load of all of them.
constexpr int READERS = 256;

DEVICE unsigned folded(uint4 x) { return x.x ^ x.y ^ x.z ^ x.w; }

// Reads pages · 4096 bytes as fast as memory gives them. out[block] is made from all that the block read, so that
// nothing is left out. Blocks of 256 threads; the more blocks per multiprocessor, the more loads are under way.
KERNEL(__launch_bounds__(READERS, 4) read_all)(float* out, const uint4* data, int pages) {
    begin();
    __shared__ unsigned folds[READERS / WARP];
    unsigned fold = 0;
    data += threadIdx.x;
    int whole = pages / IN_FLIGHT;
    for (int group = blockIdx.x; group < whole; group += gridDim.x) {
        uint4 loads[IN_FLIGHT];
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) loads[i] = load_streaming(data + (size_t(group) * IN_FLIGHT + i) * READERS);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) fold ^= folded(loads[i]);
    }
    for (int page = whole * IN_FLIGHT + blockIdx.x; page < pages; page += gridDim.x) {
        fold ^= folded(load_streaming(data + size_t(page) * READERS));
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) fold ^= __shfl_xor_sync(ALL_LANES, fold, offset);
    if (threadIdx.x % WARP == 0) folds[threadIdx.x / WARP] = fold;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int warp = 1; warp < READERS / WARP; warp++) fold ^= folds[warp];
    out[blockIdx.x] = float(fold);
}
REGISTER(read_all)
