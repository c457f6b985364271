// The operands of a generated expression: up to four tensors a, b, c, d and device scalars s[0], s[1], ...
//
// Constants: INPUTS (1 to 4); IN_A, IN_B, IN_C, IN_D: their element types (float, bf16), float where not given;
// EXPRESSION: fp32 C++ in a, b, c, d, s and the functions of math.cuh.
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

DEVICE float expression(float a, float b, float c, float d, const float* s) {
    (void)a, (void)b, (void)c, (void)d, (void)s;
    return EXPRESSION;
}

// The value for one element, given where it lies in each input.
template <int Operands>
DEVICE float evaluate(const i64 (&at)[Operands], int first, const IN_A* a, const IN_B* b, const IN_C* c, const IN_D* d,
                      const float* s) {
    return expression(to_float(a[at[first]]), INPUTS > 1 ? to_float(b[at[first + (INPUTS > 1 ? 1 : 0)]]) : 0.0f,
                      INPUTS > 2 ? to_float(c[at[first + (INPUTS > 2 ? 2 : 0)]]) : 0.0f,
                      INPUTS > 3 ? to_float(d[at[first + (INPUTS > 3 ? 3 : 0)]]) : 0.0f, s);
}

#endif
