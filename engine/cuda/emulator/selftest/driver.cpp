// The driver's functions: memory, laziness of streams, events, launches.
#include <cstring>
#include <thread>
#include <vector>

#include "common.cuh"
#include "driver_calls.h"

KERNEL(add_to_all)(int* out, int by, int count) {
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) out[i] += by;
}
REGISTER(add_to_all)

static void check_lazy() {
    Setting gpu;
    CUdeviceptr numbers = gpu.memory(4 * 100);
    int *from = gpu.pinned(100), *to = gpu.pinned(100);
    for (int i = 0; i < 100; i++) from[i] = i, to[i] = -1;
    DONE(cuMemcpyHtoDAsync_v2(numbers, from, 400, gpu.stream));
    DONE(gpu.add(numbers, 1000, 100));
    DONE(cuMemcpyDtoHAsync_v2(to, numbers, 400, gpu.stream));
    // Too early for both: what is read is old, what is overwritten is lost.
    CHECK(to[5] == -1);
    from[5] = 50;
    DONE(cuStreamSynchronize(gpu.stream));
    for (int i = 0; i < 100; i++) CHECK(to[i] == (i == 5 ? 1050 : 1000 + i));

    // Pageable memory is read before the call returns, and written.
    std::vector<int> pageable(100, 3);
    DONE(cuMemcpyHtoDAsync_v2(numbers, pageable.data(), 400, gpu.stream));
    pageable.assign(100, 4);
    DONE(gpu.add(numbers, 1, 100));
    DONE(cuMemcpyDtoHAsync_v2(pageable.data(), numbers, 400, gpu.stream));
    CHECK(pageable[99] == 4 && pageable[0] == 4);
    // Copies that wait do not wait for a stream that does not block.
    DONE(gpu.add(numbers, 1, 100));
    DONE(cuMemcpyDtoH_v2(pageable.data(), numbers, 400));
    CHECK(pageable[0] == 4);
    DONE(cuStreamSynchronize(gpu.stream));
    DONE(cuMemcpyDtoH_v2(pageable.data(), numbers, 400));
    CHECK(pageable[0] == 5);
    DONE(cuMemFree_v2(numbers));
    DONE(cuMemFreeHost(from));
    DONE(cuMemFreeHost(to));
}

static void check_events() {
    Setting gpu;
    CUdeviceptr numbers = gpu.memory(4);
    CUevent first, last;
    CUstream other;
    float milliseconds;
    DONE(cuEventCreate(&first, 0));
    DONE(cuEventCreate(&last, 0));
    DONE(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    DONE(cuEventRecord(first, gpu.stream));
    DONE(cuMemsetD8Async(numbers, 0, 4, gpu.stream));
    DONE(gpu.add(numbers, 1, 1));
    DONE(cuEventRecord(last, gpu.stream));
    CHECK(cuEventElapsedTime_v2(&milliseconds, first, last) == CUDA_ERROR_NOT_READY);
    CHECK(cuEventQuery(last) == CUDA_ERROR_NOT_READY);
    // A stream that waits for the event has the work before it done.
    int* out = gpu.pinned(1);
    *out = 0;
    DONE(cuStreamWaitEvent(other, last, 0));
    DONE(cuMemcpyDtoHAsync_v2(out, numbers, 4, other));
    DONE(cuStreamSynchronize(other));
    CHECK(*out == 1);
    DONE(cuEventSynchronize(last));
    DONE(cuEventElapsedTime_v2(&milliseconds, first, last));
    CHECK(milliseconds >= 0);
    DONE(cuEventRecord(last, gpu.stream));
    int polls = 1;
    while (cuEventQuery(last) == CUDA_ERROR_NOT_READY) polls++;
    CHECK(polls > 1 && polls < 10);
    DONE(cuEventDestroy_v2(first));
    DONE(cuEventDestroy_v2(last));
    DONE(cuStreamDestroy_v2(other));
    CHECK(cuStreamSynchronize(other) == CUDA_ERROR_INVALID_HANDLE);
}

static void check_memory_limits() {
    setenv("EMULATOR_MEMORY", "1000000", 1);
    {
        Setting gpu;
        CUdeviceptr first = gpu.memory(600000), second;
        CHECK(cuMemAlloc_v2(&second, 600000) == CUDA_ERROR_OUT_OF_MEMORY);
        size_t free, total;
        DONE(cuMemGetInfo_v2(&free, &total));
        CHECK(free == 400000 && total == 1000000);
        unsigned char bytes[16];
        DONE(cuMemcpyDtoH_v2(bytes, first, 16));
        for (unsigned char byte : bytes) CHECK(byte == 0xff);
        CHECK(cuMemcpyDtoH_v2(bytes, first + 600000 - 8, 16) == CUDA_ERROR_INVALID_VALUE);
        CHECK(cuMemcpyHtoD_v2(first, nullptr, 16) == CUDA_ERROR_INVALID_VALUE);
        CHECK(cuMemcpyHtoD_v2(reinterpret_cast<CUdeviceptr>(bytes), bytes, 16) == CUDA_ERROR_INVALID_VALUE);
        CHECK(cuMemFree_v2(first + 16) == CUDA_ERROR_INVALID_VALUE);
        DONE(cuMemFree_v2(first));
        DONE(cuMemAlloc_v2(&second, 1000000));
    }
    unsetenv("EMULATOR_MEMORY");
}

static void check_launches() {
    Setting gpu;
    CUdeviceptr numbers = gpu.memory(400);
    CUfunction function = gpu.function("add_to_all"), absent;
    CHECK(cuModuleGetFunction(&absent, gpu.module, "no_such_kernel") == CUDA_ERROR_NOT_FOUND);
    int one = 1;
    void* arguments[] = {&numbers, &one, &one};
    auto launch = [&](unsigned x, unsigned y, unsigned threads, unsigned shared_bytes) {
        return cuLaunchKernel(function, x, y, 1, threads, 1, 1, shared_bytes, gpu.stream, arguments, nullptr);
    };
    CHECK(launch(0, 1, 32, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch(1, 65536, 32, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch(1, 1, 1025, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch(1, 1, 32, 49153) == CUDA_ERROR_INVALID_VALUE);
    auto allow = [&](int bytes) {
        return cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
    };
    CHECK(allow(300 << 10) == CUDA_ERROR_INVALID_VALUE);
    DONE(allow(100 << 10));
    DONE(launch(1, 1, 32, 100 << 10));
    // Arguments are taken when the launch is asked for.
    one = 2;
    DONE(cuStreamSynchronize(gpu.stream));
    CHECK(cuStreamQuery(gpu.stream) == CUDA_SUCCESS);
    CUresult elsewhere = CUDA_SUCCESS;
    std::thread([&] { elsewhere = cuStreamSynchronize(gpu.stream); }).join();
    CHECK(elsewhere == CUDA_ERROR_INVALID_CONTEXT);
}

void check_driver() {
    check_lazy();
    check_events();
    check_memory_limits();
    check_launches();
    const char* name;
    DONE(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &name));
    CHECK(strcmp(name, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
}
