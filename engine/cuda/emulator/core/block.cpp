#include "block.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "order.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

Block block;
bool kernels_overlap = false;

void wait_for_kernels_before() { block.current->waited = true; }

namespace {

void release_barrier() {
    if (block.waiting == 0 || block.waiting + block.ended < block.size) return;
    block.waiting = 0;
    for (int i = 0; i < block.size; i++) {
        if (block.threads[i].state == State::AT_BARRIER) block.threads[i].state = State::READY;
    }
}

void run_thread() {
    block.kernel->call(block.kernel->function, block.arguments);
    if (kernels_overlap && !block.current->waited) fail("ends without having waited for the kernels before its own");
    block.current->state = State::ENDED;
    block.ended++;
    release_barrier();
}

// Runs the lanes of a warp until none can go on without another warp; whether any ran.
bool run_warp(Warp& warp) {
    static std::vector<uint32_t> lanes;
    bool ran = false;
    for (bool again = true; again;) {
        again = false;
        order.arrange(lanes, warp.size);
        for (uint32_t lane : lanes) {
            Thread& thread = *warp.lanes[lane];
            if (thread.state != State::READY) continue;
            block.current = &thread;
            block.lane = int(lane);
            block.warp = &warp;
            threadIdx = thread.index;
            resume(thread.fiber, run_thread);
            again = ran = true;
        }
    }
    return ran;
}

void prepare() {
    block.size = int(blockDim.x * blockDim.y * blockDim.z);
    block.waiting = block.ended = 0;
    // Fibers hold their own address: threads are made once, for the largest block there may be.
    if (block.threads.empty()) block.threads = std::vector<Thread>(1024), block.warps = std::vector<Warp>(32);
    for (int i = 0; i < block.size; i++) {
        Thread& thread = block.threads[i];
        unsigned x = i % blockDim.x, y = i / blockDim.x % blockDim.y, z = i / (blockDim.x * blockDim.y);
        thread.state = State::READY;
        thread.index = {x, y, z};
        thread.copies.clear();
        thread.group = 0;
        thread.waited = false;
        block.warps[i / 32].lanes[i % 32] = &thread;
        block.warps[i / 32].size = i % 32 + 1;
        block.warps[i / 32].open = 0;
    }
}

void print_waiting(const Thread& thread) {
    fprintf(stderr, "  thread (%u,%u,%u) ", thread.index.x, thread.index.y, thread.index.z);
    if (thread.state == State::ENDED) {
        fprintf(stderr, "has ended\n");
    } else if (thread.state == State::AT_BARRIER) {
        fprintf(stderr, "waits at __syncthreads, line %d\n", thread.line);
    } else {
        const Meeting& meeting = *thread.meeting;
        fprintf(stderr, "waits at %s, line %d, mask %08x, for lanes %08x\n", meeting.name, thread.line, meeting.mask,
                meeting.mask & ~meeting.arrived);
    }
}

// Every thread waits for one that does not come: says for each of the first warp concerned what it waits for.
[[noreturn]] void report_deadlock() {
    Warp* stuck = nullptr;
    for (int i = 0; i < block.size && stuck == nullptr; i++) {
        if (block.threads[i].state == State::AT_MEETING) stuck = &block.warps[i / 32];
    }
    if (stuck != nullptr) {
        fprintf(stderr, "emulator: deadlock; its warp:\n");
        for (int lane = 0; lane < stuck->size; lane++) print_waiting(*stuck->lanes[lane]);
        block.current = stuck->lanes[0];
    }
    fail("deadlock: some lanes of a warp never come to where others wait for them");
}

}  // namespace

void run_block(const Kernel& kernel, void* const* arguments) {
    static std::vector<uint32_t> warps;
    block.kernel = &kernel;
    block.arguments = arguments;
    prepare();
    int count = (block.size + 31) / 32;
    while (block.ended < block.size) {
        order.arrange(warps, count);
        bool ran = false;
        for (uint32_t i : warps) ran |= run_warp(block.warps[i]);
        if (!ran) report_deadlock();
    }
    block.current = nullptr;
}

void block_barrier(int line) {
    Thread& thread = *block.current;
    thread.state = State::AT_BARRIER;
    thread.line = line;
    block.waiting++;
    release_barrier();
    suspend(thread.fiber);
}

void fail(const char* format, ...) {
    fflush(stdout);
    fprintf(stderr, "emulator: ");
    if (block.current != nullptr) {
        const uint3& thread = block.current->index;
        fprintf(stderr, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u): ", block.kernel->name, blockIdx.x, blockIdx.y,
                blockIdx.z, thread.x, thread.y, thread.z);
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

}  // namespace emulator
