// What the emulated GPU says of itself.
#pragma once

#include <cstddef>

namespace emulator {

// EMULATOR_CAPABILITY as ten times major plus minor: 90 unless set.
int capability();
// The most shared memory of a block, of the capability's chips.
size_t shared_limit();

constexpr int MULTIPROCESSORS = 4;
constexpr size_t PLAIN_SHARED_BYTES = 48 << 10, RESERVED_SHARED_BYTES = 1 << 10;

}  // namespace emulator
