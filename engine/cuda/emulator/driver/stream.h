// Streams: work that was asked for and is carried out as late as may be, when somebody waits for it. A host that
// reads a result or reuses a buffer too early thereby does so in every run.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "cuda_api.h"

namespace emulator {

using Work = std::function<void()>;

struct Graph {
    std::vector<Work> work;
};

struct Capture {
    CUstreamCaptureMode mode;
    std::thread::id thread;
    bool valid = true;
    Graph graph;
};

// Work is numbered in the order it was asked for, from 1.
struct Stream {
    bool blocking;
    std::deque<Work> queue;
    uint64_t asked = 0, done = 0;
    int polls = 0;
    std::unique_ptr<Capture> capture;
};

// The stream of a handle, null for one that is none. Null handles mean the legacy default stream.
Stream* find_stream(CUstream handle);

// Queues work, or records it where the stream captures.
CUresult ask(CUstream handle, Work work);
// Carries out the stream's work up to number `last`; gives the context's error.
CUresult run_until(Stream& stream, uint64_t last);
// Carries out everything that is queued anywhere.
CUresult run_all();
// Carries out everything that work on the legacy default stream waits for, and that stream's own.
CUresult run_default();
void drop_all_work();

// Whether the work numbered `last` is done; pretends not to be for a few calls, then carries it out.
bool poll(Stream& stream, uint64_t last);

// Whether any stream captures. What waits for the device then fails, and spoils the captures.
bool any_capture();
CUresult invalidate_captures();
// The error of a call that is not allowed beside a capture (memory is allocated or freed), by the captures' modes.
CUresult unsafe_call_error();

}  // namespace emulator
