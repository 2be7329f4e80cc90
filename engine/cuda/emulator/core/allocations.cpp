#include "allocations.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

namespace emulator {
namespace {

constexpr size_t PAGE = 4096;

struct Allocation {
    size_t bytes, rounded;
    void* mapping;
    size_t mapping_bytes;
};
// By their start.
std::map<uintptr_t, Allocation>& allocations() {
    static std::map<uintptr_t, Allocation> all;
    return all;
}
size_t used_bytes;

}  // namespace

size_t total_bytes() {
    const char* text = getenv("EMULATOR_MEMORY");
    return text == nullptr ? size_t(2) << 30 : strtoull(text, nullptr, 10);
}
size_t free_bytes() { return total_bytes() > used_bytes ? total_bytes() - used_bytes : 0; }

void* allocate(size_t bytes) {
    if (bytes > free_bytes()) return nullptr;
    size_t rounded = (bytes + 15) / 16 * 16, pages = (rounded + PAGE - 1) / PAGE * PAGE;
    size_t mapping_bytes = pages + 2 * PAGE;
    char* mapping = static_cast<char*>(mmap(nullptr, mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (mapping == MAP_FAILED) return nullptr;
    if (mprotect(mapping + PAGE, pages, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapping, mapping_bytes);
        return nullptr;
    }
    char* start = mapping + PAGE + pages - rounded;
    memset(start, 0xff, rounded);
    allocations()[reinterpret_cast<uintptr_t>(start)] = {bytes, rounded, mapping, mapping_bytes};
    used_bytes += bytes;
    return start;
}

bool release(void* start) {
    auto found = allocations().find(reinterpret_cast<uintptr_t>(start));
    if (found == allocations().end()) return false;
    used_bytes -= found->second.bytes;
    munmap(found->second.mapping, found->second.mapping_bytes);
    allocations().erase(found);
    return true;
}

void release_all() {
    while (!allocations().empty()) release(reinterpret_cast<void*>(allocations().begin()->first));
}

bool is_allocated(const void* start, size_t bytes) {
    uintptr_t first = reinterpret_cast<uintptr_t>(start);
    auto next = allocations().upper_bound(first);
    if (next == allocations().begin()) return false;
    auto& [found, allocation] = *std::prev(next);
    return first + bytes <= found + allocation.bytes;
}

size_t overwritten_allocation() {
    for (auto& [start, allocation] : allocations()) {
        const unsigned char* bytes = reinterpret_cast<const unsigned char*>(start);
        for (size_t i = allocation.bytes; i < allocation.rounded; i++) {
            if (bytes[i] != 0xff) return allocation.bytes;
        }
    }
    return 0;
}

std::string describe_address(const void* address) {
    uintptr_t at = reinterpret_cast<uintptr_t>(address);
    for (auto& [start, allocation] : allocations()) {
        std::string of = " an allocation of " + std::to_string(allocation.bytes) + " bytes";
        if (at < start && start - at <= 2 * PAGE) return std::to_string(start - at) + " bytes before" + of;
        uintptr_t end = start + allocation.bytes;
        if (at >= end && at - end < PAGE) return std::to_string(at - end) + " bytes behind the end of" + of;
    }
    return "no allocation is near";
}

}  // namespace emulator
