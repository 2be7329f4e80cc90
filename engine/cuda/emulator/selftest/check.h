// What the parts of the emulator's own test share.
#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the test where a condition does not hold.
#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);  \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

// Checks that `action` ends the process (it is run in a copy) with a message that contains `message`.
void check_ends(void (*action)(), const char* message);

void check_collectives();
void check_memory();
void check_driver();
void check_capture();
void check_failures();
void check_products();
