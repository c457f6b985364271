// The operands of a generated expression: up to six tensors a to f, device scalars s[0], s[1], ..., and numbers p and
// q that the launch passes by value, so that expressions which differ in them only are one kernel.
//
// Constants: INPUTS (0 to 6); IN_A to IN_F: their element types (float, bf16), float where not given;
// EXPRESSION: fp32 C++ in a to f, s, p, q, `dropped(v, numbers)` and the functions of math.cuh.
#ifndef GAN_OPERANDS_CUH
#define GAN_OPERANDS_CUH

#include "layout.cuh"
#include "math.cuh"

#ifndef IN_A
#define IN_A float
#endif
#ifndef IN_B
#define IN_B float
#endif
#ifndef IN_C
#define IN_C float
#endif
#ifndef IN_D
#define IN_D float
#endif
#ifndef IN_E
#define IN_E float
#endif
#ifndef IN_F
#define IN_F float
#endif

// p and q, and what decides on an element's dropout: 24 random bits, and the least that keeps it, scaled.
struct Numbers {
    float p, q;
    u32 word, threshold;
    float scale;
};

DEVICE float dropped(float v, Numbers numbers) { return numbers.word >= numbers.threshold ? v * numbers.scale : 0.0f; }

DEVICE float expression(float a, float b, float c, float d, float e, float f, const float* s, Numbers numbers) {
    const float p = numbers.p, q = numbers.q;
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)s, (void)p, (void)q;
    return EXPRESSION;
}

// The value for one element, given where it lies in each input.
template <int Operands>
DEVICE float evaluate(const i64 (&at)[Operands], int first, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d,
                      const IN_E* e, const IN_F* f, const float* s, Numbers numbers) {
    return expression(INPUTS > 0 ? to_float(a[at[INPUTS > 0 ? first : 0]]) : 0.0f,
                      INPUTS > 1 ? to_float(b[at[INPUTS > 1 ? first + 1 : 0]]) : 0.0f,
                      INPUTS > 2 ? to_float(c[at[INPUTS > 2 ? first + 2 : 0]]) : 0.0f,
                      INPUTS > 3 ? to_float(d[at[INPUTS > 3 ? first + 3 : 0]]) : 0.0f,
                      INPUTS > 4 ? to_float(e[at[INPUTS > 4 ? first + 4 : 0]]) : 0.0f,
                      INPUTS > 5 ? to_float(f[at[INPUTS > 5 ? first + 5 : 0]]) : 0.0f, s, numbers);
}

#endif
