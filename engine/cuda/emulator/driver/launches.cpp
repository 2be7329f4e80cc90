// Modules, functions and launches.
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "block.h"
#include "context.h"
#include "device.h"
#include "failures.h"
#include "grid.h"
#include "stream.h"

using namespace emulator;

struct CUmod_st {};
struct CUfunc_st {
    const Kernel* kernel;
    size_t dynamic_limit = PLAIN_SHARED_BYTES;
};

namespace {

// Handles live as long as the program: a function's permission for more shared memory is the kernel's.
std::map<std::string, CUfunc_st> functions;
CUmod_st every_module;

struct Shape {
    dim3 grid, block;
    size_t shared_bytes;
};

bool is_function(CUfunction function) {
    for (auto& [name, known] : functions) {
        if (&known == function) return true;
    }
    return false;
}

CUresult check(const Shape& shape, CUfunction function) {
    const dim3 &grid = shape.grid, &block = shape.block;
    size_t threads = size_t(block.x) * block.y * block.z;
    if (threads == 0 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    if (block.x > 1024 || block.y > 1024 || block.z > 64) return CUDA_ERROR_INVALID_VALUE;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return CUDA_ERROR_INVALID_VALUE;
    if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return CUDA_ERROR_INVALID_VALUE;
    return shape.shared_bytes > function->dynamic_limit ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

// Arguments as they were when the launch was asked for.
struct Arguments {
    std::vector<uint64_t> values;

    Arguments(const std::vector<size_t>& sizes, void* const* pointers) : values(sizes.size()) {
        for (size_t i = 0; i < sizes.size(); i++) memcpy(&values[i], pointers[i], sizes[i]);
    }
    std::vector<void*> pointers() {
        std::vector<void*> out;
        for (uint64_t& value : values) out.push_back(&value);
        return out;
    }
};

CUresult launch(CUfunction function, const Shape& shape, CUstream stream, void** pointers, void** extra) {
    if (!is_function(function)) return CUDA_ERROR_INVALID_HANDLE;
    const Kernel& kernel = *function->kernel;
    if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    if (pointers == nullptr && !kernel.argument_sizes.empty()) return CUDA_ERROR_INVALID_VALUE;
    CUresult error = check(shape, function);
    if (error != CUDA_SUCCESS) return error;
    Arguments arguments(kernel.argument_sizes, pointers);
    return ask(stream, [&kernel, shape, arguments]() mutable {
        if (launch_fails()) return break_context(CUDA_ERROR_ILLEGAL_ADDRESS);
        run_grid(kernel, shape.grid, shape.block, shape.shared_bytes, arguments.pointers().data());
    });
}

}  // namespace

// The image is code for a GPU: the kernels themselves are in the emulator's kernel files.
API cuModuleLoadData(CUmodule* module, const void* image) {
    return context_call([&] {
        if (module == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
        CUresult error = unsafe_call_error();
        *module = &every_module;
        return error;
    });
}
API cuModuleUnload(CUmodule module) {
    return context_call([&] { return module == &every_module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; });
}

API cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    return context_call([&] {
        if (module != &every_module) return CUDA_ERROR_INVALID_HANDLE;
        if (function == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const Kernel* kernel = find_kernel(name);
        if (kernel == nullptr) return CUDA_ERROR_NOT_FOUND;
        *function = &functions.try_emplace(name, CUfunc_st{kernel}).first->second;
        return CUDA_SUCCESS;
    });
}

API cuFuncLoad(CUfunction function) {
    return context_call([&] { return is_function(function) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; });
}

API cuFuncSetAttribute(CUfunction function, CUfunction_attribute name, int value) {
    return context_call([&] {
        if (!is_function(function)) return CUDA_ERROR_INVALID_HANDLE;
        if (name == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
        if (name != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
        if (value < 0 || size_t(value) > shared_limit()) return CUDA_ERROR_INVALID_VALUE;
        function->dynamic_limit = value;
        return CUDA_SUCCESS;
    });
}

API cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** arguments,
                   void** extra) {
    return context_call([&] {
        Shape shape = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes};
        return launch(function, shape, stream, arguments, extra);
    });
}

// Attributes of a launch change when it may start, not what it computes.
API cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** arguments, void** extra) {
    return context_call([&] {
        if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
        for (unsigned i = 0; i < config->numAttrs; i++) {
            const CUlaunchAttribute& attribute = config->attrs[i];
            if (attribute.id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) return CUDA_ERROR_NOT_SUPPORTED;
            emulator::kernels_overlap = true;
        }
        Shape shape = {{config->gridDimX, config->gridDimY, config->gridDimZ},
                       {config->blockDimX, config->blockDimY, config->blockDimZ},
                       config->sharedMemBytes};
        return launch(function, shape, config->hStream, arguments, extra);
    });
}
