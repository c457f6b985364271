// Normalisation: statistics over sets of elements, their use, and the gradient. One formulation serves all kinds:
//
//   x is seen as [outer, inner, channels], a set is one outer index and one block of `group` neighbouring channels:
//     batch norm     outer 1, inner n pixels, group 1
//     instance norm  outer n, inner pixels,   group 1
//     group norm     outer n, inner pixels,   group c / groups
//     layer norm     outer n, inner pixels,   group c   (or outer = rows, inner 1)
//
// Versions
//   1  two passes over x: partial statistics per slice of the inner index, combined in order; then the map.
//   2  the gradient's sums are taken once, for dx as for dgamma and dbeta; a single slice of single channels needs no
//      second launch.
//   3  the last slice of single channels' statistics, and of the gradient's sums, joins them all, where a second launch did.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): pix2pix 256 in bf16, batch 16: norm_grad_apply 0.60 TB/s; U-Net
//   240, batch 32: 7.3 ms for 18 launches where 2 would do.
//
// Forward    mean = average of the set, rstd = 1 / sqrt(variance + eps), hat = (x - mean) rstd,
//            y = ACTIVATION(hat gamma[c] + beta[c])
// Gradient   dx = rstd (gamma dy - average(gamma dy) - hat average(gamma dy hat)),
//            dgamma = sum(dy hat), dbeta = sum(dy); averages over the set, sums over outer and inner
//
// Statistics are [2, sets]: the means, then the biased variances. The gradient's sums are [2, outer, channels]: of dy hat
// over the inner index, then of dy. Averages over sets of several channels are {of gamma dy, of gamma dy hat} pairs.
//
//   norm_stats, norm_grad_sums    grid (outer, channels / LANES, slices), because only x counts beyond 65535; block 256;
//                                 a counter for each slice's tile
//   norm_finish, norm_averages, norm_join    grid: a warp for each set; block 256
//   norm_apply, norm_grad_apply   any grid (grid-stride loops); block 256
//
// A group norm behind whatever takes statistics of channels (a convolution) is that of single channels with the statistics that
// norm_join makes of theirs: every channel has its group's. Then averages are of `copies` such sets each, which all get them.
//
// Constants: IN, OUT: types of x (and dx) and y (and dy); LANES, a power of two up to 32, about the channels;
// dy may be a slice of the channels of a wider tensor, of dy_pitch channels. Without scale and shift `gamma` is null. ACTIVATION:
// see epilogue.cuh.
// Partial results are [slices, outer, channels]; slices share the inner index evenly.
#include "epilogue.cuh"
#include "moments.cuh"

constexpr int ROWS = 256 / LANES;

struct Shape {
    int outer, inner, channels, group;
};

DEVICE int slice_length(int inner, int slices) { return ceil_div(inner, slices); }

// With `stats` sets are single channels, and their statistics are finished here; without, partial results are left.
KERNEL __launch_bounds__(256, 4)
norm_stats(const Shape shape, int slices, const IN* __restrict__ x, Moments* partial, float* stats, u32* counters) {
    SMEM(Moments, scratch, 256);
    const int c = int(blockIdx.y) * LANES + int(threadIdx.x) % LANES, row = int(threadIdx.x) / LANES;
    const int length = slice_length(shape.inner, slices), begin = int(blockIdx.z) * length;
    const int end = min_of(begin + length, shape.inner);
    Moments m = {0, 0, 0};
    if (c < shape.channels) {
        for (int i = begin + row; i < end; i += ROWS) {
            const float v = to_float(x[(i64(blockIdx.x) * shape.inner + i) * shape.channels + c]);
            m.count += 1;
            const float delta = v - m.mean;
            m.mean += delta / m.count;
            m.deviations += delta * (v - m.mean);
        }
    }
    if (stats) {
        u32* const counter = counters + blockIdx.y * gridDim.x + blockIdx.x;
        const SetTile at = {int(blockIdx.x), shape.outer, int(blockIdx.z), slices};
        WholeBlock block;
        tile_statistics<256, LANES>(m, c, shape.channels, at, partial, counter, stats, block);
        return;
    }
    m = reduce_rows<256, LANES>(m, scratch, join);
    if (row == 0 && c < shape.channels) partial[(i64(blockIdx.z) * shape.outer + blockIdx.x) * shape.channels + c] = m;
}

DEVICE Moments shuffle_xor(Moments m, int mask) {
    return {shuffle_xor(m.count, mask), shuffle_xor(m.mean, mask), shuffle_xor(m.deviations, mask)};
}

KERNEL __launch_bounds__(256, 4)
norm_finish(const Shape shape, int slices, const Moments* __restrict__ partial, float* stats) {
    const int blocks = shape.channels / shape.group, sets = shape.outer * blocks;
    const int set = int(global_thread() / 32);
    if (set >= sets) return;
    const int outer = set / blocks, c0 = set % blocks * shape.group;
    Moments m = {0, 0, 0};
    for (int i = lane_id(); i < slices * shape.group; i += 32) {
        const int slice = i / shape.group, c = c0 + i % shape.group;
        m = join(m, partial[(i64(slice) * shape.outer + outer) * shape.channels + c]);
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) m = join(m, shuffle_xor(m, mask));
    if (lane_id() == 0) {
        stats[set] = m.mean;
        stats[sets + set] = m.deviations / m.count;
    }
}

DEVICE Pair standard(const Shape& s, const float* __restrict__ stats, int set, float eps) {
    return standard(stats, set, s.outer * (s.channels / s.group), eps);
}

// The set and channel of element i.
struct Place {
    int set, channel;
};
DEVICE Place place_of(const Shape& s, i64 i) {
    const int c = int(i % s.channels), outer = int(i / s.channels / s.inner);
    return {outer * (s.channels / s.group) + c / s.group, c};
}

KERNEL __launch_bounds__(256, 4)
norm_apply(const Shape shape, float eps, const IN* __restrict__ x, const float* __restrict__ stats,
           const float* __restrict__ gamma, const float* __restrict__ beta, OUT* __restrict__ y) {
    const i64 count = i64(shape.outer) * shape.inner * shape.channels;
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        const Place p = place_of(shape, i);
        const Pair s = standard(shape, stats, p.set, eps);
        float v = (to_float(x[i]) - s.first) * s.second;
        if (gamma) v = v * gamma[p.channel] + beta[p.channel];
        y[i] = from_float<OUT>(ACTIVATION(v));
    }
}

// {sum of dy hat, sum of dy} over the inner index; each slice's is partial.
KERNEL __launch_bounds__(256, 4)
norm_grad_sums(const Shape shape, int slices, float eps, const IN* __restrict__ x, const OUT* __restrict__ dy, int dy_pitch,
               const float* __restrict__ stats, Pair* partial, float* sums, u32* counters) {
    const int c = int(blockIdx.y) * LANES + int(threadIdx.x) % LANES, row = int(threadIdx.x) / LANES;
    const int length = slice_length(shape.inner, slices), begin = int(blockIdx.z) * length;
    const int end = min_of(begin + length, shape.inner);
    Pair sum = {0, 0};
    if (c < shape.channels) {
        const int set = int(blockIdx.x) * (shape.channels / shape.group) + c / shape.group;
        const Pair s = standard(shape, stats, set, eps);
        for (int i = begin + row; i < end; i += ROWS) {
            const i64 pixel = i64(blockIdx.x) * shape.inner + i;
            sum = add(sum, gradient_of(to_float(dy[pixel * dy_pitch + c]), to_float(x[pixel * shape.channels + c]), s));
        }
    }
    const SetTile at = {int(blockIdx.x), shape.outer, int(blockIdx.z), slices};
    WholeBlock block;
    tile_sums<256, LANES>(sum, c, shape.channels, at, partial, counters + blockIdx.y * gridDim.x + blockIdx.x, sums, block);
}

// The statistics of groups, [2, outer, channels], from those of channels: all are of equally many elements.
KERNEL __launch_bounds__(256, 4) norm_join(const Shape shape, const float* __restrict__ stats, float* joined) {
    const int blocks = shape.channels / shape.group, set = int(global_thread() / 32), places = shape.outer * shape.channels;
    if (set >= shape.outer * blocks) return;
    const int first = set * shape.group;
    float sum = 0, deviations = 0;
    for (int c = lane_id(); c < shape.group; c += 32) sum += stats[first + c];
    const float mean = warp_sum<32>(sum) / float(shape.group);
    for (int c = lane_id(); c < shape.group; c += 32) deviations += stats[places + first + c] + square(stats[first + c] - mean);
    const float variance = warp_sum<32>(deviations) / float(shape.group);
    for (int c = lane_id(); c < shape.group; c += 32) {
        joined[first + c] = mean;
        joined[places + first + c] = variance;
    }
}

// averages[set] = {average of gamma dy, average of gamma dy hat}, `copies` times.
KERNEL __launch_bounds__(256, 4)
norm_averages(const Shape shape, int copies, const float* __restrict__ sums, const float* __restrict__ gamma, Pair* averages) {
    const int blocks = shape.channels / shape.group, set = int(global_thread() / 32);
    if (set >= shape.outer * blocks) return;
    const int outer = set / blocks, c0 = set % blocks * shape.group;
    const i64 places = i64(shape.outer) * shape.channels;
    Pair sum = {0, 0};
    for (int c = c0 + lane_id(); c < c0 + shape.group; c += 32) {
        const i64 place = i64(outer) * shape.channels + c;
        const float weight = gamma ? gamma[c] : 1.0f;
        sum = add(sum, {weight * sums[places + place], weight * sums[place]});
    }
    const float count = float(shape.inner) * float(shape.group);
    sum = {warp_sum<32>(sum.first), warp_sum<32>(sum.second)};
    for (int i = lane_id(); i < copies; i += 32) averages[set * copies + i] = {sum.first / count, sum.second / count};
}

// Without `averages` every set is one channel, and `sums` has them.
KERNEL __launch_bounds__(256, 4)
norm_grad_apply(const Shape shape, float eps, const IN* __restrict__ x, const OUT* __restrict__ dy, int dy_pitch,
                const float* __restrict__ stats, const float* __restrict__ sums, const Pair* __restrict__ averages,
                const float* __restrict__ gamma, IN* __restrict__ dx) {
    const i64 count = i64(shape.outer) * shape.inner * shape.channels;
    const int places = shape.outer * shape.channels;
    for (i64 i = global_thread(); i < count; i += global_threads()) {
        const Place p = place_of(shape, i);
        const Pair s = standard(shape, stats, p.set, eps);
        const float weight = gamma ? gamma[p.channel] : 1.0f, share = weight / float(shape.inner);
        const Pair mean = averages ? averages[p.set] : Pair{share * sums[places + p.set], share * sums[p.set]};
        const float hat = (to_float(x[i]) - s.first) * s.second;
        const float g = to_float(dy[i / shape.channels * dy_pitch + p.channel]) * weight;
        dx[i] = from_float<IN>(s.second * (g - mean.first - hat * mean.second));
    }
}
