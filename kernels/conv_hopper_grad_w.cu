// Gradient of a convolution by its weights on sm_90a: the implicit GEMM of conv_grad_w.cu, organised as conv_hopper.cu.
//
// Versions
//   1  as conv_hopper.cu version 1.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): pix2pix 256 in bf16: 0.18 ms for 12 launches at batch 1; at
//   batch 16 446 TFLOP/s over all 16.
//
// Maths: dw[k, (tap, c)] = sum over result pixels of dy[pixel, k] x[pixel at tap, c]. A step is 64 pixels; both operands lie
// across the summed index.
//   A  [64 pixels, ROWS]  of dy, in sub-tiles of 64 channels
//   B  [64 pixels, BN]    of x, in sub-tiles of 64 channels of one tap: im2col copies as in conv_hopper.cu
// Of 128 rows each consumer takes 64 and all columns, of 64 rows each takes all and half of the columns.
// The pixels are cut into slices; with more than one, `sum_slices` adds the partial results in order.
//
//   gridDim.x   as many blocks as fit; each takes tile blockIdx.x, blockIdx.x + gridDim.x, ...
//   block       384 threads;  shared memory: STAGES (ROWS + BN) 128 bytes and 16 (STAGES + 1) for the barriers
//
// Constants: ROWS (64, 128); BN (64, 128, 256; with 64 rows not 64); the others as in conv_hopper.cu, but no bias; PAIRS
// tells of dw. dw may be the second tensor itself, to which the gradient is added.
#include "epilogue.cuh"
#include "ring.cuh"

typedef Ring<STAGES, (ROWS + BN) * 2 * DEPTH> Buffers;
constexpr int SUB_TILES = BN / 64;
constexpr int OWN = ROWS == 128 ? SUB_TILES : SUB_TILES / 2; // of one consumer
static_assert(OWN > 0, "each consumer needs a sub-tile");

// 64 columns of the result: 64 channels, beginning with `channel`, of one tap.
struct Columns {
    int tap, channel;
};
DEVICE Columns columns(const Geometry& geometry, int number) {
    const int chunks = ceil_div(geometry.c, 64), tap = number / chunks;
    return {tap, (number - tap * chunks) * 64};
}
// Those behind them.
DEVICE Columns behind(const Geometry& geometry, Columns of) {
    const int channel = of.channel + 64;
    return channel < geometry.c ? Columns{of.tap, channel} : Columns{of.tap + 1, 0};
}

KERNEL __launch_bounds__(RING_THREADS, 1)
conv_hopper_grad_w(const ConvShape argument, BY_VALUE TensorMap x, BY_VALUE TensorMap dy, const EXTRA_TYPE* extra,
                   OUT* dw, float* __restrict__ partial, int slices) {
    USE_SHAPE(argument);
    SMEM_DYN(memory);
    Buffers ring = {memory};
    if (threadIdx.x == 0) ring.open();
    __syncthreads();

    const int taps = volume(geometry.kernel);
    const int row_tiles = ceil_div(geometry.k, ROWS);
    const int column_tiles = ceil_div(taps * ceil_div(geometry.c, 64), SUB_TILES);
    const int tiles = row_tiles * column_tiles * slices;
    const int steps = ceil_div(geometry.n * volume(geometry.output), DEPTH), each = ceil_div(steps, slices);
    const int group = uniform(warp_id() / 4) - 1; // -1 copies, 0 and 1 multiply

    if (group < 0) {
        registers_down_to<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            prefetch_map(&x);
            prefetch_map(&dy);
            for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
                const int column = tile % column_tiles * SUB_TILES, m0 = tile / column_tiles % row_tiles * ROWS;
                const int begin = min_of(tile / (column_tiles * row_tiles) * each, steps);
                const int end = min_of(begin + each, steps);
                const Columns first = columns(geometry, column);
                for (int step = begin; step < end; step++) {
                    const int pixel = step * DEPTH, image = quotient(pixel, volume(geometry.output), divide.positions);
                    const Triple p = position(pixel - image * volume(geometry.output), geometry.output[1],
                                              geometry.output[2], divide);
                    const Triple at = {p.d * geometry.stride[0] - geometry.padding[0],
                                       p.h * geometry.stride[1] - geometry.padding[1],
                                       p.w * geometry.stride[2] - geometry.padding[2]};
                    ring.reserve();
                    u64* const full = ring.full(ring.stage);
                    u8* const a = ring.tile();
#pragma unroll
                    for (int m = 0; m < ROWS; m += 64) tma_tiled2(a + m / 64 * SUB_TILE, &dy, full, m0 + m, pixel);
                    Columns next = first;
#pragma unroll
                    for (int s = 0; s < SUB_TILES; s++) {
                        Columns c = next;
                        if (c.tap >= taps) c = {0, ceil_div(geometry.c, 64) * 64}; // beyond the last: zeros
                        next = behind(geometry, next);
                        const Triple j = split3(c.tap, geometry.kernel[1], geometry.kernel[2]);
                        load_pixels(a + (ROWS / 64 + s) * SUB_TILE, &x, full, c.channel, image, at,
                                    {j.d * geometry.dilation[0], j.h * geometry.dilation[1], j.w * geometry.dilation[2]});
                    }
                    ring.next();
                }
            }
        }
        return;
    }

    registers_up_to<CONSUMER_REGISTERS>();
    const int g = lane_id() >> 2, first = 2 * (lane_id() & 3);
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
        // What of the tile is this consumer's.
        const int row = ROWS == 128 ? group : 0, from = ROWS == 128 ? 0 : group * OWN;
        const int column = tile % column_tiles * SUB_TILES + from;
        const int m0 = tile / column_tiles % row_tiles * ROWS + 64 * row;
        const int slice = tile / (column_tiles * row_tiles);
        const int begin = min_of(slice * each, steps), end = min_of(begin + each, steps);
        float sums[64 * OWN / 2];
        ring.multiply(sums, begin, end, [&](const u8* buffer, bool begins) {
            const u64 a = descriptor(buffer + row * SUB_TILE, 0);
            const u64 b = descriptor(buffer + (ROWS / 64 + from) * SUB_TILE, SUB_TILE);
#pragma unroll
            for (int k = 0; k < DEPTH / 16; k++)
                wgmma<true, true>(sums, further(a, 2048 * k), further(b, 2048 * k), !begins || k > 0);
        });

        const bool any = begin < end; // else no product has set the sums
        const Columns own = columns(geometry, column);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int m = m0 + 16 * (warp_id() & 3) + 8 * half + g;
            if (m >= geometry.k) continue;
            Columns next = own;
#pragma unroll
            for (int s = 0; s < OWN; s++) {
                const Columns of = next;
                next = behind(geometry, next);
                if (of.tap >= taps) continue;
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const int c = of.channel + 8 * j + first, i = 4 * (8 * s + j) + 2 * half;
                    if (!WHOLE && c >= geometry.c) continue;
                    const float u = any ? sums[i] : 0.0f, v = any ? sums[i + 1] : 0.0f;
                    const i64 at = (i64(m) * taps + of.tap) * geometry.c + c;
                    if (slices == 1) {
                        store_two(dw + at, epilogue(u, nullptr, 0, extra, at), epilogue(v, nullptr, 0, extra, at + 1));
                    } else {
                        const i64 results = i64(geometry.k) * taps * geometry.c;
                        *reinterpret_cast<Two<float>*>(partial + slice * results + at) = {u, v};
                    }
                }
            }
        }
    }
}
