#include "product.h"

#include <cmath>
#include <vector>

#include "allocations.h"
#include "halves.h"

namespace emulator {
namespace {

// Four bits of exponent, three of mantissa, no infinities.
float e4m3_to_float(uint8_t bits) {
    int exponent = bits >> 3 & 15, mantissa = bits & 7;
    if (exponent == 15 && mantissa == 7) return NAN;
    float magnitude = exponent == 0 ? ldexpf(float(mantissa), -9) : ldexpf(float(8 + mantissa), exponent - 10);
    return bits & 0x80 ? -magnitude : magnitude;
}

float read(const Matrix& matrix, uint64_t row, uint64_t column) {
    size_t at = column * matrix.layout.stride + row;
    switch (matrix.layout.type) {
        case CUDA_R_32F: return static_cast<const float*>(matrix.start)[at];
        case CUDA_R_16F: return f16_to_float(static_cast<const uint16_t*>(matrix.start)[at]);
        case CUDA_R_16BF: return bf16_to_float(static_cast<const uint16_t*>(matrix.start)[at]);
        case CUDA_R_8F_E4M3: return e4m3_to_float(static_cast<const uint8_t*>(matrix.start)[at]);
    }
    return NAN;
}

void write(const Matrix& matrix, uint64_t row, uint64_t column, float x) {
    size_t at = column * matrix.layout.stride + row;
    void* start = const_cast<void*>(matrix.start);
    if (matrix.layout.type == CUDA_R_32F) static_cast<float*>(start)[at] = x;
    if (matrix.layout.type == CUDA_R_16F) static_cast<uint16_t*>(start)[at] = float_to_f16(x);
    if (matrix.layout.type == CUDA_R_16BF) static_cast<uint16_t*>(start)[at] = float_to_bf16(x);
}

// op(A) as single precision, row after row of the inner dimension: `[k][m]`; for op(B) `[n][k]`.
std::vector<float> unpack(const Matrix& matrix, bool transposed) {
    uint64_t outer = transposed ? matrix.layout.rows : matrix.layout.columns;
    uint64_t inner = transposed ? matrix.layout.columns : matrix.layout.rows;
    std::vector<float> out(outer * inner);
    for (uint64_t i = 0; i < outer; i++) {
        for (uint64_t j = 0; j < inner; j++) {
            out[i * inner + j] = transposed ? read(matrix, i, j) : read(matrix, j, i);
        }
    }
    return out;
}

// The sums of `rows` numbers of one column of D; the rows side by side fit the processor's vectors.
constexpr uint64_t TILE = 32;
void sum_tile(float* sums, const float* a, uint64_t a_stride, const float* b, uint64_t inner) {
    for (uint64_t k = 0; k < inner; k++) {
        for (uint64_t i = 0; i < TILE; i++) sums[i] += a[k * a_stride + i] * b[k];
    }
}

}  // namespace

bool is_in_place(const Product& product) {
    auto there = [](const Matrix& matrix) { return is_allocated(matrix.start, matrix_bytes(matrix.layout)); };
    const Description& description = product.description;
    for (const float* scale : {description.scale_a, description.scale_b}) {
        if (scale != nullptr && !is_allocated(scale, sizeof(float))) return false;
    }
    return there(product.a) && there(product.b) && (product.beta == 0 || there(product.c)) && there(product.d);
}

void carry_out(const Product& product) {
    uint64_t m = product.d.layout.rows, n = product.d.layout.columns, padded = (m + TILE - 1) / TILE * TILE;
    const Description& description = product.description;
    std::vector<float> a = unpack(product.a, description.transpose_a == CUBLAS_OP_T);
    std::vector<float> b = unpack(product.b, description.transpose_b == CUBLAS_OP_T);
    uint64_t inner = b.size() / n;
    float factor = product.alpha;
    if (description.scale_a != nullptr) factor *= *description.scale_a;
    if (description.scale_b != nullptr) factor *= *description.scale_b;
    // The last tile reads beyond the last row, never to any use.
    a.resize(a.size() + TILE);
    for (uint64_t column = 0; column < n; column++) {
        std::vector<float> sums(padded);
        for (uint64_t row = 0; row < m; row += TILE) sum_tile(&sums[row], &a[row], m, &b[column * inner], inner);
        for (uint64_t row = 0; row < m; row++) {
            float added = product.beta == 0 ? 0 : product.beta * read(product.c, row, column);
            write(product.d, row, column, factor * sums[row] + added);
        }
    }
}

}  // namespace emulator
