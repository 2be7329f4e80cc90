// A warp's part of a product: copies of weights and rows' numbers through a ring in shared memory, and the matrix
// instructions on them.
#pragma once

#include "linear_geometry.cuh"

// Where a thread's copies come from: its part of the next step's tiles, and of the rows' numbers.
template <class Format, int N, Kind KIND>
struct Source {
    using G = Geometry<Format, N, KIND>;
    using X = typename Format::Number;
    // Threads that share the rows' numbers of a run, and the bytes of half a step of them, 16 for each thread or less.
    static constexpr int THREADS = G::ROW_WARPS * WARP;
    static constexpr int CHUNKS = 4 * N;

    // In the first tile; the second is `second` further.
    const unsigned char* weights;
    size_t second;
    // The rows' numbers, and this thread's first one.
    const X* x;
    int number;
    // Weight rows from this thread's first one on that there are; rows of x likewise.
    int valid, rows, inputs;

    DEVICE Source(const void* matrix, const X* numbers, int all_rows, int outputs, int all_inputs, int block)
        : x(numbers), inputs(all_inputs) {
        int warp = threadIdx.x / WARP % G::ROW_WARPS, lane = threadIdx.x % WARP, thread = warp * WARP + lane;
        int first = int(blockIdx.x) * G::OUTPUTS + G::tile_row(warp, 0);
        weights = Format::start(matrix, first, inputs, block, lane);
        second = Format::row_bytes(KIND == GATED ? outputs : TILE, inputs);
        valid = outputs - first - lane / 4;
        int row = thread / 4 % N, half = thread / CHUNKS;
        number = row * inputs + block * STEP + 8 * Format::eight(half, thread % 4);
        rows = half > 1 ? 0 : all_rows - row;
    }

    // Starts the copies of a step and goes on to the next. 16 bytes each: `tiles` and `numbers` are where this
    // thread's first ones belong, numbers lie as lanes read them, [half][row][place].
    DEVICE void copy(Shared tiles, Shared numbers) {
        copy_tiles(tiles);
        copy_numbers(numbers);
    }
    DEVICE void copy_tiles(Shared tiles) {
#pragma unroll
        for (int tile = 0; tile < G::TILES; tile++) {
            int there = KIND == GATED ? valid : valid - tile * TILE;
            Format::copy(tiles + tile * Format::TILE_BYTES, weights + tile * second, there, inputs);
        }
        weights += Format::STEP_BYTES;
    }
    DEVICE void copy_numbers(Shared numbers) {
#pragma unroll
        for (int first = 0; first < 2 * CHUNKS; first += THREADS) {
            int row = first % CHUNKS / 4;
            const X* from = x + number + row * inputs + 8 * (Format::eight(first / CHUNKS, 0) - Format::eight(0, 0));
            if (THREADS <= 2 * CHUNKS || threadIdx.x % THREADS < 2 * CHUNKS)
                copy_to_shared_16(numbers + 16 * first, from, row < rows);
        }
        number += STEP;
    }
};

// Multiplies one step's tiles by its rows, of which the places are this lane's.
template <class Format, int N, Kind KIND>
DEVICE void multiply_step(float (&sums)[Geometry<Format, N, KIND>::TILES][N / 8][4], Shared tiles, Shared numbers) {
    using G = Geometry<Format, N, KIND>;
    constexpr int GROUP = N / 8 < 4 ? N / 8 : N == 64 ? 2 : 4;
    int lane = threadIdx.x % WARP;
    // With many sums there are no registers left to take the halves apart side by side.
#pragma unroll(N == 64 ? 1 : 2)
    for (int half = 0; half < 2; half++) {
        uint32_t a[2][G::TILES][4];
#pragma unroll
        for (int tile = 0; tile < G::TILES; tile++) {
            uint4 low = Format::weights(tiles + tile * Format::TILE_BYTES, half, 0, lane);
            uint4 high = Format::weights(tiles + tile * Format::TILE_BYTES, half, 1, lane);
            a[0][tile][0] = low.x, a[0][tile][1] = high.x, a[0][tile][2] = low.y, a[0][tile][3] = high.y;
            a[1][tile][0] = low.z, a[1][tile][1] = high.z, a[1][tile][2] = low.w, a[1][tile][3] = high.w;
        }
        // Instructions on the same sums are kept apart: each waits for the one before.
#pragma unroll
        for (int first = 0; first < N / 8; first += GROUP) {
            uint32_t b[2][GROUP][2];
#pragma unroll
            for (int n = 0; n < GROUP; n++) {
                uint4 eight = read<uint4>(numbers + half * (N * 64) + (first + n) * 512);
                b[0][n][0] = eight.x, b[0][n][1] = eight.y, b[1][n][0] = eight.z, b[1][n][1] = eight.w;
            }
#pragma unroll
            for (int part = 0; part < 2; part++)
#pragma unroll
                for (int n = 0; n < GROUP; n++)
#pragma unroll
                    for (int tile = 0; tile < G::TILES; tile++)
                        mma_m16n8k16<typename Format::Number>(sums[tile][first + n], a[part][tile], b[part][n]);
        }
    }
}

// Waits until the oldest of `stages` - 1 steps under way has come; between 4 and MOST for one or more of the others
// too, as the instruction takes a constant.
template <int MOST>
DEVICE void wait_for_step(int stages) {
    if (stages >= MOST) copy_async_wait<MOST - 2>();
    else if (stages >= 4) copy_async_wait<2>();
    else if (stages == 3) copy_async_wait<1>();
    else copy_async_wait<0>();
}

// Sums up this warp's run of inputs.
template <class Format, int N, Kind KIND>
DEVICE void multiply_run(float (&sums)[Geometry<Format, N, KIND>::TILES][N / 8][4], unsigned char* shared,
                         const void* weights, const typename Format::Number* x, int rows, int outputs, int inputs,
                         int splits, int stages) {
    using G = Geometry<Format, N, KIND>;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, k_warp = warp / G::ROW_WARPS;
    Run run = run_of(blockIdx.y * G::K_WARPS + k_warp, splits * G::K_WARPS, inputs / STEP);
    // Warps that share nothing need not wait for each other.
    int steps = G::ROW_WARPS == 1 ? run.count : run.longest;
    Source<Format, N, KIND> source(weights, x, rows, outputs, inputs, run.first);
    // This warp's places in the first stage, and its lane's, or thread's among those that share x.
    Shared start = shared_start(shared), end = start + stages * G::STAGE_BYTES;
    int tiles = warp * G::TILES * Format::TILE_BYTES, numbers = G::WEIGHT_BYTES + k_warp * G::ROW_BYTES;
    int tiles_to = tiles + lane * 16, numbers_to = numbers + threadIdx.x % (G::ROW_WARPS * WARP) * 16;
    numbers += lane * 16;

    // Weights are nobody's result: they are on their way while those before still compute the rows.
    let_next_begin();
    Shared full = start, free = start;
    for (int step = 0; step < stages - 1; step++, free += G::STAGE_BYTES)
        if (step < run.count) source.copy_tiles(free + tiles_to);
    wait_for_those_before();
    free = start;
    for (int step = 0; step < stages - 1; step++, free += G::STAGE_BYTES) {
        if (step < run.count) source.copy_numbers(free + numbers_to);
        copy_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        wait_for_step<G::MOST_STAGES>(stages);
        // This step's numbers are there for all, and all are done with the step before, whose stage is free now.
        if (G::ROW_WARPS == 1) __syncwarp();
        else __syncthreads();
        if (step + stages - 1 < run.count) source.copy(free + tiles_to, free + numbers_to);
        copy_async_commit();
        if (G::ROW_WARPS == 1 || step < run.count)
            multiply_step<Format, N, KIND>(sums, full + tiles, full + numbers);
        free = full;
        full = full + G::STAGE_BYTES == end ? start : full + G::STAGE_BYTES;
    }
}
