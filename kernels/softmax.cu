// Softmax and its logarithm over the last axis, and their gradients.
//
// Versions
//   1  LANES neighbouring lanes share a row, several rows a warp when rows are short. Not yet measured.
//
//   softmax       y = e^(x - max) / sum e^(x - max)         with LOG: y = x - max - log sum e^(x - max)
//   softmax_grad  dx = y (dy - sum(y dy))                   with LOG: dx = dy - e^y sum(dy)
//   grid  a group of LANES lanes for each row;  block  256 threads
//
// Constants: TYPE (float, bf16); LOG (0, 1); LANES, a power of two up to 32, about the columns.
#include "reduce.cuh"

KERNEL __launch_bounds__(256, 4) softmax(int rows, int columns, const TYPE* __restrict__ x, TYPE* __restrict__ y) {
    const int row = int(global_thread() / LANES), lane = lane_id() % LANES;
    const i64 base = i64(row) * columns;
    const int end = row < rows ? columns : 0; // lanes without a row still meet the others in the shuffles
    float top = -INFINITY_FLOAT;
    for (int c = lane; c < end; c += LANES) top = fmaxf(top, to_float(x[base + c]));
    top = warp_max<LANES>(top);
    float sum = 0;
    for (int c = lane; c < end; c += LANES) sum += expf(to_float(x[base + c]) - top);
    sum = warp_sum<LANES>(sum);
    const float log_sum = LOG ? logf(sum) : 0.0f;
    for (int c = lane; c < end; c += LANES) {
        const float v = to_float(x[base + c]) - top;
        y[base + c] = from_float<TYPE>(LOG ? v - log_sum : expf(v) / sum);
    }
}

KERNEL __launch_bounds__(256, 4)
softmax_grad(int rows, int columns, const TYPE* __restrict__ y, const TYPE* __restrict__ dy, TYPE* __restrict__ dx) {
    const int row = int(global_thread() / LANES), lane = lane_id() % LANES;
    const i64 base = i64(row) * columns;
    const int end = row < rows ? columns : 0;
    float sum = 0;
    for (int c = lane; c < end; c += LANES) sum += (LOG ? 1.0f : to_float(y[base + c])) * to_float(dy[base + c]);
    sum = warp_sum<LANES>(sum);
    for (int c = lane; c < end; c += LANES) {
        const float v = to_float(y[base + c]), g = to_float(dy[base + c]);
        dx[base + c] = from_float<TYPE>(LOG ? g - expf(v) * sum : v * (g - sum));
    }
}
