// Shared memory, asynchronous copies, and accesses that no GPU allows.
#include "check.h"
#include "common.cuh"
#include "test.h"

// What a block finds in its shared memory, which it then fills for the next.
KERNEL(find_shared)(unsigned* out) {
    __shared__ unsigned fixed[32];
    DYNAMIC_SHARED(unsigned, dynamic);
    int i = threadIdx.x;
    out[blockIdx.x * 64 + i] = fixed[i];
    out[blockIdx.x * 64 + 32 + i] = dynamic[i];
    fixed[i] = dynamic[i] = i;
}
REGISTER(find_shared)

// Reads its copies' targets before, between and after the waits for its two groups: what was there goes at once.
KERNEL(copy_in_groups)(unsigned* out, const uint4* in) {
    DYNAMIC_SHARED(uint4, target);
    for (int i = 0; i < 3; i++) target[i] = make_uint4(1, 1, 1, 1);
    copy_async_16(&target[0], &in[0], true);
    copy_async_commit();
    copy_async_16(&target[1], &in[1], true);
    copy_async_16(&target[2], nullptr, false);
    copy_async_commit();
    for (int wait = 0; wait < 3; wait++) {
        if (wait == 1) copy_async_wait<1>();
        if (wait == 2) copy_async_wait<0>();
        for (int i = 0; i < 3; i++) out[wait * 3 + i] = target[i].x;
    }
}
REGISTER(copy_in_groups)

static void check_shared() {
    test::Array<unsigned> found(128), copied(9);
    test::launch("find_shared", 2, 32, 128, found);
    for (int i = 0; i < 128; i++) CHECK(found[i] == 0xffffffff);

    test::Array<uint4> in(2);
    in[0] = {7, 7, 7, 7};
    in[1] = {8, 8, 8, 8};
    test::launch("copy_in_groups", 1, 1, 48, copied, in);
    const unsigned expected[9] = {~0u, ~0u, ~0u, 7, ~0u, ~0u, 7, 8, 0};
    for (int i = 0; i < 9; i++) CHECK(copied[i] == expected[i]);
}

KERNEL(write_at)(float* out, int index) { out[index] = 1; }
REGISTER(write_at)
KERNEL(read_vector)(float* out, const float* in) { out[0] = reinterpret_cast<const float4*>(in)->x; }
REGISTER(read_vector)
KERNEL(write_shared)(int index) {
    DYNAMIC_SHARED(float, values);
    values[index] = 1;
}
REGISTER(write_shared)
KERNEL(load_from_global)(float* out) {
    uint32_t tiles[4];
    load_matrix_x4(tiles, out);
    out[threadIdx.x] = float(tiles[0]);
}
REGISTER(load_from_global)

static void check_bounds() {
    check_ends([] { test::launch("write_at", dim3(1, 2), 1, 0, test::Array<float>(100), 100); },
               "0 bytes behind the end of an allocation of 400 bytes");
    check_ends([] { test::launch("write_at", 1, 1, 0, test::Array<float>(101), 102); },
               "kernel write_at wrote behind the end of an allocation of 404 bytes");
    check_ends([] { test::launch("write_at", 1, 1, 0, test::Array<float>(1024), -1); },
               "4 bytes before an allocation of 4096 bytes");
    check_ends([] { test::launch("read_vector", 1, 1, 0, test::Array<float>(1), test::Array<float>(8).data() + 1); },
               "misaligned address");
    check_ends([] { test::launch("write_shared", 1, 1, 1024, 256); }, "kernel write_shared");
    check_ends([] { test::launch("load_from_global", 1, 32, 0, test::Array<float>(128)); }, "not in shared memory");
}

// Without a barrier between: right in no order but the one that happens to suit.
KERNEL(lacks_barrier)(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = 1;
    out[threadIdx.x] = values[63 - threadIdx.x];
}
REGISTER(lacks_barrier)

static void check_races_show() {
    test::Array<int> out(64);
    test::launch("lacks_barrier", 1, 64, 0, out);
    bool all = true;
    for (int i = 0; i < 64; i++) all &= out[i] == 1;
    CHECK(!all);
}

void check_memory() {
    check_shared();
    check_bounds();
    check_races_show();
}
