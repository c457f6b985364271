// Separable linear maps of the pixels: average pooling, nearest and linear resizing, padding (zero, reflect, replicate,
// circular), cropping, and the adjoint of each. Which one it is lies in three small sparse matrices, one an axis,
// that the host writes once when it plans:
//
//   y[n, d, h, w, c] = sum over entries (i, j, k) of row d, row h, row w
//                      of weight_d[i] weight_h[j] weight_w[k] x[n, index_d[i], index_h[j], index_w[k], c]
//
// Entries start[o] .. start[o + 1] of an axis belong to result coordinate o; a row without entries gives zero.
// The adjoint is the same kernel with transposed matrices.
//
// Versions
//   1  a thread for each result element, neighbouring threads on neighbouring channels.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): CycleGAN 256, batch 1: 3.0 ms for 118 paddings and 2.9 ms for
//   their 116 adjoints, a quarter of the step.
//
//   any grid (a grid-stride loop); block 256
// Constants: IN, OUT: types of x and y.
#include "conv.cuh"

struct Extents {
    int n, c;
    int input[3], output[3];
};


KERNEL __launch_bounds__(256, 4)
resample(const Extents e, const IN* __restrict__ x, OUT* __restrict__ y, const int* start_d, const int* index_d,
         const float* weight_d, const int* start_h, const int* index_h, const float* weight_h, const int* start_w,
         const int* index_w, const float* weight_w) {
    const i64 count = i64(e.n) * volume(e.output) * e.c;
    for (i64 t = global_thread(); t < count; t += global_threads()) {
        const int c = int(t % e.c), pixel = int(t / e.c), image = pixel / volume(e.output);
        const Triple o = split3(pixel % volume(e.output), e.output[1], e.output[2]);
        const int end_d = start_d[o.d + 1], end_h = start_h[o.h + 1], end_w = start_w[o.w + 1];
        float sum = 0;
        for (int i = start_d[o.d]; i < end_d; i++)
            for (int j = start_h[o.h]; j < end_h; j++) {
                const i64 line = ((i64(image) * e.input[0] + index_d[i]) * e.input[1] + index_h[j]) * e.input[2];
                const float weight = weight_d[i] * weight_h[j];
                for (int k = start_w[o.w]; k < end_w; k++)
                    sum += weight * weight_w[k] * to_float(x[(line + index_w[k]) * e.c + c]);
            }
        y[t] = from_float<OUT>(sum);
    }
}
