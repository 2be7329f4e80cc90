// What the threads of a warp or a block do together: barriers, shuffles, votes, matrix instructions.
//
// A lane hands in its part and waits; the last lane of the mask to come carries the operation out for all. A call
// whose lanes never all come, or differ, ends the program with a message.
#pragma once

#include <cstdint>
#include <cstring>

#include "halves.h"

namespace emulator {

// A collective operation over lanes' parts, carried out once by the last lane; `parts[lane]` is set for the mask's.
using Operation = void (*)(void* const* parts, unsigned mask);
// Waits until every lane of `mask` has called this with the same operation from the same line; `part` is this lane's.
void meet(const char* name, Operation operation, unsigned mask, int line, void* part);
// This thread's lane.
int lane();
// Waits for all threads of the block that have not ended.
void block_barrier(int line);

struct ShufflePart {
    uint64_t value, result;
    int source;
};
void shuffle(void* const* parts, unsigned mask);
void nothing(void* const* parts, unsigned mask);

template <class T>
T shuffle_from(const char* name, unsigned mask, T value, int source, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    ShufflePart part = {0, 0, source};
    memcpy(&part.value, &value, sizeof(T));
    meet(name, shuffle, mask, line, &part);
    memcpy(&value, &part.result, sizeof(T));
    return value;
}
inline int last_lane(int width) { return (lane() & ~(width - 1)) + width - 1; }

// The mask's lanes whose predicate holds.
unsigned vote(const char* name, unsigned mask, bool predicate, int line);

// The last argument only says what `a` and `b` hold.
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16);
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16);
void load_matrices(uint32_t (&out)[4], const void* row, bool transposed);

}  // namespace emulator

inline void __syncthreads(int line = __builtin_LINE()) { emulator::block_barrier(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulator::meet("__syncwarp", emulator::nothing, mask, line, nullptr);
}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    int first = emulator::lane() & ~(width - 1);
    return emulator::shuffle_from("__shfl_sync", mask, value, first | (source & (width - 1)), line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
    int source = emulator::lane() ^ bits;
    if (source > emulator::last_lane(width)) source = emulator::lane();
    return emulator::shuffle_from("__shfl_xor_sync", mask, value, source, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    int source = emulator::lane() + int(by);
    if (source > emulator::last_lane(width)) source = emulator::lane();
    return emulator::shuffle_from("__shfl_down_sync", mask, value, source, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    int source = emulator::lane() - int(by);
    if (source < (emulator::lane() & ~(width - 1))) source = emulator::lane();
    return emulator::shuffle_from("__shfl_up_sync", mask, value, source, line);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
    return emulator::vote("__ballot_sync", mask, predicate, line);
}
inline int __any_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
    return emulator::vote("__any_sync", mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, bool predicate, int line = __builtin_LINE()) {
    return emulator::vote("__all_sync", mask, predicate, line) == mask;
}

template <class T>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulator::mma(d, a, b, T());
}
inline void load_matrix_x4(uint32_t (&out)[4], const void* row) { emulator::load_matrices(out, row, false); }
inline void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) { emulator::load_matrices(out, row, true); }
