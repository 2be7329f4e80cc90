// The shared memory of the block that runs: the dynamic part, and the `__shared__` arrays of the kernel's file.
#pragma once

#include <cstddef>

#include "registry.h"

namespace emulator {

// The most that a block can have: 227 KiB, as compute capability 9.0.
constexpr size_t MAX_SHARED_BYTES = 227 << 10;

// Chooses the kernel and the size of its dynamic part for a launch.
void choose_shared_memory(const Kernel& kernel, size_t dynamic_bytes);
// Fills it all with ones, which are NaN as floating point of any width.
void spoil_shared_memory();
void* dynamic_shared();
bool in_shared_memory(const void* address, size_t bytes);

}  // namespace emulator
