// Products with weights of 8 bits.
#include "linear.cuh"
#include "q8_0.cuh"

LINEAR_KERNELS(q8_0, f16, Q8_0)
