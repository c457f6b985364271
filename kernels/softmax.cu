// Softmax and its logarithm over one axis, and their gradients.
//
// Versions
//   1  LANES neighbouring lanes share a row, several rows a warp when rows are short.
//   On an H100 it conforms; its time was not recorded by itself (docs/measurements/2026-11-27-steps-h100.md).
//
//   softmax       y = e^(x - max) / sum e^(x - max)         with LOG: y = x - max - log sum e^(x - max)
//   softmax_grad  dx = y (dy - sum(y dy))                   with LOG: dx = dy - e^y sum(dy)
//   x is [outer, columns, inner]; a row is one outer and one inner index, its elements lie `inner` apart
//   grid  a group of LANES lanes for each row;  block  256 threads
//
// Constants: TYPE (float, bf16); LOG (0, 1); LANES, a power of two up to 32, about the columns.
#include "reduce.cuh"

DEVICE i64 row_begin(int row, int columns, int inner) { return i64(row / inner) * columns * inner + row % inner; }

KERNEL __launch_bounds__(256, 4)
softmax(int rows, int columns, int inner, const TYPE* __restrict__ x, TYPE* __restrict__ y) {
    const int row = int(global_thread() / LANES), lane = lane_id() % LANES;
    const i64 base = row_begin(row, columns, inner);
    const int end = row < rows ? columns : 0; // lanes without a row still meet the others in the shuffles
    float top = -INFINITY_FLOAT;
    for (int c = lane; c < end; c += LANES) top = fmaxf(top, to_float(x[base + i64(c) * inner]));
    top = warp_max<LANES>(top);
    float sum = 0;
    for (int c = lane; c < end; c += LANES) sum += expf(to_float(x[base + i64(c) * inner]) - top);
    sum = warp_sum<LANES>(sum);
    const float log_sum = LOG ? logf(sum) : 0.0f;
    for (int c = lane; c < end; c += LANES) {
        const float v = to_float(x[base + i64(c) * inner]) - top;
        y[base + i64(c) * inner] = from_float<TYPE>(LOG ? v - log_sum : expf(v) / sum);
    }
}

KERNEL __launch_bounds__(256, 4)
softmax_grad(int rows, int columns, int inner, const TYPE* __restrict__ y, const TYPE* __restrict__ dy,
             TYPE* __restrict__ dx) {
    const int row = int(global_thread() / LANES), lane = lane_id() % LANES;
    const i64 base = row_begin(row, columns, inner);
    const int end = row < rows ? columns : 0;
    float sum = 0;
    for (int c = lane; c < end; c += LANES) sum += (LOG ? 1.0f : to_float(y[base + i64(c) * inner])) * to_float(dy[base + i64(c) * inner]);
    sum = warp_sum<LANES>(sum);
    for (int c = lane; c < end; c += LANES) {
        const float v = to_float(y[base + i64(c) * inner]), g = to_float(dy[base + i64(c) * inner]);
        dx[base + i64(c) * inner] = from_float<TYPE>(LOG ? g - expf(v) * sum : v * (g - sum));
    }
}
