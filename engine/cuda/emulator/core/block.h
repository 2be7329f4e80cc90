// One block of threads: what each waits for, and which runs next.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives.h"
#include "fibers.h"
#include "registry.h"
#include "vectors.h"

namespace emulator {

enum class State { READY, AT_MEETING, AT_BARRIER, ENDED };

struct Copy {
    void* shared;
    const void* global;
    int group;
    bool valid;
};

// Lanes of a warp that gather for one operation.
struct Meeting {
    const char* name;
    Operation operation;
    int line;
    unsigned mask, arrived = 0;
    void* parts[32];
};

struct Thread {
    Fiber fiber;
    State state;
    uint3 index;
    int line;
    const Meeting* meeting;
    // Copies under way, and the number of the group that the next one joins.
    std::vector<Copy> copies;
    int group;
    // It has waited for the kernels before its own.
    bool waited;
};

struct Warp {
    Thread* lanes[32];
    int size;
    // Disjoint masks may be under way at once: `open` of these are, the others nobody has come to.
    Meeting meetings[32];
    int open;
};

// What runs now: one block of one launch.
struct Block {
    const Kernel* kernel = nullptr;
    void* const* arguments = nullptr;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    int size = 0, waiting = 0, ended = 0;
    Thread* current = nullptr;
    int lane = 0;
    Warp* warp = nullptr;
};
extern Block block;

// Whether kernels are launched such that they may begin before those before them have ended.
extern bool kernels_overlap;

// Runs the block that `blockIdx` names to its end, its threads in the order of `Order`.
void run_block(const Kernel& kernel, void* const* arguments);

// Ends the program, naming the kernel, block and thread that run now.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace emulator
