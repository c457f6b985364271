// Going over the elements of a strided expression, with dropout in it if need be: what pointwise.cu and pointwise_pair.cu share.
#ifndef GAN_STRIDED_CUH
#define GAN_STRIDED_CUH

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
template <bool Drops> DEVICE Philox draw(const Mask& mask, const float* step, i64 block) {
    if (!Drops) return {};
    return philox4x32(u32(block), u32(u64(block) >> 32), mask.stream, step_number(step), mask.seed_low, mask.seed_high);
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

// Goes over the elements of one expression, `f`, which reads the inputs from Begin to End.
template <int Begin, int End, bool Drops, class F>
DEVICE void strided(const Layout<RANK, INPUTS + 1>& layout, i64 count, OUT* out, const IN_A* a, const IN_B* b, const IN_C* c,
                    const IN_D* d, const IN_E* e, const IN_F* f, const float* s, float p, float q, const Mask& mask,
                    F function) {
    constexpr int A = INPUTS > 0 ? 1 : 0, B = INPUTS > 1 ? 2 : 0, C = INPUTS > 2 ? 3 : 0, D = INPUTS > 3 ? 4 : 0,
                  E = INPUTS > 4 ? 5 : 0, G = INPUTS > 5 ? 6 : 0;
    auto moves = [&](int operand) { return layout.stride[operand][RANK - 1] != 0; };
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        i64 at[INPUTS + 1];
        layout.locate(i, at);
        const auto va = load<(A > Begin && A <= End)>(a, at[A], moves(A));
        const auto vb = load<(B > Begin && B <= End)>(b, at[B], moves(B));
        const auto vc = load<(C > Begin && C <= End)>(c, at[C], moves(C));
        const auto vd = load<(D > Begin && D <= End)>(d, at[D], moves(D));
        const auto ve = load<(E > Begin && E <= End)>(e, at[E], moves(E));
        const auto vf = load<(G > Begin && G <= End)>(f, at[G], moves(G));
        const Philox random = draw<Drops>(mask, s, WIDTH == 4 ? i : i / 4);
        Group<OUT> result;
#pragma unroll
        for (int j = 0; j < WIDTH; j++)
            result.v[j] = from_float<OUT>(function(to_float(va.v[j]), to_float(vb.v[j]), to_float(vc.v[j]),
                                                   to_float(vd.v[j]), to_float(ve.v[j]), to_float(vf.v[j]), s,
                                                   numbers_of(p, q, pick(random, WIDTH == 4 ? j : int(i % 4)), mask)));
        *reinterpret_cast<Group<OUT>*>(out + at[0]) = result;
    }
}

#endif
