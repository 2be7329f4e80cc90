#include "collectives.h"

#include "block.h"
#include "shared_memory.h"

namespace emulator {
namespace {

// The meeting with this mask that is under way, or a free one.
Meeting& find_meeting(Warp& warp, unsigned mask) {
    if (warp.open == 0) return warp.meetings[0];
    Meeting* free = nullptr;
    for (Meeting& meeting : warp.meetings) {
        if (meeting.arrived == 0) {
            if (free == nullptr) free = &meeting;
        } else if (meeting.mask == mask) {
            return meeting;
        }
    }
    if (free == nullptr) fail("more than 32 masks are waited for in one warp");
    return *free;
}

struct VotePart {
    bool predicate;
    unsigned result;
};
void count_votes(void* const* parts, unsigned mask) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1 && static_cast<VotePart*>(parts[lane])->predicate) votes |= 1u << lane;
    }
    for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) static_cast<VotePart*>(parts[lane])->result = votes;
    }
}

struct MmaPart {
    float* d;
    const uint32_t *a, *b;
};
// Fragments as in PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": lane = 4 * group + within.
template <float (*Convert)(uint16_t)>
void multiply(void* const* parts, unsigned) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const MmaPart& part = *static_cast<const MmaPart*>(parts[lane]);
        int group = lane / 4, within = lane % 4;
        for (int i = 0; i < 8; i++) {
            int row = group + (i / 2 % 2) * 8, column = within * 2 + i % 2 + i / 4 * 8;
            a[row][column] = Convert(uint16_t(part.a[i / 2] >> i % 2 * 16));
        }
        for (int i = 0; i < 4; i++) {
            b[within * 2 + i % 2 + i / 2 * 8][group] = Convert(uint16_t(part.b[i / 2] >> i % 2 * 16));
            d[group + i / 2 * 8][within * 2 + i % 2] = part.d[i];
        }
    }
    // Each number is summed over k in order.
    for (int row = 0; row < 16; row++) {
        float sums[8];
        for (int column = 0; column < 8; column++) sums[column] = d[row][column];
        for (int k = 0; k < 16; k++) {
            for (int column = 0; column < 8; column++) sums[column] += a[row][k] * b[k][column];
        }
        for (int column = 0; column < 8; column++) d[row][column] = sums[column];
    }
    for (int lane = 0; lane < 32; lane++) {
        float* out = static_cast<const MmaPart*>(parts[lane])->d;
        int group = lane / 4, within = lane % 4;
        for (int i = 0; i < 4; i++) out[i] = d[group + i / 2 * 8][within * 2 + i % 2];
    }
}

struct MatrixPart {
    const uint16_t* row;
    uint32_t* out;
};
template <bool Transposed>
void spread_matrices(void* const* parts, unsigned) {
    for (int lane = 0; lane < 32; lane++) {
        int group = lane / 4, within = lane % 4 * 2;
        for (int matrix = 0; matrix < 4; matrix++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                int row = Transposed ? within + i : group, column = Transposed ? group : within + i;
                memcpy(&pair[i], static_cast<MatrixPart*>(parts[matrix * 8 + row])->row + column, 2);
            }
            memcpy(&static_cast<MatrixPart*>(parts[lane])->out[matrix], pair, 4);
        }
    }
}

}  // namespace

int lane() { return block.lane; }

void meet(const char* name, Operation operation, unsigned mask, int line, void* part) {
    Thread& thread = *block.current;
    int lane = block.lane;
    if (!(mask >> lane & 1)) fail("%s, line %d: the mask %08x lacks the calling lane %d", name, line, mask, lane);
    Warp& warp = *block.warp;
    Meeting& meeting = find_meeting(warp, mask);
    if (meeting.arrived == 0) {
        meeting.name = name;
        meeting.operation = operation;
        meeting.line = line;
        meeting.mask = mask;
        warp.open++;
    } else if (meeting.name != name || meeting.operation != operation || meeting.line != line) {
        fail("%s, line %d: other lanes of the mask %08x are at %s, line %d", name, line, mask, meeting.name,
             meeting.line);
    }
    meeting.parts[lane] = part;
    meeting.arrived |= 1u << lane;
    if (meeting.arrived != mask) {
        thread.state = State::AT_MEETING;
        thread.meeting = &meeting;
        thread.line = line;
        suspend(thread.fiber);
        return;
    }
    operation(meeting.parts, mask);
    meeting.arrived = 0;
    warp.open--;
    for (int other = 0; other < warp.size; other++) {
        if (mask >> other & 1) warp.lanes[other]->state = State::READY;
    }
}

void nothing(void* const*, unsigned) {}

void shuffle(void* const* parts, unsigned mask) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        ShufflePart& part = *static_cast<ShufflePart*>(parts[lane]);
        if (!(mask >> part.source & 1)) fail("a shuffle: lane %d reads lane %d, not in %08x", lane, part.source, mask);
        part.result = static_cast<ShufflePart*>(parts[part.source])->value;
    }
}

unsigned vote(const char* name, unsigned mask, bool predicate, int line) {
    VotePart part = {predicate, 0};
    meet(name, count_votes, mask, line, &part);
    return part.result;
}

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
    MmaPart part = {d, a, b};
    meet("mma_m16n8k16<f16>", multiply<f16_to_float>, 0xffffffffu, 0, &part);
}
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
    MmaPart part = {d, a, b};
    meet("mma_m16n8k16<bf16>", multiply<bf16_to_float>, 0xffffffffu, 0, &part);
}

void load_matrices(uint32_t (&out)[4], const void* row, bool transposed) {
    const char* name = transposed ? "load_matrix_x4_transposed" : "load_matrix_x4";
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("%s: the address %p is not aligned to 16", name, row);
    if (!in_shared_memory(row, 16)) fail("%s: %p is not in shared memory", name, row);
    MatrixPart part = {static_cast<const uint16_t*>(row), out};
    meet(name, transposed ? spread_matrices<true> : spread_matrices<false>, 0xffffffffu, 0, &part);
}

}  // namespace emulator
