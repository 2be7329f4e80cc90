// GGUF blocks into tiles, once when a model is loaded.
#include "q4k.cuh"
#include "q5k.cuh"
#include "q6k.cuh"
#include "q8_0.cuh"

// A block of 128 threads for each tile: grid (ceil(outputs / 16), inputs / 64). `blocks` are the matrix's GGUF blocks,
// row after row.
template <class Format, class Block>
DEVICE void repack(void* out, const void* blocks, int outputs, int inputs) {
    int lane = threadIdx.x % WARP, lower = threadIdx.x / WARP % 2, half = threadIdx.x / WARP / 2;
    int row = blockIdx.x * 16 + lower * 8 + lane / 4;
    size_t row_bytes = size_t(inputs / Block::INPUTS) * Block::BYTES;
    const unsigned char* from = static_cast<const unsigned char*>(blocks) + row * row_bytes;
    unsigned char* tile = static_cast<unsigned char*>(out) + Format::offset(blockIdx.x * 16, inputs, blockIdx.y);
    Format::template repack<Block>(tile, row < outputs ? from : nullptr, blockIdx.y, half, lower, lane);
}

#define REPACK(NAME, FORMAT, BLOCK)                                                                        \
    KERNEL(__launch_bounds__(128) repack_##NAME)(void* out, const void* blocks, int outputs, int inputs) { \
        begin();                                                                                           \
        repack<FORMAT, BLOCK>(out, blocks, outputs, inputs);                                               \
    }                                                                                                      \
    REGISTER(repack_##NAME)
REPACK(q4_0, Q4K, BlockQ4_0)
REPACK(q4k, Q4K, BlockQ4K)
REPACK(q5_0, Q5K, BlockQ5_0)
REPACK(q5k, Q5K, BlockQ5K)
REPACK(q6k, Q6K, BlockQ6K)
REPACK(q8_0, Q8_0, BlockQ8_0)
