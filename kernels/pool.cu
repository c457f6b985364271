// Max pooling, and the linear maps that its gradients are.
//
// Versions
//   1  a thread for each element; the maximum's place is kept, so the gradient compares places, not values. No atomics:
//      the gradient gathers.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): U-Net 240, batch 32: the scatter 4.95 ms for 4 launches where
//   its bytes take 0.3; forward 1.1 ms.
//
//   max_pool          y[o, c] = max over the window of x, place[o, c] = input pixel (within its image) of the first
//                     maximum; padding never wins; the first NaN always does
//   max_pool_scatter  dx[i, c] = sum of dy[o, c] over the windows with place[o, c] = i
//   max_pool_gather   z[o, c] = v[place[o, c], c], the adjoint of the scatter (derivative of a gradient)
//   any grid (grid-stride loops); block 256
//
// Constants: TYPE (float, bf16); GEOMETRY: see conv.cuh (channels c = k, groups are ignored).
#include "conv.cuh"

KERNEL __launch_bounds__(256, 4) max_pool(const Geometry argument, const TYPE* __restrict__ x, TYPE* y, int* place) {
    USE_GEOMETRY(argument);
    const Geometry& g = geometry;
    const i64 count = i64(g.n) * volume(g.output) * g.c;
    for (i64 e = global_thread(); e < count; e += global_threads()) {
        const int c = int(e % g.c), pixel = int(e / g.c), image = pixel / volume(g.output);
        const Triple o = split3(pixel % volume(g.output), g.output[1], g.output[2]);
        float best = -INFINITY_FLOAT;
        int best_place = -1;
        for (int kd = 0; kd < g.kernel[0]; kd++) {
            const int d = o.d * g.stride[0] - g.padding[0] + kd * g.dilation[0];
            for (int kh = 0; kh < g.kernel[1]; kh++) {
                const int h = o.h * g.stride[1] - g.padding[1] + kh * g.dilation[1];
                for (int kw = 0; kw < g.kernel[2]; kw++) {
                    const int w = o.w * g.stride[2] - g.padding[2] + kw * g.dilation[2];
                    if (!inside(d, g.input[0]) || !inside(h, g.input[1]) || !inside(w, g.input[2])) continue;
                    const int here = (d * g.input[1] + h) * g.input[2] + w;
                    const float v = to_float(x[(i64(image) * volume(g.input) + here) * g.c + c]);
                    if (best_place < 0 || v > best || (v != v && best == best)) best = v, best_place = here;
                }
            }
        }
        y[e] = from_float<TYPE>(best);
        place[e] = best_place;
    }
}

KERNEL __launch_bounds__(256, 4)
max_pool_scatter(const Geometry argument, const TYPE* __restrict__ dy, const int* __restrict__ place, TYPE* dx) {
    USE_GEOMETRY(argument);
    const Geometry& g = geometry;
    const i64 count = i64(g.n) * volume(g.input) * g.c;
    for (i64 e = global_thread(); e < count; e += global_threads()) {
        const int c = int(e % g.c), pixel = int(e / g.c);
        const int image = pixel / volume(g.input), here = pixel % volume(g.input);
        const Triple i = split3(here, g.input[1], g.input[2]);
        float sum = 0;
        for (int kd = 0; kd < g.kernel[0]; kd++) {
            const int d = i.d + g.padding[0] - kd * g.dilation[0];
            if (d % g.stride[0] || !inside(d / g.stride[0], g.output[0])) continue;
            for (int kh = 0; kh < g.kernel[1]; kh++) {
                const int h = i.h + g.padding[1] - kh * g.dilation[1];
                if (h % g.stride[1] || !inside(h / g.stride[1], g.output[1])) continue;
                for (int kw = 0; kw < g.kernel[2]; kw++) {
                    const int w = i.w + g.padding[2] - kw * g.dilation[2];
                    if (w % g.stride[2] || !inside(w / g.stride[2], g.output[2])) continue;
                    const int o = (d / g.stride[0] * g.output[1] + h / g.stride[1]) * g.output[2] + w / g.stride[2];
                    const i64 at = (i64(image) * volume(g.output) + o) * g.c + c;
                    if (place[at] == here) sum += to_float(dy[at]);
                }
            }
        }
        dx[e] = from_float<TYPE>(sum);
    }
}

KERNEL __launch_bounds__(256, 4)
max_pool_gather(const Geometry argument, const TYPE* __restrict__ v, const int* __restrict__ place, TYPE* z) {
    USE_GEOMETRY(argument);
    const Geometry& g = geometry;
    const i64 count = i64(g.n) * volume(g.output) * g.c;
    for (i64 e = global_thread(); e < count; e += global_threads()) {
        const int c = int(e % g.c), image = int(e / g.c) / volume(g.output);
        z[e] = place[e] < 0 ? from_float<TYPE>(0.0f) : v[(i64(image) * volume(g.input) + place[e]) * g.c + c];
    }
}
