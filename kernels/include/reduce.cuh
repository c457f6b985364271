// Ordered reductions within a block.
#ifndef GAN_REDUCE_CUH
#define GAN_REDUCE_CUH

#include "gan.cuh"

// Who works together: all threads of a block. Kernels whose warps have different tasks name a team of their own.
struct WholeBlock {
    DEVICE int thread() const { return int(threadIdx.x); }
    DEVICE void sync() { __syncthreads(); }
};

// A team's threads stand in rows of Lanes. Combines the rows as a binary tree, always in the same order; the result
// is in the first row's threads.
template <int Threads, int Lanes, class T, class F, class Team> DEVICE T reduce_rows(T v, T* scratch, F combine, Team& team) {
    const int thread = team.thread(), row = thread / Lanes;
    scratch[thread] = v;
#pragma unroll
    for (int half = Threads / Lanes / 2; half > 0; half /= 2) {
        team.sync();
        if (row < half) scratch[thread] = v = combine(v, scratch[thread + half * Lanes]);
    }
    return v;
}
template <int Threads, int Lanes, class T, class F> DEVICE T reduce_rows(T v, T* scratch, F combine) {
    WholeBlock block;
    return reduce_rows<Threads, Lanes>(v, scratch, combine, block);
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
