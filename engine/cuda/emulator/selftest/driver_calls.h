// A context, a stream and a kernel, as the parts of the driver's test need them.
#pragma once

#include "check.h"
#include "cuda_api.h"

extern "C" {
CUresult cuInit(unsigned);
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuCtxSynchronize();
CUresult cuMemAlloc_v2(CUdeviceptr*, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuMemGetInfo_v2(size_t*, size_t*);
CUresult cuMemHostAlloc(void**, size_t, unsigned);
CUresult cuMemFreeHost(void*);
CUresult cuMemcpyHtoD_v2(CUdeviceptr, const void*, size_t);
CUresult cuMemcpyDtoH_v2(void*, CUdeviceptr, size_t);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr, const void*, size_t, CUstream);
CUresult cuMemcpyDtoHAsync_v2(void*, CUdeviceptr, size_t, CUstream);
CUresult cuMemsetD8Async(CUdeviceptr, unsigned char, size_t, CUstream);
CUresult cuStreamCreate(CUstream*, unsigned);
CUresult cuStreamDestroy_v2(CUstream);
CUresult cuStreamSynchronize(CUstream);
CUresult cuStreamQuery(CUstream);
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned);
CUresult cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode);
CUresult cuStreamEndCapture(CUstream, CUgraph*);
CUresult cuGraphInstantiateWithFlags(CUgraphExec*, CUgraph, unsigned long long);
CUresult cuGraphLaunch(CUgraphExec, CUstream);
CUresult cuGraphExecDestroy(CUgraphExec);
CUresult cuGraphDestroy(CUgraph);
CUresult cuEventCreate(CUevent*, unsigned);
CUresult cuEventRecord(CUevent, CUstream);
CUresult cuEventQuery(CUevent);
CUresult cuEventSynchronize(CUevent);
CUresult cuEventElapsedTime_v2(float*, CUevent, CUevent);
CUresult cuEventDestroy_v2(CUevent);
CUresult cuModuleLoadData(CUmodule*, const void*);
CUresult cuModuleGetFunction(CUfunction*, CUmodule, const char*);
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                        void**, void**);
CUresult cuGetErrorName(CUresult, const char**);
}

#define DONE(call) CHECK((call) == CUDA_SUCCESS)

struct Setting {
    CUcontext context;
    CUstream stream;
    CUmodule module;
    CUfunction adder;

    Setting() {
        DONE(cuInit(0));
        DONE(cuDevicePrimaryCtxRetain(&context, 0));
        DONE(cuCtxSetCurrent(context));
        DONE(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
        DONE(cuModuleLoadData(&module, "image"));
        adder = function("add_to_all");
    }
    ~Setting() {
        cuStreamDestroy_v2(stream);
        cuDevicePrimaryCtxRelease_v2(0);
    }

    CUfunction function(const char* name) const {
        CUfunction out;
        DONE(cuModuleGetFunction(&out, module, name));
        return out;
    }
    CUdeviceptr memory(size_t bytes) const {
        CUdeviceptr out;
        DONE(cuMemAlloc_v2(&out, bytes));
        return out;
    }
    int* pinned(size_t count) const {
        void* out;
        DONE(cuMemHostAlloc(&out, count * sizeof(int), 0));
        return static_cast<int*>(out);
    }
    // out[i] += by, for `count` numbers.
    CUresult add(CUdeviceptr out, int by, int count, unsigned shared_bytes = 0) const {
        void* arguments[] = {&out, &by, &count};
        return cuLaunchKernel(adder, (count + 63) / 64, 1, 1, 64, 1, 1, shared_bytes, stream, arguments,
                              nullptr);
    }
};
