// Products with weights of 6 bits.
#include "linear.cuh"
#include "q6k.cuh"

LINEAR_KERNELS(q6k, f16, Q6K)
