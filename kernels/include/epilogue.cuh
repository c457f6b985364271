// What happens to a finished sum before it is stored: -DBIAS=1 adds bias[channel], -D'ACTIVATION(v)=...' follows, in which
// `x` is the element of a second tensor at the result's place if -DEXTRA=1 (a residual, a gate), of type EXTRA_TYPE.
// -DSTATS=1: the kernel also leaves mean and variance of what it stored for the norm that follows, by `tile_statistics` of
// moments.cuh.
#ifndef GAN_EPILOGUE_CUH
#define GAN_EPILOGUE_CUH

#include "math.cuh"

#ifndef BIAS
#define BIAS 0
#endif
#ifndef EXTRA
#define EXTRA 0
#endif
#ifndef EXTRA_TYPE
#define EXTRA_TYPE float
#endif
#ifndef STATS
#define STATS 0
#endif
#ifndef ACTIVATION
#define ACTIVATION(v) v
#endif

DEVICE float epilogue(float v, const float* bias, int channel, const EXTRA_TYPE* extra, i64 place) {
    if (BIAS) v += bias[channel];
    const float x = EXTRA ? to_float(extra[place]) : 0.0f;
    (void)x;
    return ACTIVATION(v);
}

#endif
