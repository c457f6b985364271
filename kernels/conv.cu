// Convolution forward, and its gradient by the input (which is also the transposed convolution), as one implicit GEMM.
//
// Versions
//   1  shared-memory tiles, multi-stage asynchronous copies, swizzled ldmatrix, mma.sync; FMA path for older devices.
//   2  the last block of a tile adds its slices, where a launch of its own did; with STATS the statistics of the norm that
//      follows are taken here, where it read the whole result again.
//   3  taps that meet nothing but padding are left out, and thin tiles have more buffers in flight, for layers of a few pixels
//      that do little but read their weights.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): pix2pix 256 in bf16, batch 1: 0.63 ms for 29 launches, 0.35
//   TB/s; cuDNN takes about half for the inner layers.
//
// Maths, per group, with the tap and the source channel together as the summed index:
//   forward   y[pixel, k]  = sum over (tap, c) of x[pixel at tap, c] w[k, tap, c]
//   grad_x    dx[pixel, c] = sum over (tap, k) of dy[pixel at tap, k] w[k, tap, c], phase by phase (see conv.cuh)
// Matrix A gathers source pixels: a row of A is one result pixel, a column one (tap, channel). It exists only tile by
// tile in shared memory. Where a tap falls on padding the copy writes zeros.
//
//   blockIdx.x  tile of BM result pixels (of one phase)
//   blockIdx.y  tile of BN result channels, then group
//   blockIdx.z  slice of the sum, then phase (grad_x: the product of the strides; forward: 1)
//   block       32 WARPS_M WARPS_N threads;  shared memory: STAGES (BM + BN) BK elements
//
// Constants: GRAD_X (0, 1); MATH (MATH_FMA, MATH_TF32, MATH_BF16); OUT (float, bf16); BM, BN, BK; WARPS_M, WARPS_N;
// STAGES; MIN_BLOCKS: see warp_tile.cuh; VEC_A, VEC_B: elements copied at once (16 bytes' worth, 4 bytes' worth or 1):
// VEC_A divides the group's source channels and their pitch, VEC_B divides c / groups; BIAS, ACTIVATION, EXTRA: see
// epilogue.cuh; STATS (0, 1, 2), NORMED: see there (groups must be 1); GEOMETRY, WINDOW, WHOLE: see conv.cuh.
//
// With one slice the result goes to `out` through the epilogue. With more, slice s writes its raw fp32 sums to
// partial + s * (result elements). With `counters`, one for each tile, the tile's last block adds them in order and goes
// on as if there were one slice: the result never depends on timing. Without, they stay as they are.
//
// Statistics are of `sets` sets, 1 or the images; then a tile must not hold pixels of two. Their counters come behind those
// of the tiles, one for each set and column of tiles; `moments` is [sets, tiles of a set, channels], `stats` [2, sets, channels],
// the channels being the norm's where the sums of its gradient are wanted.
#include "conv.cuh"
#include "epilogue.cuh"
#include "warp_tile.cuh"

typedef MathOf<MATH>::Element In;
constexpr int THREADS = 32 * WARPS_M * WARPS_N;
static_assert(BK / VEC_A <= THREADS, "a thread keeps to one column of A");
constexpr Stored B_STORED = GRAD_X ? ACROSS_K : ALONG_K;
typedef OperandTile<MATH, ALONG_K, BM, BK>::Type ATile;
typedef OperandTile<MATH, B_STORED, BN, BK>::Type BTile;
typedef WarpTile<MATH, ALONG_K, B_STORED, BM / WARPS_M, BN / WARPS_N, BK> Sums;

// Where a row of A begins in the source, before the tap moves it; rows beyond the last pixel lie far outside.
struct alignas(16) RowOrigin {
    int image, d, h, w;
};

KERNEL __launch_bounds__(THREADS, MIN_BLOCKS)
conv(const ConvShape argument, const In* __restrict__ source, const In* __restrict__ weight,
     const float* __restrict__ bias, const EXTRA_TYPE* extra, OUT* out, float* partial, int slices, int source_pitch,
     int out_pitch, u32* counters, int sets, Partial* moments, float* stats NORM_PARAMETERS) {
    USE_SHAPE(argument);
    const int channels_in = (GRAD_X ? geometry.k : geometry.c) / geometry.groups;  // of the source, per group
    const int channels_out = (GRAD_X ? geometry.c : geometry.k) / geometry.groups; // of the result, per group
    const int weight_row = volume(geometry.kernel) * (geometry.c / geometry.groups);
    const int slice = int(blockIdx.z) % slices, phase = int(blockIdx.z) / slices;
    const int column_tiles = ceil_div(channels_out, BN);
    const int group = geometry.groups == 1 ? 0 : int(blockIdx.y) / column_tiles;
    const int m0 = int(blockIdx.x) * BM, n0 = (int(blockIdx.y) - group * column_tiles) * BN;

    Axis axis[3];
    const Triple p = split3(phase, geometry.stride[1], geometry.stride[2]);
    axis[0] = GRAD_X ? phase_axis(geometry, 0, p.d) : forward_axis(geometry, 0);
    axis[1] = GRAD_X ? phase_axis(geometry, 1, p.h) : forward_axis(geometry, 1);
    axis[2] = GRAD_X ? phase_axis(geometry, 2, p.w) : forward_axis(geometry, 2);
#ifndef WINDOW
#pragma unroll
    for (int a = 0; a < 3; a++) axis[a] = without_dead_taps(axis[a]);
#endif
    const bool every_tap = !GRAD_X && axis[0].taps * axis[1].taps * axis[2].taps == volume(geometry.kernel);

    const int image_positions = axis[0].positions * axis[1].positions * axis[2].positions;
    const int rows = geometry.n * image_positions;
    if (!STATS && m0 >= rows) return; // a phase with fewer pixels than the largest one

    // Decode the tile's rows once: where they read, and where they are stored.
    SMEM(RowOrigin, origins, BM);
    SMEM(int, destinations, BM);
    const int(&result)[3] = GRAD_X ? geometry.input : geometry.output;
    for (int r = int(threadIdx.x); r < BM; r += THREADS) {
        const int m = m0 + r, image = quotient(m, image_positions, divide.positions);
        const Triple q = position(m - image * image_positions, axis[1].positions, axis[2].positions, divide);
        RowOrigin origin = {image * axis[0].source, q.d * axis[0].scale + axis[0].origin,
                            q.h * axis[1].scale + axis[1].origin, q.w * axis[2].scale + axis[2].origin};
        int d = q.d * axis[0].out_scale + axis[0].out_origin;
        int h = q.h * axis[1].out_scale + axis[1].out_origin;
        int w = q.w * axis[2].out_scale + axis[2].out_origin;
        if (m >= rows) origin = {0, -(1 << 30), 0, 0};
        origins[r] = origin;
        destinations[r] = m < rows ? ((image * result[0] + d) * result[1] + h) * result[2] + w : -1;
    }
    __syncthreads();

    SMEM_DYN(memory);
    auto a_tile = [&](int stage) { return ATile{memory + stage * ATile::BYTES}; };
    auto b_tile = [&](int stage) { return BTile{memory + STAGES * ATile::BYTES + stage * BTile::BYTES}; };

    const int depth = axis[0].taps * axis[1].taps * axis[2].taps * channels_in;
    const int steps = ceil_div(depth, BK), steps_a_slice = ceil_div(steps, slices);
    const int begin = min_of(slice * steps_a_slice, steps), end = min_of(begin + steps_a_slice, steps);

    // The kernel tap, flattened, that the phase's tap number stands for.
    auto kernel_tap = [&](Triple j) {
        return ((axis[0].first_tap + j.d * axis[0].tap_step) * geometry.kernel[1] + axis[1].first_tap +
                j.h * axis[1].tap_step) *
                   geometry.kernel[2] +
               axis[2].first_tap + j.w * axis[2].tap_step;
    };

    auto load = [&](int step, int stage) {
        {
            const int k = step * BK + int(threadIdx.x) % (BK / VEC_A) * VEC_A; // this thread's column of A
            const int tap = quotient(k, channels_in, divide.channels);
            const int channel = k - tap * channels_in + group * channels_in;
            const Triple j = split3(tap, axis[1].taps, axis[2].taps);
            fill_tile<THREADS, VEC_A>(a_tile(stage), [&](int row, int, In* slot) {
                const RowOrigin o = origins[row];
                const int d = o.d + j.d * axis[0].step, h = o.h + j.h * axis[1].step, w = o.w + j.w * axis[2].step;
                const bool valid = k < depth && inside(d, axis[0].source) && inside(h, axis[1].source) &&
                                   inside(w, axis[2].source);
                const i64 pixel = valid ? (i64(o.image + d) * axis[1].source + h) * axis[2].source + w : 0;
                copy_to_tile<VEC_A>(slot, source + (valid ? pixel * source_pitch + channel : 0), valid);
            });
        }
        fill_tile<THREADS, VEC_B>(b_tile(stage), [&](int row, int column, In* slot) {
            const int n = n0 + (GRAD_X ? column : row), k = step * BK + (GRAD_X ? row : column);
            const bool valid = (WHOLE || n < channels_out) && k < depth;
            i64 at = 0;
            if (valid && every_tap) {
                at = i64(group * channels_out + n) * weight_row + k;
            } else if (valid) {
                const int of = quotient(k, channels_in, divide.channels), channel = k - of * channels_in;
                const int tap = kernel_tap(split3(of, axis[1].taps, axis[2].taps));
                at = GRAD_X ? i64(group * channels_in + channel) * weight_row + tap * channels_out + n
                            : i64(group * channels_out + n) * weight_row + tap * channels_in + channel;
            }
            copy_to_tile<VEC_B>(slot, weight + at, valid);
        });
    };

    const int warp_m = warp_id() / WARPS_N * (BM / WARPS_M), warp_n = warp_id() % WARPS_N * (BN / WARPS_N);
    Sums sums;
    sums.zero();
    pipeline<STAGES>(begin, end, load, [&](int stage) { sums.multiply(a_tile(stage), b_tile(stage), warp_m, warp_n); });

    const int all_channels = channels_out * geometry.groups;
    const i64 results = i64(geometry.n) * volume(result) * all_channels;
    sums.each([&](int row, int column, float v) {
        const int pixel = destinations[warp_m + row], n = n0 + warp_n + column;
        if (pixel < 0 || (!WHOLE && n >= channels_out)) return;
        const int channel = group * channels_out + n;
        if (slices == 1) {
            const i64 place = i64(pixel) * out_pitch + channel;
            out[place] = from_float<OUT>(epilogue(v, bias, channel, extra, place));
        } else {
            partial[slice * results + i64(pixel) * all_channels + channel] = v;
        }
    });
    if (slices == 1 && !STATS) return;
    const int tile = (phase * int(gridDim.y) + int(blockIdx.y)) * int(gridDim.x) + int(blockIdx.x);
    if (slices > 1 && (!counters || !last_block(counters + tile, slices))) return;

    // Once more over the tile, a thread along one column: neighbouring threads on neighbouring channels.
    static_assert(THREADS % BN == 0, "a thread keeps to one column");
    const int n = n0 + int(threadIdx.x) % BN, channel = group * channels_out + n;
    const int phases = int(gridDim.z) / slices, set_tiles = int(gridDim.x) / sets, set = int(blockIdx.x) / set_tiles;
    const Normed norm = NORM_ARGUMENT;
    Counted counted(channel, all_channels, set, sets, norm);
    if (slices == 1) __syncthreads(); // others stored what this thread looks at
    constexpr int STEP = THREADS / BN, FEW = 8;
    // What threads beyond the end read: of this tile too, for nobody writes that any more.
    const i64 own = i64(max_of(destinations[0], 0)) * all_channels + group * channels_out + n0;
    for (int first = int(threadIdx.x) / BN; first < BM; first += FEW * STEP) {
        int pixels[FEW];
        float v[FEW];
        const float* from[FEW];
#pragma unroll
        for (int i = 0; i < FEW; i++) {
            const int r = first + i * STEP;
            pixels[i] = r < BM && (WHOLE || n < channels_out) ? destinations[r] : -1;
            from[i] = partial + (pixels[i] < 0 ? own : i64(pixels[i]) * all_channels + channel);
        }
        if (slices > 1 && destinations[0] >= 0) add_slices(v, from, results, slices);
#pragma unroll
        for (int i = 0; i < FEW; i++) {
            if (pixels[i] < 0) continue;
            const i64 place = i64(pixels[i]) * out_pitch + channel;
            if (slices > 1) out[place] = from_float<OUT>(epilogue(v[i], bias, channel, extra, place));
            if (STATS) counted.add_element(to_float(out[place]), pixels[i], norm);
        }
    }
    if (STATS) {
        const int first = int(gridDim.x * gridDim.y) * phases; // of the sets' counters
        const SetTile at = {set, sets, phase * set_tiles + int(blockIdx.x) % set_tiles, phases * set_tiles};
        WholeBlock block;
        counted.finish<THREADS, BN>(at, moments, counters + first + set * column_tiles + int(blockIdx.y), stats, block);
    }
}
