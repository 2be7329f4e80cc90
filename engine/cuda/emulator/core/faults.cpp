#include "faults.h"

#include <pthread.h>

#include "allocations.h"
#include "block.h"

namespace emulator {
namespace {

// A fault on a stack's guard page leaves no stack to report it on.
alignas(16) char handler_stack[64 << 10];

pthread_t watched;
struct sigaction segment_before, bus_before;

// Reports with `printf`, which a signal handler should not; the fault is a kernel's plain access, never inside it.
void report(int signal, siginfo_t* info, void*) {
    if (!pthread_equal(watched, pthread_self())) {
        // Another thread's fault is not ours: it happens again, for whoever handled it before.
        sigaction(signal, signal == SIGSEGV ? &segment_before : &bus_before, nullptr);
        return;
    }
    if (block.current == nullptr) abort();
    if (overflowed(block.current->fiber, info->si_addr)) fail("the thread's stack is full");
    fail("no memory at %p: %s", info->si_addr, describe_address(info->si_addr).c_str());
}

}  // namespace

WatchFaults::WatchFaults() {
    stack_t mine = {};
    mine.ss_sp = handler_stack;
    mine.ss_size = sizeof handler_stack;
    sigaltstack(&mine, &stack);
    struct sigaction action = {};
    action.sa_sigaction = report;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    watched = pthread_self();
    sigaction(SIGSEGV, &action, &segment_before);
    sigaction(SIGBUS, &action, &bus_before);
}

WatchFaults::~WatchFaults() {
    sigaction(SIGSEGV, &segment_before, nullptr);
    sigaction(SIGBUS, &bus_before, nullptr);
    sigaltstack(&stack, nullptr);
}

}  // namespace emulator
