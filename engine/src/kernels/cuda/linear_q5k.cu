// Products with weights of 5 bits.
#include "linear.cuh"
#include "q5k.cuh"

LINEAR_KERNELS(q5k, f16, Q5K)
