// Captures, and the graphs that come of them.
#include <algorithm>

#include "context.h"
#include "stream.h"

using namespace emulator;

namespace {

// What a handle points to, kept so that handles that are none are told from those that are.
template <class T>
struct Handles {
    std::vector<std::unique_ptr<T>> all;

    template <class Handle>
    Handle add(std::unique_ptr<T> item) {
        all.push_back(std::move(item));
        return reinterpret_cast<Handle>(all.back().get());
    }
    template <class Handle>
    T* find(Handle handle) {
        for (auto& item : all) {
            if (reinterpret_cast<Handle>(item.get()) == handle) return item.get();
        }
        return nullptr;
    }
    template <class Handle>
    CUresult destroy(Handle handle) {
        T* found = find(handle);
        if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
        all.erase(std::find_if(all.begin(), all.end(), [&](auto& item) { return item.get() == found; }));
        return CUDA_SUCCESS;
    }
};

Handles<Graph> graphs;
struct Executable {
    Graph graph;
};
Handles<Executable> executables;

CUresult end_capture(Stream& stream, CUgraph* graph) {
    *graph = nullptr;
    if (stream.capture == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    bool other_thread = stream.capture->thread != std::this_thread::get_id();
    if (other_thread && stream.capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    std::unique_ptr<Capture> capture = std::move(stream.capture);
    if (!capture->valid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *graph = graphs.add<CUgraph>(std::make_unique<Graph>(std::move(capture->graph)));
    return CUDA_SUCCESS;
}

}  // namespace

API cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
    return context_call([&] {
        Stream* stream = find_stream(handle);
        if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        // The legacy default stream cannot be captured.
        if (stream == find_stream(nullptr)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        if (stream->capture != nullptr) return CUDA_ERROR_INVALID_VALUE;
        stream->capture = std::make_unique<Capture>();
        stream->capture->mode = mode;
        stream->capture->thread = std::this_thread::get_id();
        return CUDA_SUCCESS;
    });
}

API cuStreamEndCapture(CUstream handle, CUgraph* graph) {
    return context_call([&] {
        Stream* stream = find_stream(handle);
        if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
        if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
        return end_capture(*stream, graph);
    });
}

API cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph handle, unsigned long long) {
    return context_call([&] {
        Graph* graph = graphs.find(handle);
        if (graph == nullptr || executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *executable = executables.add<CUgraphExec>(std::make_unique<Executable>(Executable{*graph}));
        return CUDA_SUCCESS;
    });
}

API cuGraphLaunch(CUgraphExec handle, CUstream stream) {
    return context_call([&] {
        Executable* executable = executables.find(handle);
        if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
        for (const Work& work : executable->graph.work) {
            CUresult error = ask(stream, work);
            if (error != CUDA_SUCCESS) return error;
        }
        return CUDA_SUCCESS;
    });
}

API cuGraphDestroy(CUgraph handle) {
    return context_call([&] { return graphs.destroy(handle); });
}
API cuGraphExecDestroy(CUgraphExec handle) {
    return context_call([&] { return executables.destroy(handle); });
}
