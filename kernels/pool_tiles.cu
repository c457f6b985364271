// Max pooling by windows that tile the input (stride = kernel, no padding), and its gradient, each in one pass over memory.
// Nearly every pooling of a U-Net is one; pool.cu has the others.
//
// Versions
//   1  a thread for WIDTH channels of a tile: every pixel is read once, 16 bytes at a time, and the gradient looks for the
//      maximum again instead of reading its place from a tensor of ints. Not yet measured.
//
//   tile_max          y[o, c] = max over the window of x
//   tile_max_scatter  dx[i, c] = dy[o, c] where i is the first maximum of window o, else 0; also where no window reaches
//   Of equal values the first wins, and the first NaN always does. A window may stick out behind; what is there never wins.
//
//   blockIdx.x  row of tiles, of all images (a stride loop);  blockIdx.y  256 threads along it (a stride loop);  block  256
//
// Constants: TYPE (float, bf16); WIDTH: channels a thread, divides them and is such that every operand is aligned to
// so many elements; KERNEL_D, KERNEL_H, KERNEL_W.
#include "gan.cuh"

// Blocks of a multiprocessor, which bound the registers: places of eight taps in eight channels take more of them.
constexpr int BLOCKS = KERNEL_D > 1 ? 3 : 4;
constexpr int PLANE = KERNEL_H * KERNEL_W; // taps of one depth: a thread has so many reads on their way

// The extents: of the input and the result in pixels, of the channels in groups of WIDTH.
struct Extents {
    int images, groups, d, h, w, out_d, out_h, out_w;
};

struct alignas(WIDTH * sizeof(TYPE)) Group {
    TYPE v[WIDTH];
};

// A thread's tile: of which image, where it begins in the input (in pixels), and which channels.
struct Tile {
    int image, d, h, w, group;
};

// The group of a depth's first tap, and how far the others lie behind it.
DEVICE i64 first(const Extents& e, const Tile& t, int depth) {
    const i64 row = (i64(t.image) * e.d + t.d * KERNEL_D + depth) * e.h + t.h * KERNEL_H;
    return (row * e.w + t.w * KERNEL_W) * e.groups + t.group;
}
DEVICE int behind(const Extents& e, int tap) { return (tap / KERNEL_W * e.w + tap % KERNEL_W) * e.groups; }

DEVICE bool within(const Extents& e, const Tile& t, int tap) {
    return t.h * KERNEL_H + tap / KERNEL_W < e.h && t.w * KERNEL_W + tap % KERNEL_W < e.w;
}

// How many depths of a tile lie within the input.
DEVICE int depths(const Extents& e, const Tile& t) { return min_of(KERNEL_D, e.d - t.d * KERNEL_D); }

// The largest value of each channel, and the tap that holds the first of them.
DEVICE void maximum(const Extents& e, const Tile& t, const Group* x, float (&best)[WIDTH], int (&place)[WIDTH]) {
#pragma unroll
    for (int c = 0; c < WIDTH; c++) best[c] = -INFINITY_FLOAT, place[c] = 0; // if all are so low, the first is the first
#pragma unroll 1
    for (int depth = 0; depth < depths(e, t); depth++) {
        Group read[PLANE];
        const Group* const from = x + first(e, t, depth);
#pragma unroll
        for (int tap = 0; tap < PLANE; tap++)
            if (within(e, t, tap)) read[tap] = from[behind(e, tap)];
#pragma unroll
        for (int tap = 0; tap < PLANE; tap++) {
            if (!within(e, t, tap)) continue;
#pragma unroll
            for (int c = 0; c < WIDTH; c++) {
                const float v = to_float(read[tap].v[c]);
                if (v > best[c] || (v != v && best[c] == best[c]))
                    best[c] = v, place[c] = depth * PLANE + tap;
            }
        }
    }
}

// Calls `act` for every tile of a grid of tiles that is this thread's.
template <class Act> DEVICE void for_tiles(int images, int d, int h, int w, int groups, Act act) {
    const i64 rows = i64(images) * d * h;
    const int items = w * groups;
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x) {
        const int of_image = int(row % (d * h)), image = int(row / (d * h));
        for (int i = int(blockIdx.y * blockDim.x + threadIdx.x); i < items; i += int(gridDim.y * blockDim.x))
            act(Tile{image, of_image / h, of_image % h, i / groups, i % groups});
    }
}

KERNEL __launch_bounds__(256, BLOCKS) tile_max(const Extents e, const Group* __restrict__ x, Group* y) {
    for_tiles(e.images, e.out_d, e.out_h, e.out_w, e.groups, [&](const Tile& t) {
        float best[WIDTH];
        int place[WIDTH];
        maximum(e, t, x, best, place);
        Group result;
#pragma unroll
        for (int c = 0; c < WIDTH; c++) result.v[c] = from_float<TYPE>(best[c]);
        y[(((i64(t.image) * e.out_d + t.d) * e.out_h + t.h) * e.out_w + t.w) * e.groups + t.group] = result;
    });
}

KERNEL __launch_bounds__(256, BLOCKS)
tile_max_scatter(const Extents e, const Group* __restrict__ x, const Group* __restrict__ dy, Group* dx) {
    const int d = ceil_div(e.d, KERNEL_D), h = ceil_div(e.h, KERNEL_H), w = ceil_div(e.w, KERNEL_W);
    for_tiles(e.images, d, h, w, e.groups, [&](const Tile& t) {
        float best[WIDTH];
        int place[WIDTH];
        Group upstream;
        if (t.d < e.out_d && t.h < e.out_h && t.w < e.out_w) {
            maximum(e, t, x, best, place);
            upstream = dy[(((i64(t.image) * e.out_d + t.d) * e.out_h + t.h) * e.out_w + t.w) * e.groups + t.group];
        } else {
#pragma unroll
            for (int c = 0; c < WIDTH; c++) place[c] = -1; // a tile at the far end that is no window
        }
#pragma unroll 1
        for (int depth = 0; depth < depths(e, t); depth++) {
            Group* const to = dx + first(e, t, depth);
#pragma unroll
            for (int tap = 0; tap < PLANE; tap++) {
                if (!within(e, t, tap)) continue;
                Group result;
#pragma unroll
                for (int c = 0; c < WIDTH; c++)
                    result.v[c] = place[c] == depth * PLANE + tap ? upstream.v[c] : from_float<TYPE>(0.0f);
                to[behind(e, tap)] = result;
            }
        }
    });
}
