// Failures on demand, for tests of what the host does then.
#pragma once

namespace emulator {

// To be asked once as each kernel or product is carried out: whether it fails. EMULATOR_FAIL_LAUNCH=N lets the Nth of
// the process fail, counted from 1.
bool launch_fails();

}  // namespace emulator
