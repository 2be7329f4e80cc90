#include "grid.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "allocations.h"
#include "block.h"
#include "emulator.h"
#include "faults.h"
#include "order.h"
#include "shared_memory.h"

namespace emulator {
namespace {

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

}  // namespace

void add_kernel(Kernel kernel) {
    if (!kernels().emplace(kernel.name, kernel).second) {
        fprintf(stderr, "emulator: two kernels are called %s\n", kernel.name);
        abort();
    }
}

const Kernel* find_kernel(const char* name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

void run_grid(const Kernel& kernel, dim3 grid, dim3 threads, size_t shared_bytes, void* const* arguments) {
    static std::vector<uint32_t> blocks;
    order = Order();
    gridDim = grid;
    blockDim = threads;
    choose_shared_memory(kernel, shared_bytes);
    order.arrange(blocks, grid.x * grid.y * grid.z);
    WatchFaults watch;
    for (uint32_t i : blocks) {
        blockIdx = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
        spoil_shared_memory();
        run_block(kernel, arguments);
    }
    if (size_t bytes = overwritten_allocation()) {
        fail("kernel %s wrote behind the end of an allocation of %zu bytes", kernel.name, bytes);
    }
}

}  // namespace emulator
