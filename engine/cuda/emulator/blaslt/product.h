// One product, D = alpha · scales · op(A) · op(B) + beta · C, from plain loops.
#pragma once

#include "descriptions.h"

namespace emulator {

struct Matrix {
    Layout layout;
    const void* start;
};

struct Product {
    Description description;
    Matrix a, b, c, d;
    float alpha, beta;
};

// Whether all its operands are in the device's memory.
bool is_in_place(const Product& product);
// Each number is summed over the inner dimension in order, whatever the matrices' sizes.
void carry_out(const Product& product);

}  // namespace emulator
