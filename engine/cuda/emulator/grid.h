// A kernel's launch: all its blocks, one after the other.
#pragma once

#include "registry.h"
#include "vectors.h"

namespace emulator {

// Runs the whole grid; `arguments` points to each argument, as many and as large as the kernel says.
void run_grid(const Kernel& kernel, dim3 grid, dim3 block, size_t shared_bytes, void* const* arguments);

}  // namespace emulator
