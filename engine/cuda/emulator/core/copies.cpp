#include "copies.h"

#include "block.h"
#include "shared_memory.h"

namespace emulator {

void copy_async(void* shared, const void* global, bool valid) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) {
        fail("copy_async_16: the target %p is not aligned to 16", shared);
    }
    if (!in_shared_memory(shared, 16)) fail("copy_async_16: the target %p is not in shared memory", shared);
    if (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        fail("copy_async_16: the source %p is not aligned to 16", global);
    }
    Thread& thread = *block.current;
    memset(shared, 0xff, 16);
    thread.copies.push_back({shared, global, thread.group, valid});
}

void commit_copies() { block.current->group++; }

void wait_for_copies(int pending) {
    Thread& thread = *block.current;
    size_t done = 0;
    while (done < thread.copies.size() && thread.copies[done].group < thread.group - pending) {
        const Copy& copy = thread.copies[done++];
        if (copy.valid) {
            memcpy(copy.shared, copy.global, 16);
        } else {
            memset(copy.shared, 0, 16);
        }
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + done);
}

}  // namespace emulator
