// Strided tensors: how the operands of one pass are laid out over a common index space.
#ifndef GAN_LAYOUT_CUH
#define GAN_LAYOUT_CUH

#include "gan.cuh"

// Rank extents, the last one fastest, and for each of Operands the elements between neighbours along each axis (0 for
// a broadcast axis). Passed by value; the host merges axes beforehand, so that few are left.
template <int Rank, int Operands> struct Layout {
    int extent[Rank];
    int stride[Operands][Rank];

    // Where the element with flat index `i`, below 2^31, lies in each operand.
    DEVICE void locate(i64 i, i64 (&at)[Operands]) const {
        for (i64& v : at) v = 0;
        u32 left = u32(i); // a division of 64-bit numbers would cost more than the rest of most passes
#pragma unroll
        for (int axis = Rank - 1; axis >= 0; axis--) {
            const u32 rest = axis ? left / u32(extent[axis]) : 0;
            const u32 here = left - rest * u32(extent[axis]);
#pragma unroll
            for (int o = 0; o < Operands; o++) at[o] += i64(here) * stride[o][axis];
            left = rest;
        }
    }
};

// Four elements that move as one.
template <class T> struct alignas(4 * sizeof(T)) Four {
    T v[4];
};

#endif
