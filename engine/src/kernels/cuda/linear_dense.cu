// Products with dense weights.
#include "dense.cuh"
#include "linear.cuh"

LINEAR_KERNELS(bf16, bf16, Dense<bf16>)
LINEAR_KERNELS(f16, f16, Dense<f16>)
