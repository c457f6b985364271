// Gradient of a convolution by its weights, as an implicit GEMM over pixels.
//
// Versions
//   1  as conv.cu version 1, with both operands stored across the summed index.
//   2  the last block of a tile adds its slices, and a second tensor (another product's gradient by the same weights), where
//      launches of their own did.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): pix2pix 256 in bf16, batch 1: 0.37 ms for 14 launches, 0.5 TB/s
//   where the bytes of the weights are the floor.
//
// Maths, per group: dw[k, (tap, c)] = sum over result pixels of dy[pixel, k] x[pixel at tap, c].
// The sum is long (n od oh ow) and the result small, so the pixels are cut into slices to fill the device.
//
//   blockIdx.x  tile of BN (tap, c) columns
//   blockIdx.y  tile of BM output channels, then group
//   blockIdx.z  slice of the pixels
//   block       32 WARPS_M WARPS_N threads;  shared memory: STAGES (BM + BN) BK elements
//
// Constants as in conv.cu, but VEC_A divides k / groups and the pitch of dy, VEC_B divides c / groups and the pitch of
// x; EXTRA, EXTRA_TYPE, ACTIVATION: see epilogue.cuh. Slices work as in conv.cu: the last block of a tile adds them in order.
#include "conv.cuh"
#include "epilogue.cuh"
#include "last_block.cuh"
#include "warp_tile.cuh"

typedef MathOf<MATH>::Element In;
constexpr int THREADS = 32 * WARPS_M * WARPS_N;
static_assert(BN / VEC_B <= THREADS, "a thread keeps to one column of B");
typedef OperandTile<MATH, ACROSS_K, BM, BK>::Type ATile;
typedef OperandTile<MATH, ACROSS_K, BN, BK>::Type BTile;
typedef WarpTile<MATH, ACROSS_K, ACROSS_K, BM / WARPS_M, BN / WARPS_N, BK> Sums;

KERNEL __launch_bounds__(THREADS, MIN_BLOCKS)
conv_grad_w(const ConvShape argument, const In* __restrict__ x, const In* __restrict__ dy, const EXTRA_TYPE* extra,
            OUT* dw, float* partial, int slices, int x_pitch, int dy_pitch, u32* counters) {
    USE_SHAPE(argument);
    const int group_c = geometry.c / geometry.groups, group_k = geometry.k / geometry.groups;
    const int row_tiles = ceil_div(group_k, BM), slice = int(blockIdx.z);
    const int group = geometry.groups == 1 ? 0 : int(blockIdx.y) / row_tiles;
    const int m0 = (int(blockIdx.y) - group * row_tiles) * BM, n0 = int(blockIdx.x) * BN;
    const int columns = volume(geometry.kernel) * group_c;
    const int image_pixels = volume(geometry.output), pixels = geometry.n * image_pixels;
    const int steps = ceil_div(pixels, BK), steps_a_slice = ceil_div(steps, slices);
    const int begin = min_of(slice * steps_a_slice, steps), end = min_of(begin + steps_a_slice, steps);

    SMEM_DYN(memory);
    auto a_tile = [&](int stage) { return ATile{memory + stage * ATile::BYTES}; };
    auto b_tile = [&](int stage) { return BTile{memory + STAGES * ATile::BYTES + stage * BTile::BYTES}; };

    // This thread's column of B: one tap and channel for the whole kernel.
    const int column = n0 + int(threadIdx.x) % (BN / VEC_B) * VEC_B;
    const int of = quotient(column, group_c, divide.channels);
    const Triple tap = split3(of, geometry.kernel[1], geometry.kernel[2]);
    const int shift_d = tap.d * geometry.dilation[0] - geometry.padding[0];
    const int shift_h = tap.h * geometry.dilation[1] - geometry.padding[1];
    const int shift_w = tap.w * geometry.dilation[2] - geometry.padding[2];
    const int channel = group * group_c + column - of * group_c;

    auto load = [&](int step, int stage) {
        fill_tile<THREADS, VEC_A>(a_tile(stage), [&](int row, int m, In* slot) {
            const int pixel = step * BK + row;
            const bool valid = pixel < pixels && m0 + m < group_k;
            copy_to_tile<VEC_A>(slot, dy + (valid ? i64(pixel) * dy_pitch + group * group_k + m0 + m : 0), valid);
        });
        fill_tile<THREADS, VEC_B>(b_tile(stage), [&](int row, int, In* slot) {
            const int pixel = step * BK + row;
            const int image = quotient(pixel, image_pixels, divide.positions);
            const Triple o = position(pixel - image * image_pixels, geometry.output[1], geometry.output[2], divide);
            const int d = o.d * geometry.stride[0] + shift_d, h = o.h * geometry.stride[1] + shift_h;
            const int w = o.w * geometry.stride[2] + shift_w;
            const bool valid = pixel < pixels && (WHOLE || column < columns) && inside(d, geometry.input[0]) &&
                               inside(h, geometry.input[1]) && inside(w, geometry.input[2]);
            const i64 plane = image * geometry.input[0] + d;
            const i64 at = (plane * geometry.input[1] + h) * geometry.input[2] + w;
            copy_to_tile<VEC_B>(slot, x + (valid ? at * x_pitch + channel : 0), valid);
        });
    };

    const int warp_m = warp_id() / WARPS_N * (BM / WARPS_M), warp_n = warp_id() % WARPS_N * (BN / WARPS_N);
    Sums sums;
    sums.zero();
    pipeline<STAGES>(begin, end, load, [&](int stage) { sums.multiply(a_tile(stage), b_tile(stage), warp_m, warp_n); });

    sums.each([&](int row, int c, float v) {
        const int m = m0 + warp_m + row, n = n0 + warp_n + c;
        if (m >= group_k || (!WHOLE && n >= columns)) return;
        const i64 at = i64(group * group_k + m) * columns + n;
        if (slices == 1) {
            dw[at] = from_float<OUT>(epilogue(v, nullptr, 0, extra, at));
        } else {
            partial[i64(slice) * geometry.k * columns + at] = v;
        }
    });
    if (slices == 1 || !last_block(counters + int(blockIdx.y * gridDim.x + blockIdx.x), slices)) return;
    constexpr int FEW = 8;
    const i64 own = i64(group * group_k + m0) * columns + n0; // what threads beyond the end read: nobody writes it any more
    for (int first = int(threadIdx.x); first < BM * BN; first += FEW * THREADS) {
        i64 at[FEW];
        float v[FEW];
        const float* from[FEW];
#pragma unroll
        for (int i = 0; i < FEW; i++) {
            const int e = first + i * THREADS, m = m0 + e / BN, n = n0 + e % BN;
            const bool valid = e < BM * BN && m < group_k && (WHOLE || n < columns);
            at[i] = valid ? i64(group * group_k + m) * columns + n : -1;
            from[i] = partial + (valid ? at[i] : own);
        }
        add_slices(v, from, i64(geometry.k) * columns, slices);
#pragma unroll
        for (int i = 0; i < FEW; i++)
            if (at[i] >= 0) dw[at[i]] = from_float<OUT>(epilogue(v[i], nullptr, 0, extra, at[i]));
    }
}
