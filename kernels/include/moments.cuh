// Mean and variance, and how a kernel that computes a tensor leaves the statistics of its channels for the norm that follows,
// or, if the tensor is the gradient by a norm's result, the sums that the norm's gradient is made of.
//
// A block that has stored a tile of the result looks at it once more, thread t at elements of the tile's column t % Lanes,
// counts them into `Shifted` or a `Pair`, and ends with `tile_statistics` or `tile_sums`. The last tile of a set's column of
// tiles joins all of them, in order, and writes mean and biased variance, or the two sums.
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

// One tile of a set's column of tiles.
struct SetTile {
    int set, sets; // which of how many
    int tile, tiles;
};

// Adds one tile to the statistics of its set: `own` is of this thread's column, whose channel is `channel`, or none if that is
// not one of `channels`. `partial` holds [sets, tiles, channels], `counter` counts this set's tiles of these columns, and
// `stats` is [2, sets, channels]: means, then biased variances. All threads of a team come together.
template <int Threads, int Lanes, class Team>
DEVICE void tile_statistics(Moments own, int channel, int channels, SetTile at, Moments* partial, u32* counter, float* stats,
                            Team& team) {
    SMEM(Moments, scratch, Threads);
    SMEM(float, sums, Threads);
    const int row = team.thread() / Lanes, lane = team.thread() % Lanes, tiles = at.tiles;
    const bool valid = inside(channel, channels);
    own = reduce_rows<Threads, Lanes>(own, scratch, join, team);
    partial += i64(at.set) * tiles * channels + channel;
    if (row == 0 && valid) partial[i64(at.tile) * channels] = own;
    if (!last_block(counter, tiles, team)) return;

    // The mean first: then the deviations need no division.
    const auto plus = [](float a, float b) { return a + b; };
    float count = 0, sum = 0, deviations = 0;
    for (int t = row; valid && t < tiles; t += Threads / Lanes) {
        const Moments m = partial[i64(t) * channels];
        count += m.count;
        sum += m.count * m.mean;
    }
    count = reduce_rows<Threads, Lanes>(count, sums, plus, team);
    if (row == 0) scratch[lane].count = count;
    team.sync();
    sum = reduce_rows<Threads, Lanes>(sum, sums, plus, team);
    if (row == 0) scratch[lane].mean = sum / count;
    team.sync();
    const float mean = scratch[lane].mean;
    for (int t = row; valid && t < tiles; t += Threads / Lanes) {
        const Moments m = partial[i64(t) * channels];
        const float delta = m.mean - mean;
        if (m.count > 0) deviations += m.deviations + m.count * delta * delta;
    }
    deviations = reduce_rows<Threads, Lanes>(deviations, sums, plus, team);
    if (row > 0 || !valid) return;
    stats[i64(at.set) * channels + channel] = mean;
    stats[i64(at.sets + at.set) * channels + channel] = deviations / scratch[lane].count;
}

// ---- the sums that the gradient of a norm is made of ---------------------------------------------------------------------

struct Pair {
    float first, second;
};

DEVICE Pair add(Pair a, Pair b) { return {a.first + b.first, a.second + b.second}; }

// Mean and 1 / sqrt(variance + eps) of set `set` of the norm's forward statistics, [2, sets].
DEVICE Pair standard(const float* __restrict__ stats, int set, int sets, float eps) {
    return {stats[set], 1.0f / sqrtf(stats[sets + set] + eps)};
}

// What an element adds: {dy hat, dy}, hat being x in its set's standard form.
DEVICE Pair gradient_of(float dy, float x, Pair standard) { return {dy * ((x - standard.first) * standard.second), dy}; }

// As `tile_statistics`, with sums: `sums` is [2, sets, channels].
template <int Threads, int Lanes, class Team>
DEVICE void tile_sums(Pair own, int channel, int channels, SetTile at, Pair* partial, u32* counter, float* sums, Team& team) {
    SMEM(Pair, scratch, Threads);
    const int row = team.thread() / Lanes;
    const bool valid = inside(channel, channels);
    own = reduce_rows<Threads, Lanes>(own, scratch, add, team);
    if (at.tiles > 1) {
        partial += i64(at.set) * at.tiles * channels + channel;
        if (row == 0 && valid) partial[i64(at.tile) * channels] = own;
        if (!last_block(counter, at.tiles, team)) return;
        own = {0, 0};
        for (int t = row; valid && t < at.tiles; t += Threads / Lanes) own = add(own, partial[i64(t) * channels]);
        own = reduce_rows<Threads, Lanes>(own, scratch, add, team);
    }
    if (row > 0 || !valid) return;
    sums[i64(at.set) * channels + channel] = own.first;
    sums[i64(at.sets + at.set) * channels + channel] = own.second;
}

#endif
