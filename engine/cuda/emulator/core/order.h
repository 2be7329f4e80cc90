// The order in which what is concurrent on the GPU runs here. A kernel that is right is right in every order.
#pragma once

#include <cstdint>
#include <vector>

namespace emulator {

// EMULATOR_ORDER: `forward` (default), `reverse`, `shuffled` or `shuffled:SEED`; anything else ends the program.
class Order {
public:
    Order();
    // The numbers below `count` in the next order.
    void arrange(std::vector<uint32_t>& numbers, uint32_t count);

private:
    enum { FORWARD, REVERSE, SHUFFLED } kind;
    uint64_t random;
};

// Read anew at the start of each launch.
extern Order order;

}  // namespace emulator
