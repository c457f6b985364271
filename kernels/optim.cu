// Optimisers: one launch over the flat store of all parameters and moments, [slots, n]: slot 0 holds the parameters,
// the others what the rule remembers. Formulas and order of arithmetic are those of `src/ops/optimiser/mod.rs`.
//
// Versions
//   1  grid-stride loop, one element a turn; fp32 master weights, moments and gradients.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): 0.775 ms for 54 M parameters, 71 % of the bandwidth seen.
//
// Maths (t = *step, counted from 1; g = gradient, with weight decay: g + decay p):
//   ADAM     slots p, m, v, top:  m = lerp(m, g, 1 - beta1);  v = beta2 v + (1 - beta2) g^2;
//            with AMSGRAD top = max(top, v) stands for v;
//            p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//   ADAMW    slots as ADAM:  p *= 1 - lr decay, then ADAM without decay
//   RMSPROP  slots p, v, then m and b where used:  v = beta2 v + (1 - beta2) g^2;
//            with CENTERED m = lerp(m, g, 1 - beta2) and v - m^2 stands for v;  u = g / (sqrt(v) + eps);
//            with MOMENTUM b = momentum b + u, u = b;  p -= lr u
//   SGD      slots p, b:  u = g;  with MOMENTUM b = momentum b + (1 - dampening) g (first step: b = g),
//            u = NESTEROV ? g + momentum b : b;  p -= lr u
//   ADAGRAD  slots p, a:  a += g^2 (first step: + initial);  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(a) + eps)
//   any grid (a grid-stride loop); block 256
//
// Constants: RULE; AMSGRAD, CENTERED, MOMENTUM, NESTEROV (0, 1); SHADOW (0, 1): also writes the weights as bf16;
// ZERO_GRADIENT (0, 1): leaves the gradient at zero for the next step. lr and step are scalars in device memory, so
// that a captured step can be replayed.
#include "gan.cuh"

enum Rule { SGD, RMSPROP, ADAM, ADAMW, ADAGRAD };

struct Settings {
    double beta1, beta2, eps, decay, momentum, dampening, lr_decay, initial;
};

// from + weight (to - from), in the form that is exact at the nearer end.
struct Lerp {
    float weight, rest;
    DEVICE float at(float from, float to) const {
        const float way = to - from;
        return weight < 0.5f ? from + weight * way : to - way * rest;
    }
};
DEVICE Lerp lerp(double weight) { return {float(weight), float(1.0 - weight)}; }

// What all elements share, worked out in double: 1 - beta2^t would lose all its digits in fp32 while t is small.
struct Scalars {
    float size, root, shrink, keep, fresh, eps, decay, momentum;
    Lerp mean;
};

DEVICE Scalars scalars_of(const Settings& s, double lr, double t) {
    const bool adam = RULE == ADAM || RULE == ADAMW, first = t <= 1;
    Scalars out;
    out.size = float(adam ? lr / (1.0 - pow(s.beta1, t)) : RULE == ADAGRAD ? lr / (1.0 + (t - 1.0) * s.lr_decay) : lr);
    out.root = adam ? float(sqrt(1.0 - pow(s.beta2, t))) : 1.0f;
    out.shrink = float(RULE == ADAMW ? 1.0 - lr * s.decay : 1.0);
    out.keep = float(RULE == SGD ? (first ? 0.0 : s.momentum) : s.beta2);
    out.fresh = float(RULE == SGD ? (first ? 1.0 : 1.0 - s.dampening) : 1.0 - s.beta2);
    if (RULE == ADAGRAD) out.keep = float(first ? s.initial : 0.0);
    out.eps = float(s.eps);
    out.decay = float(RULE == ADAMW ? 0.0 : s.decay);
    out.momentum = float(s.momentum);
    out.mean = lerp(1.0 - (adam ? s.beta1 : s.beta2));
    return out;
}

KERNEL __launch_bounds__(256, 4)
optimise(const Settings settings, i64 n, const float* __restrict__ lr, const float* __restrict__ step,
         float* __restrict__ store, float* __restrict__ gradient, bf16* __restrict__ shadow) {
    SMEM(Scalars, shared, 1);
    if (threadIdx.x == 0) shared[0] = scalars_of(settings, double(*lr), double(*step));
    __syncthreads();
    const Scalars s = shared[0];
    float *const one = store + n, *const two = store + 2 * n, *const three = store + 3 * n;
    for (i64 i = global_thread(); i < n; i += global_threads()) {
        float p = store[i] * s.shrink;
        const float g = gradient[i] + s.decay * store[i];
        if (RULE == ADAM || RULE == ADAMW) {
            const float m = s.mean.at(one[i], g), v = two[i] * s.keep + s.fresh * g * g;
            one[i] = m;
            two[i] = v;
            float square = v;
            if (AMSGRAD) three[i] = square = fmaxf(three[i], v);
            p -= s.size * m / (sqrtf(square) / s.root + s.eps);
        } else if (RULE == RMSPROP) {
            const float v = one[i] * s.keep + s.fresh * g * g;
            one[i] = v;
            float square = v;
            if (CENTERED) {
                const float m = s.mean.at(two[i], g);
                two[i] = m;
                square -= m * m;
            }
            const float root = sqrtf(square) + s.eps;
            if (MOMENTUM) {
                float* const velocity = CENTERED ? three : two;
                const float b = velocity[i] * s.momentum + g / root;
                velocity[i] = b;
                p -= s.size * b;
            } else {
                p -= s.size * g / root;
            }
        } else if (RULE == SGD) {
            float u = g;
            if (MOMENTUM) {
                const float b = one[i] * s.keep + s.fresh * g;
                one[i] = b;
                u = NESTEROV ? g + s.momentum * b : b;
            }
            p -= s.size * u;
        } else {
            const float a = one[i] + s.keep + g * g;
            one[i] = a;
            p -= s.size * g / (sqrtf(a) + s.eps);
        }
        store[i] = p;
        if (SHADOW) shadow[i] = from_float<bf16>(p);
        if (ZERO_GRADIENT) gradient[i] = 0;
    }
}
