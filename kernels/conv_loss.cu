// The last layer of a critic with its loss: what is left to do when the convolution's products are added up. A PatchGAN
// scores a few thousand patches, so one block does all of it, and loss and gradient cost no pass of their own.
//
// Versions
//   1  one block of 512 threads.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): 6 us a launch at batch 1 and 20 us at batch 16 of pix2pix 256.
//
//   v[i]          = ACTIVATION(sum over s of partial[s, i] + bias[i % channels])
//   gradient[i]   = GRADIENT(v[i]),  prediction[i] = v[i],  *loss = scale * sum over i of LOSS(v[i])
//   grid 1, block 512
//
// Constants: OUT, PREDICTION_TYPE (float, bf16): types of gradient and prediction; PREDICTION (0, 1): whether the latter is
// wanted; LOSS(v), GRADIENT(v): fp32 C++; BIAS, ACTIVATION: see epilogue.cuh.
#include "epilogue.cuh"
#include "reduce.cuh"

constexpr int THREADS = 512;

KERNEL __launch_bounds__(512, 1)
conv_loss(const float* __restrict__ partial, const float* __restrict__ bias, OUT* gradient, PREDICTION_TYPE* prediction,
          float* loss, int count, int slices, int channels, float scale) {
    SMEM(float, scratch, THREADS);
    float sum = 0;
    for (int i = int(threadIdx.x); i < count; i += THREADS) {
        float v = 0;
        for (int s = 0; s < slices; s++) v += partial[i64(s) * count + i];
        v = epilogue(v, bias, i % channels, nullptr, i);
        if (PREDICTION) prediction[i] = from_float<PREDICTION_TYPE>(v);
        gradient[i] = from_float<OUT>(GRADIENT(v));
        sum += LOSS(v);
    }
    sum = reduce_rows<THREADS, 1>(sum, scratch, [](float x, float y) { return x + y; });
    if (threadIdx.x == 0) *loss = scale * sum;
}
