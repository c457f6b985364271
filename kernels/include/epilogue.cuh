// What happens to a finished sum before it is stored: -DBIAS=1 adds bias[channel], -D'ACTIVATION(v)=...' follows.
#ifndef GAN_EPILOGUE_CUH
#define GAN_EPILOGUE_CUH

#include "math.cuh"

#ifndef BIAS
#define BIAS 0
#endif
#ifndef ACTIVATION
#define ACTIVATION(v) v
#endif

DEVICE float epilogue(float v, const float* bias, int channel) {
    if (BIAS) v += bias[channel];
    return ACTIVATION(v);
}

#endif
