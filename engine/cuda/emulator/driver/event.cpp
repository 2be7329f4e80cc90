// Events: places in a stream's work, and the time at which they were passed.
#include <algorithm>
#include <chrono>

#include "context.h"
#include "stream.h"

using namespace emulator;

namespace {

struct Event {
    bool timing;
    // Where it was last recorded: nowhere, within a capture, or as a numbered work of a stream.
    enum { NOWHERE, CAPTURED, QUEUED } place = NOWHERE;
    CUstream stream = nullptr;
    uint64_t number = 0;
    std::chrono::steady_clock::time_point passed;
};

// Shared with the work that marks it as passed, which may come after the handle is destroyed.
std::vector<std::shared_ptr<Event>> events;

std::shared_ptr<Event> find_event(CUevent handle) {
    for (auto& event : events) {
        if (reinterpret_cast<CUevent>(event.get()) == handle) return event;
    }
    return nullptr;
}

CUresult record(Event& event, std::shared_ptr<Event> shared, CUstream handle) {
    Stream* stream = find_stream(handle);
    CUresult error = ask(handle, [shared] { shared->passed = std::chrono::steady_clock::now(); });
    if (error != CUDA_SUCCESS) return error;
    event.place = stream->capture != nullptr ? Event::CAPTURED : Event::QUEUED;
    event.stream = handle;
    event.number = stream->asked;
    return CUDA_SUCCESS;
}

// The stream whose work the event still waits for, or null: a destroyed stream has done all of its own.
Stream* stream_behind(const Event& event) {
    Stream* stream = event.place == Event::QUEUED ? find_stream(event.stream) : nullptr;
    return stream != nullptr && stream->done < event.number ? stream : nullptr;
}

CUresult elapsed(float* milliseconds, CUevent first_handle, CUevent last_handle) {
    auto first = find_event(first_handle), last = find_event(last_handle);
    if (first == nullptr || last == nullptr || milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (const Event* event : {first.get(), last.get()}) {
        if (!event->timing || event->place == Event::NOWHERE) return CUDA_ERROR_INVALID_HANDLE;
        if (event->place == Event::CAPTURED) return CUDA_ERROR_CAPTURED_EVENT;
        if (stream_behind(*event) != nullptr) return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(last->passed - first->passed).count();
    return CUDA_SUCCESS;
}

}  // namespace

API cuEventCreate(CUevent* handle, unsigned flags) {
    return context_call([&] {
        if (handle == nullptr || flags > 7) return CUDA_ERROR_INVALID_VALUE;
        events.push_back(std::make_shared<Event>());
        events.back()->timing = !(flags & CU_EVENT_DISABLE_TIMING);
        *handle = reinterpret_cast<CUevent>(events.back().get());
        return CUDA_SUCCESS;
    });
}

API cuEventDestroy_v2(CUevent handle) {
    return context_call([&] {
        auto event = find_event(handle);
        if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        events.erase(std::find(events.begin(), events.end(), event));
        return CUDA_SUCCESS;
    });
}

API cuEventRecord(CUevent handle, CUstream stream) {
    return context_call([&] {
        auto event = find_event(handle);
        if (event == nullptr || find_stream(stream) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        return record(*event, event, stream);
    });
}

API cuEventSynchronize(CUevent handle) {
    return context_call([&] {
        auto event = find_event(handle);
        if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        if (event->place == Event::CAPTURED) return invalidate_captures(), CUDA_ERROR_CAPTURED_EVENT;
        Stream* stream = stream_behind(*event);
        return stream == nullptr ? CUDA_SUCCESS : run_until(*stream, event->number);
    });
}

API cuEventQuery(CUevent handle) {
    return context_call([&] {
        auto event = find_event(handle);
        if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        if (event->place == Event::CAPTURED) return invalidate_captures(), CUDA_ERROR_CAPTURED_EVENT;
        Stream* stream = stream_behind(*event);
        if (stream != nullptr && !poll(*stream, event->number)) return CUDA_ERROR_NOT_READY;
        return context_error();
    });
}

#ifndef EMULATOR_WITH_CUDA_H
#endif
API cuEventElapsedTime_v2(float* milliseconds, CUevent first, CUevent last) {
    return context_call([&] { return elapsed(milliseconds, first, last); });
}

API cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
    return context_call([&] {
        Stream* stream = find_stream(handle);
        auto event = find_event(event_handle);
        if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        bool captures = stream->capture != nullptr;
        if (event->place == Event::CAPTURED) {
            // Within one stream's capture order is given; a capture that spreads to a second one is not emulated.
            if (captures && event->stream == handle) return CUDA_SUCCESS;
            return captures ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        }
        if (captures && event->place == Event::QUEUED) return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        Stream* other = stream_behind(*event);
        if (other == nullptr || other == stream) return CUDA_SUCCESS;
        uint64_t number = event->number;
        return ask(handle, [other, number] { run_until(*other, number); });
    });
}
