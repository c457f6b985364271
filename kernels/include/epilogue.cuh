// What happens to a finished sum before it is stored: -DBIAS=1 adds bias[channel], -D'ACTIVATION(v)=...' follows, in which
// `x` is the element of a second tensor at the result's place if -DEXTRA=1 (a residual, a gate), of type EXTRA_TYPE.
// -DSTATS=1: the kernel also leaves mean and variance of what it stored for the norm that follows, by `tile_statistics` of
// moments.cuh. -DSTATS=2: what it stored is the gradient by a norm's result, and it leaves the sums that the norm's gradient is
// made of, by `tile_sums`; the norm's input is of type NORMED.
#ifndef GAN_EPILOGUE_CUH
#define GAN_EPILOGUE_CUH

#include "moments.cuh"
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
#ifndef NORMED
#define NORMED float
#endif
#ifndef ACTIVATION
#define ACTIVATION(v) v
#endif

// What a tile leaves of each of its columns.
template <int Kind> struct PartialOf {
    typedef Moments Type;
};
template <> struct PartialOf<2> {
    typedef Pair Type;
};
typedef PartialOf<STATS>::Type Partial;

// The norm whose result the kernel's result is the gradient by (STATS=2): its input, [pixels, channels], and its statistics,
// [2, sets, channels]. Its channels are the result's from `first` on.
struct Normed {
    const NORMED* x;
    const float* stats;
    float eps;
    int first, channels;
};

// A kernel's parameters for it, which exist where it does.
#if STATS == 2
#define NORM_PARAMETERS \
    , const NORMED *__restrict__ normed, const float *__restrict__ norm_stats, float norm_eps, int norm_first, int norm_channels
#define NORM_ARGUMENT Normed{normed, norm_stats, norm_eps, norm_first, norm_channels}
#else
#define NORM_PARAMETERS
#define NORM_ARGUMENT Normed{}
#endif

// Counts elements of one column of the result, which belong to one set.
struct Counted {
    Shifted moments;
    Pair sums = {0, 0}, form = {0, 0};
    int channel, channels;

    DEVICE Counted(int of, int all, int set, int sets, const Normed& norm) : channel(of), channels(all) {
        if (STATS != 2) return;
        channel = of - norm.first;
        channels = norm.channels;
        if (inside(channel, channels)) form = standard(norm.stats, set * channels + channel, sets * channels, norm.eps);
    }

    DEVICE void add_element(float v, i64 pixel, const Normed& norm) {
        if (STATS == 1) moments.add(v);
        if (STATS == 2 && inside(channel, channels))
            sums = add(sums, gradient_of(v, to_float(norm.x[pixel * channels + channel]), form));
    }

    template <int Threads, int Lanes, class Team>
    DEVICE void finish(SetTile at, Partial* partial, u32* counter, float* to, Team& team) const {
        if constexpr (STATS == 2) {
            tile_sums<Threads, Lanes>(sums, channel, channels, at, partial, counter, to, team);
        } else {
            tile_statistics<Threads, Lanes>(moments.moments(), channel, channels, at, partial, counter, to, team);
        }
    }
};

DEVICE float epilogue(float v, const float* bias, int channel, const EXTRA_TYPE* extra, i64 place) {
    if (BIAS) v += bias[channel];
    const float x = EXTRA ? to_float(extra[place]) : 0.0f;
    (void)x;
    return ACTIVATION(v);
}

#endif
