// Copies and fills.
#include <cstring>

#include "allocations.h"
#include "context.h"
#include "host_memory.h"
#include "stream.h"

using namespace emulator;

namespace {

void* device(CUdeviceptr address) { return reinterpret_cast<void*>(address); }
bool is_device(CUdeviceptr address, size_t bytes) { return is_allocated(device(address), bytes); }

// Carries a copy or fill out, unless a side of it that is the device's was freed since it was asked for.
struct Transfer {
    void* target;
    const void* source;
    size_t bytes;
    bool target_on_device, source_on_device;

    void operator()() const {
        bool target_there = !target_on_device || is_allocated(target, bytes);
        bool source_there = !source_on_device || is_allocated(source, bytes);
        if (target_there && source_there) {
            memmove(target, source, bytes);
        } else {
            break_context(CUDA_ERROR_ILLEGAL_ADDRESS);
        }
    }
};

CUresult copy_to_device(CUdeviceptr target, const void* source, size_t bytes, CUstream stream) {
    if (bytes == 0) return CUDA_SUCCESS;
    if (source == nullptr || !is_device(target, bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (find_stream(stream) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (is_pinned(source, bytes)) return ask(stream, Transfer{device(target), source, bytes, true, false});
    // The driver takes pageable memory into a buffer of its own before it returns; a capture cannot hold that.
    if (find_stream(stream)->capture != nullptr) return invalidate_captures();
    auto taken = std::make_shared<std::vector<char>>(bytes);
    memcpy(taken->data(), source, bytes);
    return ask(stream, [=] { Transfer{device(target), taken->data(), bytes, true, false}(); });
}

CUresult copy_to_host(void* target, CUdeviceptr source, size_t bytes, CUstream handle) {
    if (bytes == 0) return CUDA_SUCCESS;
    if (target == nullptr || !is_device(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
    Stream* stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Transfer transfer = {target, device(source), bytes, false, true};
    if (is_pinned(target, bytes)) return ask(handle, transfer);
    // Into pageable memory the driver copies before it returns.
    if (stream->capture != nullptr) return invalidate_captures();
    CUresult error = ask(handle, transfer);
    return error != CUDA_SUCCESS ? error : run_until(*stream, stream->asked);
}

CUresult copy_within(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
    if (bytes == 0) return CUDA_SUCCESS;
    if (!is_device(target, bytes) || !is_device(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return ask(stream, Transfer{device(target), device(source), bytes, true, true});
}

template <class T>
CUresult fill(CUdeviceptr target, T value, size_t count, CUstream stream) {
    if (count == 0) return CUDA_SUCCESS;
    if (target % sizeof(T) != 0 || !is_device(target, count * sizeof(T))) return CUDA_ERROR_INVALID_VALUE;
    return ask(stream, [=] {
        if (!is_device(target, count * sizeof(T))) return break_context(CUDA_ERROR_ILLEGAL_ADDRESS);
        T* numbers = static_cast<T*>(device(target));
        for (size_t i = 0; i < count; i++) numbers[i] = value;
    });
}

// A call that is done when it returns, on the legacy default stream.
template <class Start>
CUresult and_wait(Start start) {
    return context_call([&] {
        CUresult error = unsafe_call_error();
        if (error == CUDA_SUCCESS) error = start();
        return error == CUDA_SUCCESS ? run_default() : error;
    });
}

}  // namespace

API cuMemcpyHtoD_v2(CUdeviceptr target, const void* source, size_t bytes) {
    return and_wait([&] { return copy_to_device(target, source, bytes, nullptr); });
}
API cuMemcpyDtoH_v2(void* target, CUdeviceptr source, size_t bytes) {
    return and_wait([&] { return copy_to_host(target, source, bytes, nullptr); });
}
API cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* source, size_t bytes, CUstream stream) {
    return context_call([&] { return copy_to_device(target, source, bytes, stream); });
}
API cuMemcpyDtoHAsync_v2(void* target, CUdeviceptr source, size_t bytes, CUstream stream) {
    return context_call([&] { return copy_to_host(target, source, bytes, stream); });
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
    return context_call([&] { return copy_within(target, source, bytes, stream); });
}

API cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, CUstream stream) {
    return context_call([&] { return fill(target, value, count, stream); });
}
