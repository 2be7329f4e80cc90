#include "shared_memory.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "emulator.h"

extern "C" void* __tls_get_addr(unsigned long* module_and_offset);

namespace emulator {
namespace {

struct Range {
    char* start = nullptr;
    size_t size = 0;
    bool holds(const void* address, size_t bytes) const {
        const char* at = static_cast<const char*>(address);
        return at >= start && at + bytes <= start + size;
    }
};
Range dynamic_part, static_part;

// The thread-local segment of a loaded file: its number among the loaded files' and its size.
struct Segment {
    uintptr_t code;
    unsigned long module = 0;
    size_t size = 0;
};

int find_segment(dl_phdr_info* file, size_t, void* data) {
    Segment& segment = *static_cast<Segment*>(data);
    bool holds_code = false;
    size_t size = 0;
    for (int i = 0; i < file->dlpi_phnum; i++) {
        const ElfW(Phdr)& part = file->dlpi_phdr[i];
        uintptr_t start = file->dlpi_addr + part.p_vaddr;
        if (part.p_type == PT_LOAD) holds_code |= segment.code >= start && segment.code < start + part.p_memsz;
        if (part.p_type == PT_TLS) size = part.p_memsz;
    }
    if (!holds_code) return 0;
    segment.module = file->dlpi_tls_modid;
    segment.size = size;
    return 1;
}

Range static_range(const Kernel& kernel) {
    static std::map<const Kernel*, Segment> known;
    auto [entry, is_new] = known.try_emplace(&kernel);
    Segment& segment = entry->second;
    if (is_new) {
        segment.code = reinterpret_cast<uintptr_t>(kernel.function);
        dl_iterate_phdr(find_segment, &segment);
    }
    if (segment.size == 0) return {};
    unsigned long start[2] = {segment.module, 0};
    return {static_cast<char*>(__tls_get_addr(start)), segment.size};
}

// Ends at a page that nobody may touch; kernels expect it aligned to 128.
char* dynamic_end() {
    static char* end = [] {
        size_t page = 4096, size = (MAX_SHARED_BYTES + page - 1) / page * page;
        void* start = mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED || mprotect(static_cast<char*>(start) + size, page, PROT_NONE) != 0) {
            perror("emulator: no memory for shared memory");
            abort();
        }
        return static_cast<char*>(start) + size;
    }();
    return end;
}

}  // namespace

void choose_shared_memory(const Kernel& kernel, size_t dynamic_bytes) {
    size_t rounded = (dynamic_bytes + 127) / 128 * 128;
    dynamic_part = {dynamic_end() - rounded, dynamic_bytes};
    static_part = static_range(kernel);
}

void spoil_shared_memory() {
    if (dynamic_part.size > 0) memset(dynamic_part.start, 0xff, dynamic_part.size);
    if (static_part.size > 0) memset(static_part.start, 0xff, static_part.size);
}

void* dynamic_shared() { return dynamic_part.start; }

bool in_shared_memory(const void* address, size_t bytes) {
    return dynamic_part.holds(address, bytes) || static_part.holds(address, bytes);
}

}  // namespace emulator
