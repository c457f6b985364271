// Mean and variance, and how a kernel that computes a tensor leaves the statistics of its channels for the norm that follows.
//
// A block that has stored a tile of the result looks at it once more, thread t at elements of the tile's column t % Lanes,
// counts them into `Shifted`, and ends with `tile_statistics`. The last tile of a set's column of tiles joins all of
// them, in order, and writes mean and biased variance.
#ifndef GAN_MOMENTS_CUH
#define GAN_MOMENTS_CUH

#include "last_block.cuh"
#include "reduce.cuh"

// Mean and sum of squared deviations of `count` numbers (Welford; Chan's formula joins two).
struct Moments {
    float count, mean, deviations;
};

DEVICE Moments join(Moments a, Moments b) {
    const float count = a.count + b.count;
    if (count == 0) return a;
    const float share = b.count / count, delta = b.mean - a.mean;
    return {count, a.mean + delta * share, a.deviations + b.deviations + delta * delta * a.count * share};
}

// A few numbers, counted from the first of them: that one is near their mean, so that no digits are lost, and there is no
// division until the end.
struct Shifted {
    float count = 0, first = 0, sum = 0, squares = 0;

    DEVICE void add(float v) {
        if (count == 0) first = v;
        const float off = v - first;
        count += 1;
        sum += off;
        squares += off * off;
    }

    DEVICE Moments moments() const {
        if (count == 0) return {0, 0, 0};
        const float mean = sum / count;
        return {count, first + mean, fmaxf(squares - sum * mean, 0.0f)};
    }
};

// Adds one tile to the statistics of its set: `own` is of this thread's column, whose channel is `channel`, or none if that is
// beyond `channels`. `partial` holds [sets, tiles, channels], `counter` counts this set's tiles of these columns, and
// `stats` is [2, sets, channels]: means, then biased variances. All threads of a block come together.
template <int Threads, int Lanes>
DEVICE void tile_statistics(Moments own, int channel, int channels, int tile, int tiles, int set, int sets,
                            Moments* partial, u32* counter, float* stats) {
    SMEM(Moments, scratch, Threads);
    SMEM(float, sums, Threads);
    const int row = int(threadIdx.x) / Lanes, lane = int(threadIdx.x) % Lanes;
    const bool valid = channel < channels;
    own = reduce_rows<Threads, Lanes>(own, scratch, join);
    partial += i64(set) * tiles * channels + channel;
    if (row == 0 && valid) partial[i64(tile) * channels] = own;
    if (!last_block(counter, tiles)) return;

    // The mean first: then the deviations need no division.
    const auto plus = [](float a, float b) { return a + b; };
    float count = 0, sum = 0, deviations = 0;
    for (int t = row; valid && t < tiles; t += Threads / Lanes) {
        const Moments m = partial[i64(t) * channels];
        count += m.count;
        sum += m.count * m.mean;
    }
    count = reduce_rows<Threads, Lanes>(count, sums, plus);
    if (row == 0) scratch[lane].count = count;
    __syncthreads();
    sum = reduce_rows<Threads, Lanes>(sum, sums, plus);
    if (row == 0) scratch[lane].mean = sum / count;
    __syncthreads();
    const float mean = scratch[lane].mean;
    for (int t = row; valid && t < tiles; t += Threads / Lanes) {
        const Moments m = partial[i64(t) * channels];
        const float delta = m.mean - mean;
        if (m.count > 0) deviations += m.deviations + m.count * delta * delta;
    }
    deviations = reduce_rows<Threads, Lanes>(deviations, sums, plus);
    if (row > 0 || !valid) return;
    stats[i64(set) * channels + channel] = mean;
    stats[i64(sets + set) * channels + channel] = deviations / scratch[lane].count;
}

#endif
