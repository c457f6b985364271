// Everything that is done element by element: one kernel whose body comes in as an expression. Also copies, casts,
// permutations, broadcasts, slices and concatenations: the expression `a` with strides on both sides.
//
// Versions
//   1  `pointwise`: any strides, one element a thread and turn. `pointwise_dense`: all operands dense and alike, four
//      neighbouring elements a thread and turn. Not yet measured.
//   2  WIDTH neighbouring elements a thread and turn with strides too, six inputs: fused chains with broadcasts (a norm's
//      map, bias, activation, residual) are one pass. Not yet measured.
//   3  dropout within an expression, so that norm, dropout and activation are one pass. Not yet measured.
//
//   out[i] = EXPRESSION(a[i], b[i], ..., f[i], s, p, q)
//   with DROPOUT, `dropped(v, numbers)` in it is dropout (dropout.cu says by what rule) of element i, at step *s
//   grid   any number of blocks (a grid-stride loop);  block  256 threads
//
// Constants: OUT; RANK (of the index space) and WIDTH (1 or 4) for `pointwise`; INPUTS, IN_A to IN_F, EXPRESSION: see
// operands.cuh; DROPOUT (0, 1). Operand 0 of the layout is `out`, the inputs follow; it counts groups of WIDTH along its last axis, where
// an operand moves on by WIDTH elements or not at all. Unused pointers are null. `out` may be an input that is walked
// through alike.
#include "operands.cuh"
#include "philox.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
#ifndef DROPOUT
#define DROPOUT 0
#endif

// Which random numbers dropout draws, and what it does by them.
struct Mask {
    u32 seed_low, seed_high, stream, threshold;
    float scale;
};

// The four words of elements 4 block ...
DEVICE Philox draw(const Mask& mask, const float* step, i64 block) {
    if (!DROPOUT) return {};
    return philox4x32(u32(block), u32(u64(block) >> 32), mask.stream, u32(*step), mask.seed_low, mask.seed_high);
}

// Word j; a choice among registers, where an index would need memory.
DEVICE u32 pick(const Philox& r, int j) { return j < 2 ? (j == 0 ? r.word[0] : r.word[1]) : (j == 2 ? r.word[2] : r.word[3]); }

DEVICE Numbers numbers_of(float p, float q, u32 word, const Mask& mask) {
    return {p, q, word >> 8, mask.threshold, mask.scale};
}

constexpr int BLOCKS = INPUTS > 3 ? 2 : 4; // more inputs in flight take more registers

// WIDTH neighbouring elements, or WIDTH times the same one.
template <class T> struct alignas(WIDTH * sizeof(T)) Group {
    T v[WIDTH];
};
template <bool Used, class T> DEVICE Group<T> load(const T* from, i64 at, bool moves) {
    Group<T> group = {};
    if (!Used) return group;
    if (WIDTH == 1 || moves) return *reinterpret_cast<const Group<T>*>(from + at);
    const T v = from[at];
#pragma unroll
    for (int j = 0; j < WIDTH; j++) group.v[j] = v;
    return group;
}

KERNEL __launch_bounds__(256, BLOCKS)
pointwise(const Layout<RANK, INPUTS + 1> layout, i64 count, OUT* out, const IN_A* a, const IN_B* b, const IN_C* c,
          const IN_D* d, const IN_E* e, const IN_F* f, const float* s, float p, float q, const Mask mask) {
    constexpr int A = INPUTS > 0 ? 1 : 0, B = INPUTS > 1 ? 2 : 0, C = INPUTS > 2 ? 3 : 0, D = INPUTS > 3 ? 4 : 0,
                  E = INPUTS > 4 ? 5 : 0, F = INPUTS > 5 ? 6 : 0;
    auto moves = [&](int operand) { return layout.stride[operand][RANK - 1] != 0; };
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        i64 at[INPUTS + 1];
        layout.locate(i, at);
        const auto va = load<(A > 0)>(a, at[A], moves(A));
        const auto vb = load<(B > 0)>(b, at[B], moves(B));
        const auto vc = load<(C > 0)>(c, at[C], moves(C));
        const auto vd = load<(D > 0)>(d, at[D], moves(D));
        const auto ve = load<(E > 0)>(e, at[E], moves(E));
        const auto vf = load<(F > 0)>(f, at[F], moves(F));
        const Philox random = draw(mask, s, WIDTH == 4 ? i : i / 4);
        Group<OUT> result;
#pragma unroll
        for (int j = 0; j < WIDTH; j++)
            result.v[j] = from_float<OUT>(expression(to_float(va.v[j]), to_float(vb.v[j]), to_float(vc.v[j]),
                                                     to_float(vd.v[j]), to_float(ve.v[j]), to_float(vf.v[j]), s,
                                                     numbers_of(p, q, pick(random, WIDTH == 4 ? j : int(i % 4)), mask)));
        *reinterpret_cast<Group<OUT>*>(out + at[0]) = result;
    }
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
        const Philox random = draw(mask, s, i);
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
        const u32 word = pick(draw(mask, s, quads), int(i % 4));
        out[i] = from_float<OUT>(evaluate(at, 0, a, b, c, d, e, f, s, numbers_of(p, q, word, mask)));
    }
}
