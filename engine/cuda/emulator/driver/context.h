// The one device's one context: the lock that every call takes, and the error that ends all work.
#pragma once

#include <mutex>

#include "cuda_api.h"

namespace emulator {

extern std::recursive_mutex lock;

// A kernel failed: this and every later call that needs the context gives `error`. What was queued is dropped.
void break_context(CUresult error);
CUresult context_error();

// What a call must find before it may do anything: an initialised driver.
CUresult driver_error();
// ... and a context that is current in this thread and whole.
CUresult current_error();

// Runs the body of a call that needs the driver only.
template <class Body>
CUresult driver_call(Body body) {
    std::lock_guard guard(lock);
    CUresult error = driver_error();
    return error != CUDA_SUCCESS ? error : body();
}
// Runs the body of a call that needs the context.
template <class Body>
CUresult context_call(Body body) {
    std::lock_guard guard(lock);
    CUresult error = current_error();
    return error != CUDA_SUCCESS ? error : body();
}

}  // namespace emulator
