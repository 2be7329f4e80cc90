#include "order.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

namespace emulator {

Order order;

Order::Order() : kind(FORWARD), random(0x9e3779b97f4a7c15) {
    const char* text = getenv("EMULATOR_ORDER");
    std::string name = text == nullptr ? "forward" : text;
    if (name.rfind("shuffled", 0) == 0) {
        kind = SHUFFLED;
        if (name.size() > 9) random ^= strtoull(name.c_str() + 9, nullptr, 10) * 0xbf58476d1ce4e5b9;
    } else if (name == "reverse") {
        kind = REVERSE;
    } else if (name != "forward") {
        fprintf(stderr, "emulator: EMULATOR_ORDER=%s is none of forward, reverse, shuffled[:seed]\n", text);
        abort();
    }
}

void Order::arrange(std::vector<uint32_t>& numbers, uint32_t count) {
    numbers.resize(count);
    for (uint32_t i = 0; i < count; i++) numbers[i] = kind == REVERSE ? count - 1 - i : i;
    if (kind != SHUFFLED) return;
    for (uint32_t i = count; i > 1; i--) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::swap(numbers[i - 1], numbers[random % i]);
    }
}

}  // namespace emulator
