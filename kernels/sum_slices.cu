// Adds the partial results of a sliced convolution or matrix product, in slice order, and applies the epilogue.
//
//   out[row, channel] = epilogue(sum over s of partial[s, row, channel]),  partial dense, out with its own pitch
//   grid   any number of blocks (a grid-stride loop);  block  256 threads
//
// Constants: OUT (float, bf16); BIAS, ACTIVATION, EXTRA: see epilogue.cuh.
#include "epilogue.cuh"

KERNEL __launch_bounds__(256, 4)
sum_slices(const float* __restrict__ partial, const float* __restrict__ bias, const EXTRA_TYPE* extra, OUT* out, i64 count,
           int slices, int channels, int out_pitch) {
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        float sum = 0;
        for (int s = 0; s < slices; s++) sum += partial[s * count + i];
        const i64 row = i / channels;
        const int channel = int(i - row * channels);
        const i64 place = row * out_pitch + channel;
        out[place] = from_float<OUT>(epilogue(sum, bias, channel, extra, place));
    }
}
