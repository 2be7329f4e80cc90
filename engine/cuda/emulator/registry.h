// The kernels by name, and how one is called with CUDA's array of pointers to its arguments.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace emulator {

struct Kernel {
    const char* name;
    void (*function)();
    // Calls `function` with the arguments that the pointers point to.
    void (*call)(void (*function)(), void* const* arguments);
    std::vector<size_t> argument_sizes;
};

// Called before `main` (or while the library loads) for each REGISTER; a name that is taken ends the program.
void add_kernel(Kernel kernel);
// The kernel of this name, or null.
const Kernel* find_kernel(const char* name);

template <class... Arguments, size_t... Index>
void call_kernel(void (*function)(), void* const* arguments, std::index_sequence<Index...>) {
    reinterpret_cast<void (*)(Arguments...)>(function)(*static_cast<Arguments*>(arguments[Index])...);
}

struct Registration {
    template <class... Arguments>
    Registration(const char* name, void (*function)(Arguments...)) {
        static_assert(((sizeof(Arguments) == 4 || sizeof(Arguments) == 8) && ...), "arguments are numbers or pointers");
        auto call = [](void (*erased)(), void* const* arguments) {
            call_kernel<Arguments...>(erased, arguments, std::index_sequence_for<Arguments...>());
        };
        add_kernel({name, reinterpret_cast<void (*)()>(function), call, {sizeof(Arguments)...}});
    }
};

}  // namespace emulator
