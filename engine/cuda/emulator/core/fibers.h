// Flows of control with stacks of their own, switched without the operating system.
#pragma once

#include <cstddef>

namespace emulator {

// A stack that runs `body` each time it is resumed after having ended.
struct Fiber {
    void* stack = nullptr;
    // Where each side was left, as `switch_stack` keeps it.
    void *inside = nullptr, *outside = nullptr;
};

// Runs the fiber until it suspends or `body` returns. Its first use makes the stack.
void resume(Fiber& fiber, void (*body)());
// Returns to where the fiber that runs now was resumed.
void suspend(Fiber& fiber);

// Whether `address` is on the guard page below the fiber's stack.
bool overflowed(const Fiber& fiber, const void* address);

}  // namespace emulator
