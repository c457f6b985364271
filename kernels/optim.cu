// Optimisers: one launch over the flat buffer of all parameters.
//
// Versions
//   1  grid-stride loop, one element a turn; fp32 master weights, moments and gradients. Not yet measured.
//
// Maths (t = *step, counted from 1; g = gradient * *gradient_scale):
//   SGD      g += decay p;  first = momentum first + g;  p -= lr (NESTEROV ? g + momentum first : first)
//   RMSPROP  g += decay p;  second = beta2 second + (1 - beta2) g^2;  u = g / (sqrt(second) + eps);
//            first = momentum first + u;  p -= lr first
//   ADAM     g += decay p;  first = beta1 first + (1 - beta1) g;  second = beta2 second + (1 - beta2) g^2;
//            p -= lr / (1 - beta1^t) first / (sqrt(second / (1 - beta2^t)) + eps)
//   ADAMW    p -= lr decay p, then ADAM without decay
//   any grid (a grid-stride loop); block 256
//
// Constants: RULE (SGD, RMSPROP, ADAM, ADAMW); NESTEROV (0, 1); SHADOW (0, 1): also writes the weights as bf16;
// ZERO_GRADIENT (0, 1): leaves the gradient at zero for the next step. Moments that a rule does not use may be null
// (SGD and RMSPROP use `first` only with momentum). lr, step and gradient_scale lie in device memory, so that a
// captured step can be replayed.
#include "gan.cuh"

enum Rule { SGD, RMSPROP, ADAM, ADAMW };

struct Settings {
    double beta1, beta2;
    float eps, decay, momentum;
    int unused;
};

KERNEL __launch_bounds__(256, 4)
optimise(const Settings settings, i64 count, const float* __restrict__ lr_at, const int* __restrict__ step,
         const float* __restrict__ gradient_scale, float* __restrict__ weight, float* __restrict__ gradient,
         float* __restrict__ first, float* __restrict__ second, bf16* __restrict__ shadow) {
    SMEM(float, corrections, 2);
    if (threadIdx.x == 0) { // in double: 1 - beta2^t loses all its digits in fp32 while t is small
        corrections[0] = float(1.0 - pow(settings.beta1, double(*step)));
        corrections[1] = float(1.0 - pow(settings.beta2, double(*step)));
    }
    __syncthreads();
    const float lr = *lr_at, scale = *gradient_scale;
    const float beta1 = float(settings.beta1), beta2 = float(settings.beta2);
    const float rest1 = float(1.0 - settings.beta1), rest2 = float(1.0 - settings.beta2);
    const float step_size = lr / corrections[0], root = sqrtf(corrections[1]);
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        float p = weight[i], g = gradient[i] * scale;
        if (RULE == ADAMW) {
            p -= lr * settings.decay * p;
        } else {
            g += settings.decay * p;
        }
        if (RULE == ADAM || RULE == ADAMW) {
            const float m = beta1 * first[i] + rest1 * g, v = beta2 * second[i] + rest2 * g * g;
            first[i] = m;
            second[i] = v;
            p -= step_size * m / (sqrtf(v) / root + settings.eps);
        } else {
            float u = g;
            if (RULE == RMSPROP) {
                const float v = beta2 * second[i] + rest2 * g * g;
                second[i] = v;
                u = g / (sqrtf(v) + settings.eps);
            }
            if (settings.momentum != 0) {
                const float m = settings.momentum * first[i] + u;
                first[i] = m;
                u = NESTEROV ? u + settings.momentum * m : m;
            }
            p -= lr * u;
        }
        weight[i] = p;
        if (SHADOW) shadow[i] = from_float<bf16>(p);
        if (ZERO_GRADIENT) gradient[i] = 0;
    }
}
