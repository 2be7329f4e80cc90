#include "failures.h"

#include <cstdlib>

namespace emulator {

bool launch_fails() {
    static unsigned long long launches;
    launches++;
    const char* text = getenv("EMULATOR_FAIL_LAUNCH");
    return text != nullptr && strtoull(text, nullptr, 10) == launches;
}

}  // namespace emulator
