// Functions for the expressions that come in by -D (activations, losses and their derivatives). In fp32, and accurate:
// no fast-math, the CPU's results are matched to a few units in the last place.
#ifndef GAN_MATH_CUH
#define GAN_MATH_CUH

#include "gan.cuh"

DEVICE float select(bool c, float yes, float no) { return c ? yes : no; }
DEVICE float square(float v) { return v * v; }
DEVICE float sign(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : v; } // 0 and NaN stay
DEVICE float relu(float v) { return v > 0 ? v : 0.0f; }
DEVICE float leaky_relu(float v, float slope) { return v > 0 ? v : v * slope; }

// 1 / (1 + e^-v), without overflow on either side.
DEVICE float sigmoid(float v) {
    float e = expf(-fabsf(v));
    return (v >= 0 ? 1.0f : e) / (1.0f + e);
}

// log(1 + e^v), without overflow.
DEVICE float softplus(float v) { return fmaxf(v, 0.0f) + log1pf(expf(-fabsf(v))); }

DEVICE float silu(float v) { return v * sigmoid(v); }

// v times the normal distribution function of v.
DEVICE float gelu(float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f)); }

#endif
