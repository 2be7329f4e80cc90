#include "device.h"

#include <cstdlib>
#include <cstring>

#include "allocations.h"
#include "context.h"

namespace emulator {

int capability() {
    const char* text = getenv("EMULATOR_CAPABILITY");
    return text == nullptr ? 90 : int(strtod(text, nullptr) * 10 + 0.5);
}

// From the CUDA programming guide's table of compute capabilities.
size_t shared_limit() {
    int version = capability();
    if (version == 80 || version == 87) return 163 << 10;
    if (version == 86 || version == 89 || version == 120) return 99 << 10;
    return 227 << 10;
}

namespace {

// An attribute's value; zero for those that say of a feature that it is there.
int attribute(CUdevice_attribute name) {
    switch (name) {
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 0x7fffffff;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return PLAIN_SHARED_BYTES;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return int(shared_limit());
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
            return int(shared_limit() + RESERVED_SHARED_BYTES);
        case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: return RESERVED_SHARED_BYTES;
        case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: return 65536;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: return 65536;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1000000;
        case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 1000000;
        case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 256;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 4 << 20;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return MULTIPROCESSORS;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: return 32;
        case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
        case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
        case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
        case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED: return 1;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return capability() / 10;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return capability() % 10;
        default: return 0;
    }
}

// Runs the body of a call about device 0, the only one, that writes to `out`.
template <class Body>
CUresult device_call(const void* out, CUdevice device, Body body) {
    return driver_call([&] {
        if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        body();
        return CUDA_SUCCESS;
    });
}

}  // namespace
}  // namespace emulator

using namespace emulator;

API cuDriverGetVersion(int* version) {
    if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *version = 13000;
    return CUDA_SUCCESS;
}

API cuDeviceGetCount(int* count) {
    return device_call(count, 0, [&] { *count = 1; });
}
API cuDeviceGet(CUdevice* device, int ordinal) {
    return device_call(device, ordinal, [&] { *device = 0; });
}
API cuDeviceGetName(char* name, int size, CUdevice device) {
    return device_call(name, device, [&] {
        if (size > 0) strncpy(name, "Emulated GPU", size - 1), name[size - 1] = 0;
    });
}
#ifndef EMULATOR_WITH_CUDA_H
#endif
API cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    return device_call(bytes, device, [&] { *bytes = total_bytes(); });
}
API cuDeviceGetAttribute(int* value, CUdevice_attribute name, CUdevice device) {
    if (name < 1 || name >= CU_DEVICE_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
    return device_call(value, device, [&] { *value = attribute(name); });
}
