// Faults inside kernels: an access to memory that is not there ends the program naming kernel, block and thread.
#pragma once

#include <csignal>

namespace emulator {

// While one lives, this thread's memory faults are the kernel's. There is one at a time.
class WatchFaults {
public:
    WatchFaults();
    ~WatchFaults();
    WatchFaults(const WatchFaults&) = delete;

private:
    stack_t stack;
};

}  // namespace emulator
