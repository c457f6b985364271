// Everything that is done element by element: one kernel whose body comes in as an expression. Also copies, casts,
// permutations, broadcasts, slices and concatenations: the expression `a` with strides on both sides.
//
// Versions
//   1  `pointwise`: any strides, one element a thread and turn. `pointwise_dense`: all operands dense and alike, four
//      neighbouring elements a thread and turn.
//   2  WIDTH neighbouring elements a thread and turn with strides too, six inputs: fused chains with broadcasts (a norm's
//      map, bias, activation, residual) are one pass.
//   3  dropout within an expression, so that norm, dropout and activation are one pass.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): pix2pix 256 in bf16: 0.126 ms for 26 launches at batch 1 (bound
//   by launching), 2.1 TB/s at batch 16; dense ones 2.1 to 2.5 TB/s.
//
//   out[i] = EXPRESSION(a[i], b[i], ..., f[i], s, p, q)
//   with DROPOUT, `dropped(v, numbers)` in it is dropout of element i at the step that s holds (philox.cuh): v scale where
//   philox(counter = [i / 4 (64 bits), stream, step], key = seed)[i % 4] / 2^8 >= threshold, else 0; threshold = ceil(2^24 p),
//   which compares exactly as unit(word) >= p does in double precision. The mask is a function of seed, stream, step and
//   position alone: it is never stored, the CPU draws the same, and gradients are masked by the same expression.
//   grid   any number of blocks (a grid-stride loop);  block  256 threads
//
// Constants: OUT; RANK (of the index space) and WIDTH (1 or 4) for `pointwise`; INPUTS, IN_A to IN_F, EXPRESSION: see
// operands.cuh; DROPOUT (0, 1). Operand 0 of the layout is `out`, the inputs follow; it counts groups of WIDTH along its last axis, where
// an operand moves on by WIDTH elements or not at all. Unused pointers are null. `out` may be an input that is walked
// through alike.
#include "strided.cuh"

KERNEL __launch_bounds__(256, BLOCKS)
pointwise(const Layout<RANK, INPUTS + 1> layout, i64 count, OUT* out, const IN_A* a, const IN_B* b, const IN_C* c,
          const IN_D* d, const IN_E* e, const IN_F* f, const float* s, float p, float q, const Mask mask) {
    strided<0, INPUTS, (DROPOUT > 0)>(layout, count, out, a, b, c, d, e, f, s, p, q, mask, expression);
}

KERNEL __launch_bounds__(256, BLOCKS)
pointwise_dense(i64 count, OUT* out, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d, const IN_E* e,
                const IN_F* f, const float* s, float p, float q, const Mask mask) {
    const i64 quads = count / 4;
    for (i64 i = global_thread(); i < quads; i += global_threads()) {
        Four<IN_A> va = {};
        Four<IN_B> vb = {};
        Four<IN_C> vc = {};
        Four<IN_D> vd = {};
        Four<IN_E> ve = {};
        Four<IN_F> vf = {};
        if (INPUTS > 0) va = reinterpret_cast<const Four<IN_A>*>(a)[i];
        if (INPUTS > 1) vb = reinterpret_cast<const Four<IN_B>*>(b)[i];
        if (INPUTS > 2) vc = reinterpret_cast<const Four<IN_C>*>(c)[i];
        if (INPUTS > 3) vd = reinterpret_cast<const Four<IN_D>*>(d)[i];
        if (INPUTS > 4) ve = reinterpret_cast<const Four<IN_E>*>(e)[i];
        if (INPUTS > 5) vf = reinterpret_cast<const Four<IN_F>*>(f)[i];
        const Philox random = draw<(DROPOUT > 0)>(mask, s, i);
        Four<OUT> result;
#pragma unroll
        for (int j = 0; j < 4; j++)
            result.v[j] = from_float<OUT>(expression(to_float(va.v[j]), to_float(vb.v[j]), to_float(vc.v[j]),
                                                     to_float(vd.v[j]), to_float(ve.v[j]), to_float(vf.v[j]), s,
                                                     numbers_of(p, q, pick(random, j), mask)));
        reinterpret_cast<Four<OUT>*>(out)[i] = result;
    }
    const i64 i = quads * 4 + global_thread(); // the last one to three
    if (i < count) {
        const i64 at[6] = {i, i, i, i, i, i};
        const u32 word = pick(draw<(DROPOUT > 0)>(mask, s, quads), int(i % 4));
        out[i] = from_float<OUT>(evaluate(at, 0, a, b, c, d, e, f, s, numbers_of(p, q, word, mask)));
    }
}
