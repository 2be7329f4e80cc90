// The device's memory: each allocation lies between pages that nobody may touch, its end right before one, and starts
// out as NaN whatever the floating-point type.
#pragma once

#include <cstddef>
#include <string>

namespace emulator {

// Null when the device's memory is used up. The end is rounded up to 16 bytes; the address is aligned to 16 only.
void* allocate(size_t bytes);
// Whether it was an allocation's start.
bool release(void* start);
void release_all();

// Whether all these bytes lie in one allocation.
bool is_allocated(const void* start, size_t bytes);
// EMULATOR_MEMORY in bytes, 2 GiB unless set.
size_t total_bytes();
size_t free_bytes();

// The size of an allocation behind whose end, before the page that faults, something was written; or zero.
size_t overwritten_allocation();

// The allocation nearest to an address that is in none, for messages.
std::string describe_address(const void* address);

}  // namespace emulator
