// Products with 8-bit floating-point weights.
#include "fp8.cuh"
#include "linear.cuh"

LINEAR_KERNELS(fp8, bf16, Fp8<bf16>)
LINEAR_KERNELS(fp8, f16, Fp8<f16>)
