// Convolution forward, and its gradient by the input, on sm_90a: the implicit GEMM of conv.cu with the operands copied by
// TMA and multiplied by whole warpgroups straight from shared memory.
//
// Versions
//   1  one producer thread, two consumer warpgroups of 64 rows, a ring of STAGES buffers, blocks that stay and take tile
//      after tile; the producer runs into the next tile while the consumers store.
//   2  with STATS the consumers leave what a norm wants to know of the result, as in conv.cu, where a pass read all of it
//      again.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): with statistics two to four times further from the floor than
//   without, because the tile is read again from memory while both multiplying groups wait.
//
// Maths, phases and slices as in conv.cu. A row of A is one result pixel; a step is one tap and 64 channels of the source.
//   A  [128 pixels, 64]  im2col copy: the engine walks the result's pixels over the source, shifted by the tap, and writes
//                        zeros for padding, for channels beyond the last, and for pixels beyond the last image
//   B  forward  [BN, 64] of w[k, tap, c], along the summed index;  grad_x  [64, BN] of the same, across it
//
//   gridDim.x   as many blocks as fit; each takes tile blockIdx.x, blockIdx.x + gridDim.x, ...
//   block       384 threads;  shared memory: STAGES (128 + BN) 128 bytes and 16 (STAGES + 1) for the barriers
//
// Constants: GRAD_X; OUT (float, bf16); BN (64, 128, 256); STAGES; SPATIAL (2, 3): axes of the source's map; PHASES: the
// product of the strides for grad_x, else 1; PAIRS: whether `out` may be written two elements at once (alignment and
// pitch); PARTS: of a step's depth, in sixteens, what is not zero anyway, all of it (4) unless there are few channels; BIAS,
// ACTIVATION, EXTRA, STATS, NORMED: see epilogue.cuh; WINDOW, WHOLE, GEOMETRY: see conv.cuh. One group; c and k are multiples
// of 8. STATS takes one slice and no tile that lies in two of the `sets`; arguments as in conv.cu, `counters` being one for each
// set and column of tiles.
#include "epilogue.cuh"
#include "ring.cuh"

#ifndef PARTS
#define PARTS (DEPTH / 16)
#endif

typedef Ring<STAGES, (RING_ROWS + BN) * 2 * DEPTH> Buffers;

// One map a phase: the phases' walks begin and end at different pixels.
struct Sources {
    TensorMap phase[PHASES];
};

// What a block does next: a tile of one phase and slice.
struct Work {
    int phase, slice, m0, n0, begin, end;
    Axis axis[3];
    bool exists;
};

DEVICE Work work(const Geometry& geometry, int tile, int slices, int row_tiles, int column_tiles) {
    Work t;
    t.n0 = tile % column_tiles * BN; // neighbours in time share their pixels
    t.m0 = tile / column_tiles % row_tiles * RING_ROWS;
    const int rest = tile / (column_tiles * row_tiles);
    t.slice = rest % slices;
    t.phase = rest / slices;
    const Triple p = split3(t.phase, geometry.stride[1], geometry.stride[2]);
    t.axis[0] = GRAD_X ? phase_axis(geometry, 0, p.d) : forward_axis(geometry, 0);
    t.axis[1] = GRAD_X ? phase_axis(geometry, 1, p.h) : forward_axis(geometry, 1);
    t.axis[2] = GRAD_X ? phase_axis(geometry, 2, p.w) : forward_axis(geometry, 2);
    const int positions = t.axis[0].positions * t.axis[1].positions * t.axis[2].positions;
    const int taps = t.axis[0].taps * t.axis[1].taps * t.axis[2].taps;
    const int steps = taps * ceil_div(GRAD_X ? geometry.k : geometry.c, DEPTH), each = ceil_div(steps, slices);
    t.begin = min_of(t.slice * each, steps);
    t.end = min_of(t.begin + each, steps);
    t.exists = t.m0 < geometry.n * positions; // a phase may have fewer pixels than the largest one
    return t;
}

// The lowest source coordinate of an axis, and how much further tap j reads.
DEVICE int lowest(const Axis& a) { return a.step < 0 ? a.origin + (a.taps - 1) * a.step : a.origin; }
DEVICE int offset(const Axis& a, int j) { return a.step < 0 ? (a.taps - 1 - j) * -a.step : j * a.step; }

// Asks for the copies of one tile's steps.
DEVICE void produce(Buffers& ring, const Geometry& geometry, const Dividers& divide, const Work& t, const Sources& sources,
                    const TensorMap& weights) {
    const Axis &d = t.axis[0], &h = t.axis[1], &w = t.axis[2];
    const int chunks = ceil_div(GRAD_X ? geometry.k : geometry.c, DEPTH);
    const int positions = d.positions * h.positions * w.positions;
    const int image = quotient(t.m0, positions, divide.positions);
    const Triple p = position(t.m0 - image * positions, h.positions, w.positions, divide);
    const Triple at = {lowest(d) + p.d * d.scale, lowest(h) + p.h * h.scale, lowest(w) + p.w * w.scale};
    if (t.begin == t.end) return; // a phase that meets no tap, or a slice without a step
    const int first = t.begin / chunks; // the only division: the steps count on from there
    Triple j = split3(first, h.taps, w.taps);
    int chunk = t.begin - first * chunks;
    for (int step = t.begin; step < t.end; step++) {
        const int channel = chunk * DEPTH;
        const int tap = ((d.first_tap + j.d * d.tap_step) * geometry.kernel[1] + h.first_tap + j.h * h.tap_step) *
                            geometry.kernel[2] +
                        w.first_tap + j.w * w.tap_step;
        ring.reserve();
        u64* const full = ring.full(ring.stage);
        u8* const a = ring.tile();
        u8* const b = a + RING_ROWS * 2 * DEPTH;
        load_pixels(a, &sources.phase[t.phase], full, channel, image, at,
                    {offset(d, j.d), offset(h, j.h), offset(w, j.w)});
        if constexpr (GRAD_X) {
#pragma unroll
            for (int n = 0; n < BN; n += 64) tma_tiled3(b + n / 64 * SUB_TILE, &weights, full, t.n0 + n, tap, channel);
        } else {
            tma_tiled3(b, &weights, full, channel, tap, t.n0);
        }
        ring.next();
        if (++chunk < chunks) continue;
        chunk = 0;
        if (++j.w < w.taps) continue;
        j.w = 0;
        if (++j.h < h.taps) continue;
        j.h = 0;
        j.d++;
    }
}

// The result's pixel for row `m` of a tile, or -1 beyond the last.
DEVICE int destination(const Geometry& geometry, const Dividers& divide, const Work& t, int m) {
    const Axis &d = t.axis[0], &h = t.axis[1], &w = t.axis[2];
    const int(&result)[3] = GRAD_X ? geometry.input : geometry.output;
    const int positions = d.positions * h.positions * w.positions, image = quotient(m, positions, divide.positions);
    const Triple p = position(m - image * positions, h.positions, w.positions, divide);
    const int plane = image * result[0] + p.d * d.out_scale + d.out_origin;
    const int pixel = (plane * result[1] + p.h * h.out_scale + h.out_origin) * result[2] + p.w * w.out_scale + w.out_origin;
    return image < geometry.n ? pixel : -1;
}

KERNEL __launch_bounds__(RING_THREADS, 1)
conv_hopper(const ConvShape argument, BY_VALUE Sources sources, BY_VALUE TensorMap weights, const float* __restrict__ bias,
            const EXTRA_TYPE* extra, OUT* out, float* __restrict__ partial, int slices, int row_tiles, int out_pitch,
            u32* counters, int sets, Partial* moments, float* stats NORM_PARAMETERS) {
    USE_SHAPE(argument);
    SMEM_DYN(memory);
    Buffers ring = {memory};
    Consumers consumers = {ring.full(2 * STAGES)};
    if (threadIdx.x == 0) {
        ring.open();
        if (STATS) consumers.open();
    }
    __syncthreads();

    const int channels = GRAD_X ? geometry.c : geometry.k, column_tiles = ceil_div(channels, BN);
    const int tiles = column_tiles * row_tiles * slices * PHASES;
    const int group = uniform(warp_id() / 4) - 1; // -1 copies, 0 and 1 multiply

    if (group < 0) {
        registers_down_to<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) {
            prefetch_map(&sources.phase[0]);
            prefetch_map(&weights);
            for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
                const Work t = work(geometry, tile, slices, row_tiles, column_tiles);
                if (t.exists) produce(ring, geometry, divide, t, sources, weights);
            }
        }
        return;
    }

    registers_up_to<CONSUMER_REGISTERS>();
    const int g = lane_id() >> 2, first = 2 * (lane_id() & 3);
    const int(&result)[3] = GRAD_X ? geometry.input : geometry.output;
    int turn = 0;
    (void)turn;
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
        const Work t = work(geometry, tile, slices, row_tiles, column_tiles);
        if (!t.exists && !STATS) continue; // else its set counts it
        const int begin = t.exists ? t.begin : t.end;
        float sums[BN / 2];
        ring.multiply(sums, begin, t.end, [&](const u8* buffer, bool begins) {
            const u64 a = descriptor(buffer + group * SUB_TILE, 0);
            const u64 b = descriptor(buffer + RING_ROWS * 2 * DEPTH, GRAD_X ? SUB_TILE : 0);
#pragma unroll
            for (int k = 0; k < DEPTH / 16; k++)
                if (k < PARTS)
                    wgmma<false, GRAD_X>(sums, further(a, 32 * k), further(b, (GRAD_X ? 2048 : 32) * k), !begins || k > 0);
        });

        const bool any = begin < t.end; // else no product has set the sums
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pixel = destination(geometry, divide, t, t.m0 + 64 * group + 16 * (warp_id() & 3) + 8 * half + g);
            if (pixel < 0) continue;
#pragma unroll
            for (int j = 0; j < BN / 8; j++) {
                const int n = t.n0 + 8 * j + first;
                if (!WHOLE && n >= channels) continue;
                const float u = any ? sums[4 * j + 2 * half] : 0.0f, v = any ? sums[4 * j + 2 * half + 1] : 0.0f;
                if (slices == 1) {
                    const i64 place = i64(pixel) * out_pitch + n;
                    store_two(out + place, epilogue(u, bias, n, extra, place), epilogue(v, bias, n + 1, extra, place + 1));
                } else {
                    const i64 row = i64(t.slice) * geometry.n * volume(result) + pixel;
                    *reinterpret_cast<Two<float>*>(partial + row * channels + n) = {u, v};
                }
            }
        }

        if constexpr (STATS != 0) {
            // Once more over the tile, a consumer along one column. Two lists of pixels take turns: where nobody waits at the
            // end of a tile (tile_sums of a set of one tile), one group may begin the next while the other still reads.
            SMEM(int, lists, 2 * RING_ROWS);
            int* const pixels = lists + turn * RING_ROWS;
            turn ^= 1;
            if (consumers.thread() < RING_ROWS) pixels[consumers.thread()] = destination(geometry, divide, t, t.m0 + consumers.thread());
            consumers.sync(); // the list is there, and everybody has done with the other one
            constexpr int FEW = 8, STEP = CONSUMER_THREADS / BN;
            const int set_tiles = row_tiles / sets, row_tile = t.m0 / RING_ROWS, set = row_tile / set_tiles;
            const int channel = t.n0 + consumers.thread() % BN;
            const Normed norm = NORM_ARGUMENT;
            Counted counted(channel, channels, set, sets, norm);
            for (int row = consumers.thread() / BN; row < RING_ROWS; row += FEW * STEP) {
#pragma unroll
                for (int i = 0; i < FEW; i++) {
                    const int pixel = pixels[row + i * STEP];
                    if (pixel >= 0 && (WHOLE || channel < channels))
                        counted.add_element(to_float(out[i64(pixel) * out_pitch + channel]), pixel, norm);
                }
            }
            const SetTile at = {set, sets, t.phase * set_tiles + row_tile % set_tiles, PHASES * set_tiles};
            counted.finish<CONSUMER_THREADS, BN>(at, moments, counters + set * column_tiles + t.n0 / BN, stats, consumers);
        }
    }
}
