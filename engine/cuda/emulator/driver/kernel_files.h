// The compiled kernels: one shared library per `.cu`, in the folder `kernels` beside the driver's library.
#pragma once

namespace emulator {

// Loads them all; their kernels then are in the registry. A file that does not load ends the program.
void load_kernel_files();

}  // namespace emulator
