// For a program that tries one kernel by itself, without the driver: arrays between guard pages, and launches.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <tuple>
#include <type_traits>
#include <vector>

#include "allocations.h"
#include "emulator.h"
#include "grid.h"

namespace test {

// Device memory for `size` elements, NaN unless given values. Converts to the pointer a kernel takes.
template <class T>
class Array {
public:
    explicit Array(size_t size) : count(size), start(static_cast<T*>(emulator::allocate(size * sizeof(T)))) {
        if (start == nullptr) fprintf(stderr, "out of the emulator's memory: raise EMULATOR_MEMORY\n"), abort();
    }
    explicit Array(const std::vector<T>& values) : Array(values.size()) {
        memcpy(static_cast<void*>(start), values.data(), count * sizeof(T));
    }
    Array(const Array&) = delete;
    ~Array() { emulator::release(start); }

    size_t size() const { return count; }
    T* data() const { return start; }
    T& operator[](size_t i) const { return start[i]; }
    std::vector<T> values() const { return std::vector<T>(start, start + count); }

private:
    size_t count;
    T* start;
};

template <class T>
T* argument(const Array<T>& array) { return array.data(); }
inline void* argument(std::nullptr_t) { return nullptr; }
template <class T>
std::enable_if_t<std::is_pointer_v<T> || std::is_arithmetic_v<T>, T> argument(T value) { return value; }

// Runs a kernel to its end. Numbers must have the kernel's sizes: `int`, `unsigned`, `float`; arrays become pointers.
template <class... Arguments>
void launch(const char* name, dim3 grid, dim3 block, size_t shared_bytes, const Arguments&... arguments) {
    const emulator::Kernel* kernel = emulator::find_kernel(name);
    if (kernel == nullptr) fprintf(stderr, "no kernel %s\n", name), abort();
    auto values = std::make_tuple(argument(arguments)...);
    std::vector<void*> pointers;
    std::vector<size_t> sizes;
    auto add = [&](auto& value) { pointers.push_back(&value), sizes.push_back(sizeof value); };
    std::apply([&](auto&... value) { (add(value), ...); }, values);
    if (sizes != kernel->argument_sizes) {
        fprintf(stderr, "%s takes %zu arguments, of other sizes than the %zu given\n", name,
                kernel->argument_sizes.size(), sizes.size());
        abort();
    }
    emulator::run_grid(*kernel, grid, block, shared_bytes, pointers.data());
}

}  // namespace test
