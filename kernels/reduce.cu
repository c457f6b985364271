// Sums and maxima of an expression over any set of axes: losses, bias gradients, adjoints of broadcasts.
//
// Versions
//   1  a block holds LANES results side by side and shares the reduced index among its rows; slices fill the device
//      when there are few results.
//   2  the last slice combines all of them, where a second launch did.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): pix2pix 256, batch 1: 0.19 ms for 16 launches; the sum of
//   squares of 54 M gradients 63 % of the bandwidth seen.
//
//   out[o] = scale * sum (or maximum) over r of EXPRESSION(a[o, r], b[o, r], ..., f[o, r], s)
//   blockIdx.x  tile of LANES results
//   blockIdx.y  slice of the reduced index
//   block       256 threads
//
// Constants: OUT; KEPT_RANK, REDUCED_RANK; MAXIMUM (0: sum, 1: maximum); LANES, a power of two up to 32: 32 where the
// kept axes are the contiguous ones, 1 where the reduced ones are; INPUTS, IN_A to IN_F, EXPRESSION: see operands.cuh.
//
// With more than one slice, slice s writes to partial + s * results, and the last block of a tile, which `counters` has one
// for, combines them in order. The order of additions depends on the shape only.
#include "last_block.cuh"
#include "operands.cuh"
#include "reduce.cuh"

DEVICE float combine(float x, float y) { return MAXIMUM ? fmaxf(x, y) : x + y; }

KERNEL __launch_bounds__(256, 4)
reduce(const Layout<KEPT_RANK, INPUTS> kept, const Layout<REDUCED_RANK, INPUTS> reduced, int results, i64 count,
       int slices, float scale, OUT* out, float* partial, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d,
       const IN_E* e, const IN_F* f, const float* s, u32* counters) {
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
            v = combine(v, evaluate(at, 0, a, b, c, d, e, f, s, {0, 0}));
        }
    }
    v = reduce_rows<256, LANES>(v, scratch, combine);
    if (slices > 1) {
        if (row == 0 && result < results) partial[i64(slice) * results + result] = v;
        if (!last_block(counters + blockIdx.x, slices)) return;
        v = MAXIMUM ? -INFINITY_FLOAT : 0.0f;
        for (int i = row; result < results && i < slices; i += ROWS) v = combine(v, partial[i64(i) * results + result]);
        v = reduce_rows<256, LANES>(v, scratch, combine);
    }
    if (row == 0 && result < results) out[result] = from_float<OUT>(scale * v);
}
