// Sums and maxima of an expression over any set of axes: losses, bias gradients, adjoints of broadcasts.
//
// Versions
//   1  a block holds LANES results side by side and shares the reduced index among its rows; slices fill the device
//      when there are few results. Not yet measured.
//
//   out[o] = scale * sum (or maximum) over r of EXPRESSION(a[o, r], b[o, r], c[o, r], d[o, r], s)
//   blockIdx.x  tile of LANES results
//   blockIdx.y  slice of the reduced index
//   block       256 threads
//
// Constants: OUT; KEPT_RANK, REDUCED_RANK; MAXIMUM (0: sum, 1: maximum); LANES, a power of two up to 32: 32 where the
// kept axes are the contiguous ones, 1 where the reduced ones are; INPUTS, IN_A to IN_D, EXPRESSION: see operands.cuh.
//
// With one slice the result goes to `out`. With more, slice s writes to partial + s * results, and a second launch (of
// this kernel, or of `sum_slices`) combines them in order. The order of additions depends on the shape only.
#include "operands.cuh"
#include "reduce.cuh"

DEVICE float combine(float x, float y) { return MAXIMUM ? fmaxf(x, y) : x + y; }

KERNEL __launch_bounds__(256, 4)
reduce(const Layout<KEPT_RANK, INPUTS> kept, const Layout<REDUCED_RANK, INPUTS> reduced, int results, i64 count,
       int slices, float scale, OUT* out, float* partial, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d,
       const float* s) {
    SMEM(float, scratch, 256);
    constexpr int ROWS = 256 / LANES;
    const int lane = int(threadIdx.x) % LANES, row = int(threadIdx.x) / LANES;
    const int result = int(blockIdx.x) * LANES + lane, slice = int(blockIdx.y);
    const i64 length = (count + slices - 1) / slices, begin = slice * length;
    const i64 end = begin + length < count ? begin + length : count;

    float v = MAXIMUM ? -INFINITY_FLOAT : 0.0f;
    if (result < results) {
        i64 base[INPUTS];
        kept.locate(result, base);
        for (i64 r = begin + row; r < end; r += ROWS) {
            i64 at[INPUTS];
            reduced.locate(r, at);
#pragma unroll
            for (int i = 0; i < INPUTS; i++) at[i] += base[i];
            v = combine(v, evaluate(at, 0, a, b, c, d, s, {0, 0}));
        }
    }
    v = reduce_rows<256, LANES>(v, scratch, combine);
    if (row == 0 && result < results) {
        if (slices == 1) {
            out[result] = from_float<OUT>(scale * v);
        } else {
            partial[i64(slice) * results + result] = v;
        }
    }
}
