// Page-locked host memory: what copies may leave in place until they are carried out.
#pragma once

#include <cstddef>

namespace emulator {

// Whether all these bytes are page-locked.
bool is_pinned(const void* start, size_t bytes);

}  // namespace emulator
