// The emulator's own test: kernels alone, then through the driver's functions.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "check.h"

void check_ends(void (*action)(), const char* message) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    fflush(nullptr);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        action();
        _exit(0);
    }
    close(ends[1]);
    std::string output;
    char buffer[4096];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) output.append(buffer, n);
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    if (status == 0 || output.find(message) == std::string::npos) {
        fprintf(stderr, "expected to end with \"%s\"; status %d and:\n%s\n", message, status, output.c_str());
        exit(1);
    }
}

int main() {
    check_collectives();
    check_memory();
    check_driver();
    check_capture();
    check_products();
    check_failures();
    const char* order = getenv("EMULATOR_ORDER");
    printf("emulator: all well (order: %s)\n", order == nullptr ? "forward" : order);
}
