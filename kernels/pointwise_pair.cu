// Two expressions with results of their own in one launch, such as the halves of a concatenation. Each is as in pointwise.cu.
//
// Versions
//   1  a row of blocks for each.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): 5.6 us a launch at batch 1 of pix2pix 256; 1.9 TB/s at batch
//   16.
//
//   out[i] = EXPRESSION(a[i], ...),  second_out[i] = SECOND(...) of the inputs behind
//   grid   any number of blocks (a grid-stride loop) in x, the two in y;  block  256 threads
//
// Constants as in pointwise.cu, and SECOND; FIRST_INPUTS: how many of the inputs belong to the first; DROPOUT: 1 if the first
// drops, 2 if the second does. Each layout is for all inputs; those of the other expression are left out.
#include "strided.cuh"

DEVICE float second(float a, float b, float c, float d, float e, float f, const float* s, Numbers numbers) {
    const float p = numbers.p, q = numbers.q;
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)s, (void)p, (void)q;
    return SECOND;
}

KERNEL __launch_bounds__(256, BLOCKS)
pointwise_pair(const Layout<RANK, INPUTS + 1> layout, i64 count, OUT* out, const Layout<RANK, INPUTS + 1> second_layout,
               i64 second_count, OUT* second_out, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d,
               const IN_E* e, const IN_F* f, const float* s, float p, float q, const Mask mask) {
    if (blockIdx.y == 0) {
        strided<0, FIRST_INPUTS, (DROPOUT == 1)>(layout, count, out, a, b, c, d, e, f, s, p, q, mask, expression);
    } else {
        strided<FIRST_INPUTS, INPUTS, (DROPOUT == 2)>(second_layout, second_count, second_out, a, b, c, d, e, f, s, p, q,
                                                      mask, second);
    }
}
