// Gradient of a convolution by its weights, of layers with few channels and stride 1: each block copies boxes of pixels, once
// for all the taps whose sums it keeps in registers.
//
// Versions
//   1  boxes by asynchronous copies, mma.sync from sm_80 on, slices added by sum_slices.
//   On an H100 it conforms; its time was not recorded by itself (docs/measurements/2026-11-27-steps-h100.md).
//
// Maths: dw[k, tap, c] = sum over result pixels of dy[pixel, k] x[pixel at tap, c], as conv_grad_w.cu, which copies x once for
// every tap and dy once for every tile of columns. Here a block walks over boxes of pixels; for each it copies dy, and x with
// what the taps reach around it. A warp keeps the sums of all k, 8 channels c, and the taps of one plane of the kernel.
//
//   blockIdx.x  slice of the boxes
//   blockIdx.y  planes of the kernel (taps of one depth), DEPTHS of them
//   block       32 DEPTHS (CHANNELS / 8) PARTS threads: PARTS warps share the pixels of a box
//   shared memory, in bytes: STAGES times the window, (box + DEPTHS, KERNEL_H, KERNEL_W - 1) pixels of CHANNELS, and the box of
//               dy: each in planes as window.cuh has them
//
// Constants: CHANNELS of x and COLUMNS of dy: multiples of 8; KERNEL_D, KERNEL_H, KERNEL_W; DEPTHS: divides KERNEL_D; BOX_D,
// BOX_H, BOX_W: the last a multiple of 8, together a multiple of 16 PARTS; PARTS; STAGES; MIN_BLOCKS: see warp_tile.cuh; OUT
// (float, bf16); ACTIVATION, EXTRA: see epilogue.cuh; PAIRS: see pairs.cuh; GEOMETRY: see conv.cuh.
//
// There are `slices` = PARTS gridDim.x slices of the sum. One goes to `dw` through the epilogue; of more, slice s goes to
// partial + s * (elements of dw), and sum_slices must follow: they are many, and too much for a last block.
#include "epilogue.cuh"
#include "pairs.cuh"
#include "window.cuh"

constexpr int CHUNKS = CHANNELS / 8, WARPS = DEPTHS * CHUNKS * PARTS, THREADS = 32 * WARPS;
constexpr int MI = ceil_div(COLUMNS, 16), TAPS = KERNEL_H * KERNEL_W; // a warp's fragments
constexpr int TURNS = BOX_D * BOX_H * BOX_W / 16;                     // of 16 pixels: the depth of an mma
static_assert((BOX_W == 8 && BOX_H % 2 == 0) || BOX_W % 16 == 0, "16 pixels are two rows of a plane, or within one");
static_assert(TURNS % PARTS == 0 && KERNEL_D % DEPTHS == 0, "shares are alike");

typedef Box<BOX_D + DEPTHS - 1, BOX_H + KERNEL_H - 1, BOX_W + KERNEL_W - 1, CHUNKS> Window;
typedef Box<BOX_D, BOX_H, BOX_W, COLUMNS / 8> Gradient;
constexpr int STAGE_BYTES = Window::BYTES + Gradient::BYTES;

// Bytes of the window from what a result's first tap sees to another.
DEVICE constexpr int shift(int tap) { return Window::offset(Window::at(0, tap / KERNEL_W, tap % KERNEL_W), 0); }

KERNEL __launch_bounds__(THREADS, MIN_BLOCKS)
conv_window_grad_w(const Geometry argument, const bf16* __restrict__ x, const bf16* __restrict__ dy, const EXTRA_TYPE* extra,
                   OUT* dw, float* partial, int slices) {
    USE_GEOMETRY(argument);
    const Boxes boxes(geometry.output);
    const int all = geometry.n * boxes.an_image(), a_slice = ceil_div(all, int(gridDim.x));
    const int begin = min_of(int(blockIdx.x) * a_slice, all), end = min_of(begin + a_slice, all);

    const int lane = lane_id(), part = warp_id() % PARTS, chunk = warp_id() / PARTS % CHUNKS;
    const int depth = warp_id() / (PARTS * CHUNKS), first_depth = int(blockIdx.y) * DEPTHS;

    SMEM_DYN(memory);
    auto load = [&](int box, int stage) {
        u8* const to = memory + stage * STAGE_BYTES;
        const int image = box / boxes.an_image();
        const Triple first = boxes.first(box);
        Window::fill<THREADS>(to, x, geometry.input, image,
                              {first.d + first_depth - geometry.padding[0], first.h - geometry.padding[1],
                               first.w - geometry.padding[2]});
        Gradient::fill<THREADS>(to + Window::BYTES, dy, geometry.output, image, first);
    };

    // Of 16 pixels and two taps ldmatrix brings the channels of x at once: this lane's pixel, and which of the taps.
    const int pixel = lane & 15, second = lane >> 4;
    const int of_x = Window::offset(Window::at(depth, pixel / BOX_W, pixel % BOX_W), chunk);
    const int of_dy = Gradient::offset((lane & 7) + 8 * second, 0), odd = lane >> 3 & 1;

    float sums[MI][TAPS][4];
    for (auto& row : sums)
        for (auto& fragment : row)
            for (float& v : fragment) v = 0;
    pipeline<STAGES>(begin, end, load, [&](int stage) {
        const u8* const window = memory + stage * STAGE_BYTES + of_x;
        const u8* const gradient = memory + stage * STAGE_BYTES + Window::BYTES + of_dy;
#pragma unroll 1
        for (int turn = part; turn < TURNS; turn += PARTS) {
            const Triple p = split3(16 * turn, BOX_H, BOX_W);
            const u8* const here = window + Window::offset(Window::at(p.d, p.h, p.w), 0);
            u32 a[MI][4], b[TAPS][2];
#pragma unroll
            for (int m = 0; m < MI; m++) // rows beyond the last channel are the last ones again, and are not stored
                ldmatrix_x4_trans(a[m], gradient + Gradient::offset(16 * turn, min_of(2 * m + odd, COLUMNS / 8 - 1)));
#pragma unroll
            for (int t = 0; t < TAPS; t += 2) {
                const int next = min_of(t + 1, TAPS - 1);
                u32 pair[4];
                ldmatrix_x4_trans(pair, here + (second ? shift(next) : shift(t)));
                b[t][0] = pair[0], b[t][1] = pair[1];
                if (next > t) b[next][0] = pair[2], b[next][1] = pair[3];
            }
            mma_bf16<MI, TAPS>(sums, a, b);
        }
    });

    const i64 results = i64(COLUMNS) * KERNEL_D * TAPS * CHANNELS;
    float* const slice = partial + (int(blockIdx.x) * PARTS + part) * results;
#pragma unroll
    for (int m = 0; m < MI; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int k = 16 * m + (lane >> 2) + 8 * i;
            if (k >= COLUMNS) continue;
#pragma unroll
            for (int t = 0; t < TAPS; t++) {
                const int tap = (k * KERNEL_D + first_depth + depth) * TAPS + t;
                const int at = tap * CHANNELS + 8 * chunk + 2 * (lane & 3);
                const float u = sums[m][t][2 * i], v = sums[m][t][2 * i + 1];
                if (slices == 1) {
                    store_two(dw + at, epilogue(u, nullptr, 0, extra, at), epilogue(v, nullptr, 0, extra, at + 1));
                } else {
                    *reinterpret_cast<Two<float>*>(slice + at) = {u, v};
                }
            }
        }
}
