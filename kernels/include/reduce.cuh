// Ordered reductions within a block.
#ifndef GAN_REDUCE_CUH
#define GAN_REDUCE_CUH

#include "gan.cuh"

// A block's threads stand in rows of Lanes. Combines the rows as a binary tree, always in the same order; the result
// is in the first row's threads.
template <int Threads, int Lanes, class T, class F> DEVICE T reduce_rows(T v, T* scratch, F combine) {
    const int row = int(threadIdx.x) / Lanes;
    scratch[threadIdx.x] = v;
#pragma unroll
    for (int half = Threads / Lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (row < half) scratch[threadIdx.x] = v = combine(v, scratch[int(threadIdx.x) + half * Lanes]);
    }
    return v;
}

// Sum or maximum over groups of Lanes neighbouring lanes; all of them get the result.
template <int Lanes> DEVICE float warp_sum(float v) {
#pragma unroll
    for (int mask = Lanes / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
    return v;
}
template <int Lanes> DEVICE float warp_max(float v) {
#pragma unroll
    for (int mask = Lanes / 2; mask > 0; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask));
    return v;
}

#endif
