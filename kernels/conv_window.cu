// Convolution forward, and its gradient by the input, of layers with few channels and stride 1: each block copies the box of
// pixels that its results see once, and reads it through every tap.
//
// Versions
//   1  window and weights by asynchronous copies, mma.sync from sm_80 on.
//   On an H100 it conforms; its time was not recorded by itself (docs/measurements/2026-11-27-steps-h100.md).
//
// Maths: the sums of conv.cu. That kernel gathers a pixel once for every tap, 27 times for 3 x 3 x 3; with few channels these
// copies, not the products, are what takes time. Here a pixel is copied once a box, with those around it: 600 for the 256
// results of a box of 4 x 8 x 8. The gradient by the input is the same sum with the taps in reverse order, and with k for c.
// The taps and chunks of 8 channels together are the summed index. A step is STEP_TAPS taps, whose weights come through a ring
// of STAGES buffers.
//
//   blockIdx.x  box of BOX_D x BOX_H x BOX_W results of an image
//   block       32 WARPS threads, each warp as many results, all their channels
//   shared memory, in bytes: the window, (box + kernel - 1) pixels of CHANNELS, and min(STAGES, steps) steps' weights: each
//               in planes as window.cuh has them
//
// Constants: GRAD_X (0, 1); CHANNELS of the source and COLUMNS of the result: multiples of 8; KERNEL_D, KERNEL_H, KERNEL_W;
// BOX_D, BOX_H, BOX_W: the last a multiple of 8, together a multiple of 16 WARPS; STEP_TAPS: 1, KERNEL_W, KERNEL_H KERNEL_W
// or all; WARPS; STAGES; MIN_BLOCKS: see warp_tile.cuh; OUT (float, bf16); BIAS, ACTIVATION, EXTRA, STATS, NORMED: see
// epilogue.cuh; PAIRS: see pairs.cuh; GEOMETRY: see conv.cuh.
//
// Statistics are of `sets` sets, 1 or the images, each with a counter; `moments` is [sets, boxes of a set, channels], `stats`
// [2, sets, channels], the channels being the norm's where the sums of its gradient are wanted.
#include "epilogue.cuh"
#include "pairs.cuh"
#include "window.cuh"

constexpr int THREADS = 32 * WARPS, CHUNKS = CHANNELS / 8;
constexpr int TAPS = KERNEL_D * KERNEL_H * KERNEL_W, STEPS = TAPS / STEP_TAPS;
constexpr int MI = BOX_D * BOX_H * BOX_W / (16 * WARPS), NI = COLUMNS / 8; // a warp's fragments
constexpr int EVEN = ceil_div(NI, 2) * 2;                                  // ldmatrix brings two columns of them at once
constexpr int DEPTH = ceil_div(STEP_TAPS * CHUNKS, 2) * 2;                 // chunks of a step: mma takes two at once
static_assert(BOX_W % 8 == 0 && BOX_D * BOX_H * BOX_W % (16 * WARPS) == 0, "a box is eights of a row, sixteens of a warp");
static_assert(STEPS * STEP_TAPS == TAPS, "steps are alike");

typedef Box<BOX_D + KERNEL_D - 1, BOX_H + KERNEL_H - 1, BOX_W + KERNEL_W - 1, CHUNKS> Window;

// A step's weights: forward, a row for each column of the result, its summed chunks side by side; grad_x, a row for each
// summed index. What `EVEN` adds is never written, and what is read of it never used.
constexpr int WEIGHT_ROWS = GRAD_X ? 8 * DEPTH : COLUMNS, WEIGHT_CHUNKS = GRAD_X ? NI : DEPTH;
constexpr int WEIGHT_PLANE = plane(GRAD_X ? 8 * DEPTH : 8 * EVEN, WEIGHT_CHUNKS);
constexpr int WEIGHT_BYTES = 16 * WEIGHT_PLANE * (GRAD_X ? EVEN : DEPTH);

// Pixels of the window from a result's first tap to another.
DEVICE constexpr int shift(int tap) {
    return Window::at(tap / (KERNEL_H * KERNEL_W), tap / KERNEL_W % KERNEL_H, tap % KERNEL_W);
}

// Bytes of the window from a result's first tap to a chunk of a step. Beyond the last chunk the weights are zero, and any will do.
DEVICE constexpr int summed(int chunk) {
    return Window::offset(shift(min_of(chunk / CHUNKS, STEP_TAPS - 1)), chunk % CHUNKS);
}

KERNEL __launch_bounds__(THREADS, MIN_BLOCKS)
conv_window(const Geometry argument, const bf16* __restrict__ source, const bf16* __restrict__ weight,
            const float* __restrict__ bias, const EXTRA_TYPE* extra, OUT* out, u32* counters, int sets, Partial* moments,
            float* stats NORM_PARAMETERS) {
    USE_GEOMETRY(argument);
    const int(&extents)[3] = GRAD_X ? geometry.output : geometry.input;
    const int(&result)[3] = GRAD_X ? geometry.input : geometry.output;
    const int(&padding)[3] = geometry.padding;
    const Boxes boxes(result);
    const int image = int(blockIdx.x) / boxes.an_image();
    const Triple box = boxes.first(int(blockIdx.x));

    SMEM_DYN(memory);
    // dx[i] sums dy[i + padding - r] w[r]: with taps t = kernel - 1 - r, what is read grows with them as it does forward.
    const auto first = [&](int at, int pad, int kernel) { return at - (GRAD_X ? kernel - 1 - pad : pad); };
    Window::fill<THREADS>(memory, source, extents, image,
                          {first(box.d, padding[0], KERNEL_D), first(box.h, padding[1], KERNEL_H),
                           first(box.w, padding[2], KERNEL_W)}); // lands with the first step's weights

    auto load = [&](int step, int stage) {
        u8* const to = memory + Window::BYTES + stage * WEIGHT_BYTES;
        for (int i = int(threadIdx.x); i < WEIGHT_ROWS * WEIGHT_CHUNKS; i += THREADS) {
            const int row = i / WEIGHT_CHUNKS, chunk = i % WEIGHT_CHUNKS;
            const bool valid = GRAD_X ? row < STEP_TAPS * CHANNELS : chunk < STEP_TAPS * CHUNKS;
            const int tap = step * STEP_TAPS + (GRAD_X ? row / CHANNELS : 0);
            const int at = GRAD_X ? (row % CHANNELS * TAPS + TAPS - 1 - tap) * COLUMNS : (row * TAPS + tap) * CHANNELS;
            cp_async16(to + 16 * (chunk * WEIGHT_PLANE + row), weight + (valid ? at + 8 * chunk : 0), valid);
        }
    };

    const int lane = lane_id(), half = lane >> 4;
    const u8* rows[MI]; // where this lane's row of each fragment begins
#pragma unroll
    for (int m = 0; m < MI; m++) {
        const Triple p = split3(16 * (warp_id() * MI + m) + (lane & 15), BOX_H, BOX_W);
        rows[m] = memory + Window::offset(Window::at(p.d, p.h, p.w), 0);
    }
    const int column = GRAD_X ? half * WEIGHT_PLANE + (lane & 15)
                              : (lane >> 3 & 1) * WEIGHT_PLANE + (lane & 7) + 8 * half;

    float sums[MI][NI][4];
    for (auto& row : sums)
        for (auto& fragment : row)
            for (float& v : fragment) v = 0;
    int step = 0;
    pipeline<STAGES>(0, STEPS, load, [&](int stage) {
        const int begin = Window::offset(shift(step++ * STEP_TAPS), 0);
        const u8* const weights = memory + Window::BYTES + stage * WEIGHT_BYTES + 16 * column;
#pragma unroll
        for (int q = 0; q < DEPTH; q += 2) {
            u32 a[MI][4], b[NI][2];
#pragma unroll
            for (int m = 0; m < MI; m++)
                ldmatrix_x4(a[m], rows[m] + begin + half * (summed(q + 1) - summed(q)) + summed(q));
#pragma unroll
            for (int n = 0; n < NI; n += 2) {
                u32 pair[4];
                if (GRAD_X) {
                    ldmatrix_x4_trans(pair, weights + 16 * (n * WEIGHT_PLANE + 8 * q));
                } else {
                    ldmatrix_x4(pair, weights + 16 * (q * WEIGHT_PLANE + 8 * n));
                }
                b[n][0] = pair[0], b[n][1] = pair[1];
                if (n + 1 < NI) b[min_of(n + 1, NI - 1)][0] = pair[2], b[min_of(n + 1, NI - 1)][1] = pair[3];
            }
            mma_bf16<MI, NI>(sums, a, b);
        }
    });

    // The result's pixel for row `r` of the box, or -1 outside.
    const auto destination = [&](int r) {
        const Triple p = split3(r, BOX_H, BOX_W);
        const int d = box.d + p.d, h = box.h + p.h, w = box.w + p.w;
        const bool valid = d < result[0] && h < result[1] && w < result[2];
        return valid ? ((image * result[0] + d) * result[1] + h) * result[2] + w : -1;
    };
#pragma unroll
    for (int m = 0; m < MI; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int pixel = destination(16 * (warp_id() * MI + m) + (lane >> 2) + 8 * i);
            if (pixel < 0) continue;
#pragma unroll
            for (int n = 0; n < NI; n++) {
                const int channel = 8 * n + 2 * (lane & 3);
                const i64 place = i64(pixel) * COLUMNS + channel;
                const float(&v)[4] = sums[m][n];
                store_two(out + place, epilogue(v[2 * i], bias, channel, extra, place),
                          epilogue(v[2 * i + 1], bias, channel + 1, extra, place + 1));
            }
        }
    if (!STATS) return;

    // Once more over the box, a thread along one channel.
    __syncthreads(); // others stored what this thread looks at
    constexpr int LANES = NI > 4 ? 64 : NI > 2 ? 32 : 8 * NI;
    const int channel = int(threadIdx.x) % LANES;
    const int tiles = int(gridDim.x) / sets, set = int(blockIdx.x) / tiles;
    const Normed norm = NORM_ARGUMENT;
    Counted counted(channel, COLUMNS, set, sets, norm);
    for (int r = int(threadIdx.x) / LANES; r < BOX_D * BOX_H * BOX_W; r += THREADS / LANES) {
        const int pixel = destination(r);
        if (pixel >= 0 && channel < COLUMNS)
            counted.add_element(to_float(out[i64(pixel) * COLUMNS + channel]), pixel, norm);
    }
    WholeBlock block;
    counted.finish<THREADS, LANES>({set, sets, int(blockIdx.x) % tiles, tiles}, moments, counters + set, stats, block);
}
