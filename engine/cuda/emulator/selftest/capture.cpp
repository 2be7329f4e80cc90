// Capture of a stream's work, its replay, what spoils it; and the failure of a kernel.
#include <cstdlib>

#include "driver_calls.h"

static CUgraphExec record_two_additions(const Setting& gpu, CUdeviceptr numbers) {
    CUgraph graph;
    CUgraphExec executable;
    DONE(cuStreamBeginCapture_v2(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    DONE(gpu.add(numbers, 1, 4));
    DONE(gpu.add(numbers, 10, 4));
    DONE(cuStreamEndCapture(gpu.stream, &graph));
    DONE(cuGraphInstantiateWithFlags(&executable, graph, 0));
    DONE(cuGraphDestroy(graph));
    return executable;
}

static void check_replay() {
    Setting gpu;
    CUdeviceptr numbers = gpu.memory(16);
    int found[4];
    DONE(cuMemsetD8Async(numbers, 0, 16, gpu.stream));
    CUgraphExec executable = record_two_additions(gpu, numbers);
    DONE(cuStreamSynchronize(gpu.stream));
    DONE(cuMemcpyDtoH_v2(found, numbers, 16));
    CHECK(found[3] == 0);
    for (int i = 0; i < 3; i++) DONE(cuGraphLaunch(executable, gpu.stream));
    DONE(cuGraphExecDestroy(executable));
    DONE(cuStreamSynchronize(gpu.stream));
    DONE(cuMemcpyDtoH_v2(found, numbers, 16));
    CHECK(found[0] == 33 && found[3] == 33);
    CHECK(cuGraphLaunch(executable, gpu.stream) == CUDA_ERROR_INVALID_VALUE);
}

// A capture during which `spoil` is called gives no graph, and leaves the stream as it was.
template <class Spoil>
static void check_spoilt(const Setting& gpu, CUresult expected, Spoil spoil) {
    CUgraph graph;
    DONE(cuStreamBeginCapture_v2(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK(spoil() == expected);
    CHECK(cuStreamEndCapture(gpu.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && graph == nullptr);
    DONE(cuStreamSynchronize(gpu.stream));
}

static void check_spoiling() {
    Setting gpu;
    CUdeviceptr numbers = gpu.memory(16), more;
    int pageable[4];
    CUgraph graph;
    CUevent event;
    DONE(cuEventCreate(&event, 0));
    constexpr CUresult UNSUPPORTED = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    check_spoilt(gpu, UNSUPPORTED, [&] { return cuStreamSynchronize(gpu.stream); });
    check_spoilt(gpu, UNSUPPORTED, [&] { return cuCtxSynchronize(); });
    check_spoilt(gpu, UNSUPPORTED, [&] { return cuMemAlloc_v2(&more, 16); });
    check_spoilt(gpu, UNSUPPORTED, [&] { return cuMemcpyDtoH_v2(pageable, numbers, 16); });
    check_spoilt(gpu, UNSUPPORTED, [&] { return cuMemcpyHtoDAsync_v2(numbers, pageable, 16, gpu.stream); });
    check_spoilt(gpu, CUDA_ERROR_CAPTURED_EVENT, [&] {
        DONE(cuEventRecord(event, gpu.stream));
        return cuEventSynchronize(event);
    });
    CHECK(cuStreamEndCapture(gpu.stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
}

void check_capture() {
    check_replay();
    check_spoiling();
}

void check_failures() {
    {
        Setting gpu;
        CUdeviceptr numbers = gpu.memory(16);
        // The launches of this process that came before are counted too: fewer than these.
        setenv("EMULATOR_FAIL_LAUNCH", "1000", 1);
        CUresult error = CUDA_SUCCESS;
        for (int i = 0; i < 1000 && error == CUDA_SUCCESS; i++) {
            DONE(gpu.add(numbers, 1, 4));
            error = cuStreamSynchronize(gpu.stream);
        }
        unsetenv("EMULATOR_FAIL_LAUNCH");
        CHECK(error == CUDA_ERROR_ILLEGAL_ADDRESS);
        CUdeviceptr more;
        CHECK(cuMemAlloc_v2(&more, 16) == CUDA_ERROR_ILLEGAL_ADDRESS);
        CHECK(gpu.add(numbers, 1, 4) == CUDA_ERROR_ILLEGAL_ADDRESS);
        CHECK(cuStreamSynchronize(gpu.stream) == CUDA_ERROR_ILLEGAL_ADDRESS);
        CHECK(cuCtxSetCurrent(gpu.context) == CUDA_SUCCESS);
    }
    // A new context is whole.
    Setting gpu;
    CUdeviceptr numbers = gpu.memory(16);
    DONE(gpu.add(numbers, 1, 4));
    DONE(cuStreamSynchronize(gpu.stream));
}
