#include "stream.h"

#include <algorithm>

#include "context.h"

namespace emulator {
namespace {

constexpr int POLLS_UNTIL_DONE = 3;

Stream& default_stream() {
    static Stream stream = {true, {}, 0, 0, 0, nullptr};
    return stream;
}
std::vector<std::unique_ptr<Stream>>& streams() {
    static std::vector<std::unique_ptr<Stream>> all;
    return all;
}

template <class Action>
void for_each_stream(Action action) {
    action(default_stream());
    for (auto& stream : streams()) action(*stream);
}

void push(Stream& stream, Work work) {
    stream.queue.push_back(std::move(work));
    stream.asked++;
}

void push_wait(Stream& stream, Stream& other) {
    uint64_t last = other.asked;
    if (last > other.done) push(stream, [&other, last] { run_until(other, last); });
}

// The legacy default stream and the blocking ones wait for each other.
void order_with_default(Stream& stream) {
    if (&stream == &default_stream()) {
        for (auto& other : streams()) {
            if (other->blocking) push_wait(stream, *other);
        }
    } else if (stream.blocking) {
        push_wait(stream, default_stream());
    }
}

CUresult invalidate(Stream& stream) {
    stream.capture->valid = false;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult create(CUstream* handle, unsigned flags) {
    if (handle == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    bool blocking = flags != CU_STREAM_NON_BLOCKING;
    streams().push_back(std::unique_ptr<Stream>(new Stream{blocking, {}, 0, 0, 0, nullptr}));
    *handle = reinterpret_cast<CUstream>(streams().back().get());
    return CUDA_SUCCESS;
}

}  // namespace

Stream* find_stream(CUstream handle) {
    // 1 and 2 are CU_STREAM_LEGACY and CU_STREAM_PER_THREAD.
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return &default_stream();
    for (auto& stream : streams()) {
        if (reinterpret_cast<CUstream>(stream.get()) == handle) return stream.get();
    }
    return nullptr;
}

CUresult ask(CUstream handle, Work work) {
    Stream* stream = find_stream(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) {
        if (!stream->capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        stream->capture->graph.work.push_back(std::move(work));
        return CUDA_SUCCESS;
    }
    if (stream == &default_stream()) {
        // The default stream would wait for the captured one, which runs nothing.
        bool waits = false;
        for (auto& other : streams()) waits |= other->blocking && other->capture != nullptr;
        if (waits) return invalidate_captures(), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    order_with_default(*stream);
    push(*stream, std::move(work));
    stream->polls = 0;
    return CUDA_SUCCESS;
}

CUresult run_until(Stream& stream, uint64_t last) {
    while (stream.done < last && !stream.queue.empty() && context_error() == CUDA_SUCCESS) {
        Work work = std::move(stream.queue.front());
        stream.queue.pop_front();
        work();
        // Where it failed, `drop_all_work` has counted.
        if (context_error() == CUDA_SUCCESS) stream.done++;
    }
    return context_error();
}

CUresult run_all() {
    for_each_stream([](Stream& stream) { run_until(stream, stream.asked); });
    return context_error();
}

CUresult run_default() {
    order_with_default(default_stream());
    return run_until(default_stream(), default_stream().asked);
}

void drop_all_work() {
    for_each_stream([](Stream& stream) {
        stream.queue.clear();
        stream.done = stream.asked;
    });
}

bool poll(Stream& stream, uint64_t last) {
    if (stream.done >= last) return true;
    if (++stream.polls < POLLS_UNTIL_DONE) return false;
    stream.polls = 0;
    run_until(stream, last);
    return true;
}

bool any_capture() {
    bool any = false;
    for_each_stream([&](Stream& stream) { any |= stream.capture != nullptr; });
    return any;
}

CUresult invalidate_captures() {
    for_each_stream([](Stream& stream) {
        if (stream.capture != nullptr) invalidate(stream);
    });
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult unsafe_call_error() {
    CUresult error = CUDA_SUCCESS;
    for_each_stream([&](Stream& stream) {
        if (stream.capture == nullptr || stream.capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED) return;
        bool other_thread = stream.capture->thread != std::this_thread::get_id();
        if (stream.capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && other_thread) return;
        error = invalidate(stream);
    });
    return error;
}

}  // namespace emulator

using namespace emulator;

API cuStreamCreate(CUstream* handle, unsigned flags) {
    return context_call([&] { return create(handle, flags); });
}
API cuStreamDestroy_v2(CUstream handle) {
    return context_call([&] {
        Stream* stream = find_stream(handle);
        if (stream == nullptr || stream == &default_stream()) return CUDA_ERROR_INVALID_HANDLE;
        // Others may wait for its work, which goes on without the handle.
        run_all();
        auto is_it = [&](auto& other) { return other.get() == stream; };
        auto found = std::find_if(streams().begin(), streams().end(), is_it);
        // Kept, so that no new stream has its handle: events know their streams by it.
        static std::vector<std::unique_ptr<Stream>> destroyed;
        destroyed.push_back(std::move(*found));
        streams().erase(found);
        return CUDA_SUCCESS;
    });
}

API cuStreamSynchronize(CUstream handle) {
    return context_call([&] {
        Stream* stream = find_stream(handle);
        if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        if (stream->capture != nullptr) return invalidate(*stream);
        if (stream == &default_stream()) return run_default();
        return run_until(*stream, stream->asked);
    });
}

API cuStreamQuery(CUstream handle) {
    return context_call([&] {
        Stream* stream = find_stream(handle);
        if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        if (stream->capture != nullptr) return invalidate(*stream);
        if (!poll(*stream, stream->asked)) return CUDA_ERROR_NOT_READY;
        return context_error();
    });
}
