#include "kernel_files.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace emulator {

void load_kernel_files() {
    Dl_info self;
    if (dladdr(reinterpret_cast<void*>(load_kernel_files), &self) == 0) return;
    std::filesystem::path folder = std::filesystem::path(self.dli_fname).parent_path() / "kernels";
    std::error_code missing;
    for (auto& file : std::filesystem::directory_iterator(folder, missing)) {
        if (file.path().extension() != ".so") continue;
        if (dlopen(file.path().c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
            fprintf(stderr, "emulator: %s\n", dlerror());
            abort();
        }
    }
}

}  // namespace emulator
