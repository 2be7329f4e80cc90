// Shuffles, votes, barriers and matrix instructions, against what CUDA and the PTX ISA say of them.
#include "check.h"
#include "common.cuh"
#include "test.h"

KERNEL(shuffles)(int* out) {
    int lane = threadIdx.x;
    out[lane] = __shfl_sync(ALL_LANES, lane, 5);
    out[32 + lane] = __shfl_xor_sync(ALL_LANES, lane, 3);
    out[64 + lane] = __shfl_down_sync(ALL_LANES, lane, 4);
    out[96 + lane] = __shfl_up_sync(ALL_LANES, lane, 4);
    out[128 + lane] = __shfl_sync(ALL_LANES, lane, 1, 8);
    out[160 + lane] = __shfl_down_sync(ALL_LANES, lane, 4, 8);
    // Two halves of the warp on ways of their own.
    if (lane < 16) {
        out[192 + lane] = __shfl_xor_sync(0x0000ffffu, lane, 1);
    } else {
        __syncwarp(0xffff0000u);
        out[192 + lane] = __shfl_xor_sync(0xffff0000u, lane, 2);
    }
}
REGISTER(shuffles)

static void check_shuffles() {
    test::Array<int> out(224);
    test::launch("shuffles", 1, 32, 0, out);
    for (int lane = 0; lane < 32; lane++) {
        CHECK(out[lane] == 5);
        CHECK(out[32 + lane] == (lane ^ 3));
        CHECK(out[64 + lane] == (lane + 4 < 32 ? lane + 4 : lane));
        CHECK(out[96 + lane] == (lane >= 4 ? lane - 4 : lane));
        CHECK(out[128 + lane] == lane / 8 * 8 + 1);
        CHECK(out[160 + lane] == (lane % 8 < 4 ? lane + 4 : lane));
        CHECK(out[192 + lane] == (lane ^ (lane < 16 ? 1 : 2)));
    }
}

KERNEL(votes)(unsigned* out, int n) {
    int i = threadIdx.x;
    unsigned ballot = __ballot_sync(ALL_LANES, i < n);
    int any = __any_sync(ALL_LANES, i == n), all = __all_sync(ALL_LANES, i < n);
    if (i % WARP == 0) out[i / WARP] = ballot, out[8 + i / WARP] = any, out[16 + i / WARP] = all;
}
REGISTER(votes)

static void check_votes() {
    test::Array<unsigned> out(24);
    test::launch("votes", 1, 64, 0, out, 40);
    CHECK(out[0] == ALL_LANES && out[1] == 0xff);
    CHECK(out[8] == 0 && out[9] == 1);
    CHECK(out[16] == 1 && out[17] == 0);
}

// Each thread reads what its counterpart wrote; the last ones leave before the second barrier.
KERNEL(turn_around)(int* out, int staying) {
    __shared__ int values[96];
    int i = threadIdx.x;
    values[i] = i;
    __syncthreads();
    int other = values[95 - i];
    if (i >= staying) return;
    __syncthreads();
    values[i] = other;
    __syncthreads();
    out[blockIdx.x * 96 + i] = values[staying - 1 - i];
    atomicAdd(&out[gridDim.x * 96], 1);
}
REGISTER(turn_around)

static void check_barriers() {
    test::Array<int> out(2 * 96 + 1);
    out[2 * 96] = 0;
    test::launch("turn_around", 2, dim3(96), 0, out, 70);
    for (int block = 0; block < 2; block++) {
        for (int i = 0; i < 70; i++) CHECK(out[block * 96 + i] == 95 - (69 - i));
    }
    CHECK(out[2 * 96] == 140);
}

// a is [16][16], b is [8][16] (column by column) and, for `turned`, [16][8].
template <class T>
DEVICE void multiply_tile(float* out, const T* a, const T* b, const T* b_turned, int by_hand) {
    __shared__ __align__(16) T rows[16 * 16], columns[2 * 16 * 8];
    int lane = threadIdx.x, group = lane / 4, within = lane % 4;
    for (int i = lane; i < 256; i += WARP) rows[i] = a[i];
    for (int i = lane; i < 128; i += WARP) columns[i] = b[i], columns[128 + i] = b_turned[i];
    __syncwarp();
    uint32_t left[4], right[4], turned[4];
    load_matrix_x4(left, &rows[lane % 16 * 16 + lane / 16 * 8]);
    // Two matrices are wanted: the other two addresses repeat them.
    load_matrix_x4(right, &columns[lane % 8 * 16 + lane / 8 % 2 * 8]);
    load_matrix_x4_transposed(turned, &columns[128 + lane % 16 * 8]);
    if (by_hand) {
        // As the PTX ISA gives the fragments.
        left[0] = pack(a[group * 16 + within * 2], a[group * 16 + within * 2 + 1]);
        left[1] = pack(a[(group + 8) * 16 + within * 2], a[(group + 8) * 16 + within * 2 + 1]);
        left[2] = pack(a[group * 16 + within * 2 + 8], a[group * 16 + within * 2 + 9]);
        left[3] = pack(a[(group + 8) * 16 + within * 2 + 8], a[(group + 8) * 16 + within * 2 + 9]);
        right[0] = turned[0] = pack(b[group * 16 + within * 2], b[group * 16 + within * 2 + 1]);
        right[1] = turned[1] = pack(b[group * 16 + within * 2 + 8], b[group * 16 + within * 2 + 9]);
    }
    for (int way = 0; way < 2; way++) {
        float d[4] = {1, 1, 1, 1};
        uint32_t fragment[2] = {way ? turned[0] : right[0], way ? turned[1] : right[1]};
        mma_m16n8k16<T>(d, left, fragment);
        for (int i = 0; i < 4; i++) out[way * 128 + (group + i / 2 * 8) * 8 + within * 2 + i % 2] = d[i];
    }
}
KERNEL(multiply_f16)(float* out, const f16* a, const f16* b, const f16* b_turned, int by_hand) {
    multiply_tile(out, a, b, b_turned, by_hand);
}
REGISTER(multiply_f16)
KERNEL(multiply_bf16)(float* out, const bf16* a, const bf16* b, const bf16* b_turned, int by_hand) {
    multiply_tile(out, a, b, b_turned, by_hand);
}
REGISTER(multiply_bf16)

template <class T>
static void check_multiply(const char* kernel) {
    test::Array<T> a(256), b(128), turned(128);
    for (int i = 0; i < 256; i++) a[i] = from_float<T>(float(i * 7 % 31) - 15);
    for (int k = 0; k < 16; k++) {
        for (int n = 0; n < 8; n++) {
            b[n * 16 + k] = turned[k * 8 + n] = from_float<T>(float((k * 8 + n) * 5 % 23) / 4 - 2);
        }
    }
    for (int by_hand = 0; by_hand < 2; by_hand++) {
        test::Array<float> out(256);
        test::launch(kernel, 1, 32, 0, out, a, b, turned, by_hand);
        for (int i = 0; i < 256; i++) {
            int row = i % 128 / 8, column = i % 8;
            float expected = 1;
            for (int k = 0; k < 16; k++) expected += to_float(a[row * 16 + k]) * to_float(b[column * 16 + k]);
            CHECK(out[i] == expected);
        }
    }
}

static void check_halves() {
    for (int i = 0; i < 65536; i++) {
        f16 half = {uint16_t(i)};
        bf16 brain = {uint16_t(i)};
        bool half_is_number = (i & 0x7c00) != 0x7c00, brain_is_number = (i & 0x7f80) != 0x7f80;
        if (half_is_number) CHECK(from_float<f16>(to_float(half)).bits == i);
        if (brain_is_number) CHECK(from_float<bf16>(to_float(brain)).bits == i);
    }
    CHECK(to_float(f16{0x0001}) == ldexpf(1, -24) && to_float(f16{0x7bff}) == 65504);
    CHECK(std::isinf(to_float(f16{0x7c00})));
    // Halfway goes to even, a bit more goes up, too much is the largest there is.
    CHECK(from_float<f16>(1 + ldexpf(1, -11)).bits == 0x3c00 && from_float<f16>(1 + 3 * ldexpf(1, -11)).bits == 0x3c02);
    CHECK(from_float<f16>(1 + ldexpf(1.01f, -11)).bits == 0x3c01 && from_float<f16>(ldexpf(1.01f, -25)).bits == 1);
    CHECK(from_float<f16>(1e30f).bits == 0x7bff && from_float<f16>(-70000.f).bits == 0xfbff);
    CHECK(from_float<bf16>(1 + ldexpf(1, -8)).bits == 0x3f80 && from_float<bf16>(1 + 3 * ldexpf(1, -8)).bits == 0x3f82);
    CHECK(std::isnan(to_float(from_float<f16>(NAN))) && std::isnan(to_float(from_float<bf16>(NAN))));
}

KERNEL(lonely_lane)(float* out, int n) {
    if (int(threadIdx.x) < n) out[threadIdx.x] = warp_sum(1);
}
REGISTER(lonely_lane)
KERNEL(two_ways)(float* out) {
    float x = 0;
    if (threadIdx.x < 16) {
        x = __shfl_sync(ALL_LANES, x, 0);
    } else {
        __syncwarp();
    }
    out[threadIdx.x] = x;
}
REGISTER(two_ways)
KERNEL(reads_outside)(float* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.f, 20);
}
REGISTER(reads_outside)

static void check_misuse() {
    check_ends([] { test::launch("lonely_lane", 1, 32, 0, test::Array<float>(32), 20); },
               "kernel lonely_lane, block (0,0,0), thread (0,0,0): deadlock");
    check_ends([] { test::launch("two_ways", 1, 32, 0, test::Array<float>(32)); }, "other lanes of the mask");
    check_ends([] { test::launch("reads_outside", 1, 32, 0, test::Array<float>(32)); }, "reads lane 20, not in");
}

void check_collectives() {
    check_shuffles();
    check_votes();
    check_barriers();
    check_multiply<f16>("multiply_f16");
    check_multiply<bf16>("multiply_bf16");
    check_halves();
    check_misuse();
}
