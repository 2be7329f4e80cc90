#include "context.h"

#include "allocations.h"
#include "kernel_files.h"
#include "stream.h"

struct CUctx_st {};

namespace emulator {

std::recursive_mutex lock;

namespace {

bool initialized;
CUresult broken = CUDA_SUCCESS;
CUctx_st primary;
int primary_users;
thread_local CUcontext current;

}  // namespace

void break_context(CUresult error) {
    if (broken == CUDA_SUCCESS) broken = error;
    drop_all_work();
}
CUresult context_error() { return broken; }

CUresult driver_error() { return initialized ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED; }
CUresult current_error() {
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (current == nullptr || primary_users == 0) return CUDA_ERROR_INVALID_CONTEXT;
    return broken;
}

}  // namespace emulator

using namespace emulator;

API cuInit(unsigned flags) {
    std::lock_guard guard(lock);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (!initialized) load_kernel_files();
    initialized = true;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    return driver_call([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
        primary_users++;
        *context = &primary;
        return CUDA_SUCCESS;
    });
}

API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return driver_call([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        if (primary_users == 0) return CUDA_ERROR_INVALID_CONTEXT;
        if (--primary_users > 0) return CUDA_SUCCESS;
        // As on a GPU, the memory goes with the context and a new one starts whole.
        drop_all_work();
        release_all();
        broken = CUDA_SUCCESS;
        return CUDA_SUCCESS;
    });
}

API cuCtxSetCurrent(CUcontext context) {
    return driver_call([&] {
        if (context != nullptr && (context != &primary || primary_users == 0)) return CUDA_ERROR_INVALID_CONTEXT;
        current = context;
        return CUDA_SUCCESS;
    });
}

API cuCtxSynchronize() {
    return context_call([] {
        if (any_capture()) return invalidate_captures();
        return run_all();
    });
}
