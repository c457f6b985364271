// Everything that is done element by element: one kernel whose body comes in as an expression. Also copies, casts,
// permutations, broadcasts, slices and concatenations: the expression `a` with strides on both sides.
//
// Versions
//   1  `pointwise`: any strides, one element a thread and turn. `pointwise_dense`: all operands dense and alike, four
//      neighbouring elements a thread and turn. Not yet measured.
//
//   out[i] = EXPRESSION(a[i], b[i], c[i], d[i], s, p, q)
//   grid   any number of blocks (a grid-stride loop);  block  256 threads
//
// Constants: OUT; RANK (of the index space, for `pointwise`); INPUTS, IN_A to IN_D, EXPRESSION: see operands.cuh.
// Operand 0 of the layout is `out`, the inputs follow. Unused pointers are null. `out` may be an input that is walked
// through alike.
#include "operands.cuh"

KERNEL __launch_bounds__(256, 4)
pointwise(const Layout<RANK, INPUTS + 1> layout, i64 count, OUT* out, const IN_A* a, const IN_B* b, const IN_C* c,
          const IN_D* d, const float* s, float p, float q) {
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        i64 at[INPUTS + 1];
        layout.locate(i, at);
        out[at[0]] = from_float<OUT>(evaluate(at, 1, a, b, c, d, s, {p, q}));
    }
}

KERNEL __launch_bounds__(256, 4)
pointwise_dense(i64 count, OUT* out, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d, const float* s,
                float p, float q) {
    const i64 quads = count / 4;
    for (i64 i = global_thread(); i < quads; i += global_threads()) {
        Four<IN_A> va = {};
        Four<IN_B> vb = {};
        Four<IN_C> vc = {};
        Four<IN_D> vd = {};
        if (INPUTS > 0) va = reinterpret_cast<const Four<IN_A>*>(a)[i];
        if (INPUTS > 1) vb = reinterpret_cast<const Four<IN_B>*>(b)[i];
        if (INPUTS > 2) vc = reinterpret_cast<const Four<IN_C>*>(c)[i];
        if (INPUTS > 3) vd = reinterpret_cast<const Four<IN_D>*>(d)[i];
        Four<OUT> result;
#pragma unroll
        for (int j = 0; j < 4; j++)
            result.v[j] = from_float<OUT>(
                expression(to_float(va.v[j]), to_float(vb.v[j]), to_float(vc.v[j]), to_float(vd.v[j]), s, {p, q}));
        reinterpret_cast<Four<OUT>*>(out)[i] = result;
    }
    const i64 i = quads * 4 + global_thread(); // the last one to three
    if (i < count) {
        const i64 at[4] = {i, i, i, i};
        out[i] = from_float<OUT>(evaluate(at, 0, a, b, c, d, s, {p, q}));
    }
}
