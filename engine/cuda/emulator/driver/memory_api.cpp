// Allocations of the device and of page-locked host memory.
#include <cstdlib>
#include <map>

#include "allocations.h"
#include "context.h"
#include "host_memory.h"
#include "stream.h"

using namespace emulator;

namespace {

// Sizes by start.
std::map<const char*, size_t> pinned;

CUresult allocate_pinned(void** start, size_t bytes) {
    if (start == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    CUresult error = unsafe_call_error();
    if (error != CUDA_SUCCESS) return error;
    *start = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*start == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    pinned[static_cast<char*>(*start)] = bytes;
    return CUDA_SUCCESS;
}

}  // namespace

bool emulator::is_pinned(const void* start, size_t bytes) {
    const char* first = static_cast<const char*>(start);
    auto next = pinned.upper_bound(first);
    if (next == pinned.begin()) return false;
    auto& [found, size] = *std::prev(next);
    return first + bytes <= found + size;
}

API cuMemAlloc_v2(CUdeviceptr* start, size_t bytes) {
    return context_call([&] {
        if (start == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
        CUresult error = unsafe_call_error();
        if (error != CUDA_SUCCESS) return error;
        void* found = allocate(bytes);
        *start = reinterpret_cast<CUdeviceptr>(found);
        return found == nullptr ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    });
}

API cuMemFree_v2(CUdeviceptr start) {
    return context_call([&] {
        if (start == 0) return CUDA_SUCCESS;
        CUresult error = unsafe_call_error();
        // Freeing waits for the device.
        if (error == CUDA_SUCCESS) error = run_all();
        if (error != CUDA_SUCCESS) return error;
        return release(reinterpret_cast<void*>(start)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    });
}

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    return context_call([&] {
        if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *free = free_bytes();
        *total = total_bytes();
        return CUDA_SUCCESS;
    });
}

API cuMemHostAlloc(void** start, size_t bytes, unsigned) {
    return context_call([&] { return allocate_pinned(start, bytes); });
}
API cuMemFreeHost(void* start) {
    return context_call([&] {
        if (pinned.count(static_cast<char*>(start)) == 0) return CUDA_ERROR_INVALID_VALUE;
        CUresult error = unsafe_call_error();
        if (error == CUDA_SUCCESS) error = run_all();
        if (error != CUDA_SUCCESS) return error;
        pinned.erase(static_cast<char*>(start));
        free(start);
        return CUDA_SUCCESS;
    });
}
