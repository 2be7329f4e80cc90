#include "fibers.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

// Leaves this stack, its place stored in `*left`, and goes on where `next` was left.
extern "C" void emulator_switch_stack(void** left, void* next);

#ifdef __x86_64__
// The registers that a function must keep are on the stack that is left. The way back is a jump, as a processor
// foresees where a return leads by the calls it has seen, which were on other stacks.
asm(R"(
    .text
    .hidden emulator_switch_stack
    .globl emulator_switch_stack
    .type emulator_switch_stack, @function
emulator_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
    .size emulator_switch_stack, .-emulator_switch_stack
)");
#else
// Elsewhere by the system's own means, which are slower.
extern "C" void emulator_switch_stack(void** left, void* next) {
    ucontext_t here;
    *left = &here;
    swapcontext(&here, static_cast<ucontext_t*>(next));
}
#endif

namespace emulator {
namespace {

constexpr size_t STACK_BYTES = 256 << 10, GUARD_BYTES = 4096;

Fiber* resumed;
void (*body_to_run)();

void run_bodies() {
    Fiber& fiber = *resumed;
    for (;;) {
        body_to_run();
        suspend(fiber);
    }
}

char* make_stack() {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, GUARD_BYTES, PROT_NONE) != 0) {
        perror("emulator: no memory for a thread's stack");
        abort();
    }
    return static_cast<char*>(stack);
}

// Stacks that all ended at the same distance from a page would share a few places of the processor's caches.
size_t stagger() {
    static size_t stacks;
    return stacks++ * 448 % 4096;
}

void start(Fiber& fiber) {
    char* stack = make_stack();
    fiber.stack = stack;
#ifdef __x86_64__
    // As if left at the start of `run_bodies`: six registers, then where to return to, and a word for alignment.
    void** top = reinterpret_cast<void**>(stack + STACK_BYTES - stagger());
    top[-2] = reinterpret_cast<void*>(run_bodies);
    fiber.inside = top - 8;
#else
    ucontext_t* context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK_BYTES - stagger();
    makecontext(context, run_bodies, 0);
    fiber.inside = context;
#endif
}

}  // namespace

void resume(Fiber& fiber, void (*body)()) {
    if (fiber.stack == nullptr) start(fiber);
    resumed = &fiber;
    body_to_run = body;
    emulator_switch_stack(&fiber.outside, fiber.inside);
}

void suspend(Fiber& fiber) { emulator_switch_stack(&fiber.inside, fiber.outside); }

bool overflowed(const Fiber& fiber, const void* address) {
    uintptr_t base = reinterpret_cast<uintptr_t>(fiber.stack), at = reinterpret_cast<uintptr_t>(address);
    return at >= base && at < base + GUARD_BYTES;
}

}  // namespace emulator
