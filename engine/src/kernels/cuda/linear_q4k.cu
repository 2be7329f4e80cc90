// Products with weights of 4 bits.
#include "linear.cuh"
#include "q4k.cuh"

LINEAR_KERNELS(q4k, f16, Q4K)
