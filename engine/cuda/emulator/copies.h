// Asynchronous copies to shared memory. A copy's target is spoilt when it is asked for and filled only when its group
// is waited for: a kernel that reads too early, or asks while others still read, computes nonsense in every run.
#pragma once

namespace emulator {

void copy_async(void* shared, const void* global, bool valid);
void commit_copies();
void wait_for_copies(int pending);

}  // namespace emulator

inline void copy_async_16(void* shared, const void* global, bool valid) { emulator::copy_async(shared, global, valid); }
inline void copy_async_commit() { emulator::commit_copies(); }
template <int Pending>
inline void copy_async_wait() { emulator::wait_for_copies(Pending); }
