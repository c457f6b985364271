// Gradient of a convolution by its weights, of channels that see few others: see conv_depthwise.cu.
//
// Versions
//   1  a thread keeps the sums of a few lines of taps for its channels; warps and then blocks are added in order. Not yet measured.
//
// Maths: dw[k, tap, j] = sum over result pixels of dy[pixel, k] x[pixel at tap, j of k's group], as conv_grad_w.cu. A thread goes over
// runs of dy, and over what they see of x, and keeps the sums of LINES lines of KERNEL_W taps (tap = line KERNEL_W + r), for all that
// it reads: the fewer lines, the more often x and dy are read.
//
//   blockIdx.x  slice of the patches of dy
//   blockIdx.y  LANES WIDTH channels of dy
//   blockIdx.z  LINES lines of taps
//   block       256 threads: see depthwise.cuh
//   shared memory: 8 warps' sums, VALUES x LANES floats each
//
// Constants: those of depthwise.cuh, with GRAD_X=0; LINES; GRADIENT (float, bf16) and GRADIENT_PIECE: dy's element type, and how
// many channels of it are read at once; OUT (float, bf16); ACTIVATION, EXTRA: see epilogue.cuh.
//
// There are `slices` = gridDim.x slices of the sum. One goes to `dw` through the epilogue; of more, slice s goes to
// partial + s * (elements of dw), and sum_slices must follow.
#include "depthwise.cuh"

constexpr int WARPS = THREADS / 32, VALUES = LINES * KERNEL_W * FROM * WIDTH;

KERNEL __launch_bounds__(THREADS, 2)
conv_depthwise_grad_w(const Geometry geometry, const Patches patches, const SOURCE* __restrict__ x,
                      const GRADIENT* __restrict__ dy, const EXTRA_TYPE* extra, OUT* dw, float* partial, int slices) {
    const int(&extents)[3] = geometry.input;
    const int(&result)[3] = geometry.output;
    const int(&padding)[3] = geometry.padding;
    const int tile = int(blockIdx.y) * (LANES * WIDTH), first_line = int(blockIdx.z) * LINES;
    const int channel = tile + int(threadIdx.x) % LANES * WIDTH;

    float sums[LINES][KERNEL_W][FROM][WIDTH];
#pragma unroll
    for (auto& line : sums)
#pragma unroll
        for (auto& tap : line)
#pragma unroll
            for (auto& of_source : tap)
#pragma unroll
                for (float& v : of_source) v = 0;

    for (int patch = int(blockIdx.x); patch < patches.count; patch += int(gridDim.x)) {
        const Run run = run_of(patches, patch, 0);
        if (channel >= geometry.k || run.d >= result[0] || run.h >= result[1] || run.w >= result[2]) continue;
        const i64 row = ((i64(run.image) * result[0] + run.d) * result[1] + run.h) * result[2] + run.w;
        Channels<GRADIENT, WIDTH, GRADIENT_PIECE> stored[RUN];
#pragma unroll
        for (int t = 0; t < RUN; t++) {
            stored[t].clear();
            if (inside(run.w + t, result[2])) stored[t].read(dy + (row + t) * geometry.k + channel);
        }
        float upstream[RUN][WIDTH];
#pragma unroll
        for (int t = 0; t < RUN; t++) stored[t].convert(upstream[t]);
        const int first = run.w * STRIDE_W - padding[2];
#pragma unroll
        for (int l = 0; l < LINES; l++) {
            const int line = first_line + l;
            const int d = source_at<STRIDE_D, DILATION_D>(run.d, line / KERNEL_H, padding[0], extents[0]);
            const int h = source_at<STRIDE_H, DILATION_H>(run.h, line % KERNEL_H, padding[1], extents[1]);
            if (line >= KERNEL_D * KERNEL_H || d < 0 || h < 0) continue;
            const i64 from = ((i64(run.image) * extents[0] + d) * extents[1] + h) * extents[2];
            for_neighbours(x + from * geometry.c + channel / TO * FROM, first, extents[2], geometry.c,
                           [&](int read, const float(&v)[SOURCES]) {
#pragma unroll
                               for (int t = 0; t < RUN; t++)
#pragma unroll
                                   for (int r = 0; r < KERNEL_W; r++)
                                       if (meets(read, t, r)) {
#pragma unroll
                                           for (int j = 0; j < FROM; j++)
#pragma unroll
                                               for (int i = 0; i < WIDTH; i++)
                                                   sums[l][r][j][i] += v[source_channel(i, j)] * upstream[t][i];
                                       }
                           });
        }
    }

    // Rows of a warp, then warps.
    SMEM_DYN(memory);
    float* const scratch = reinterpret_cast<float*>(memory);
    const int lane = lane_id();
#pragma unroll
    for (int value = 0; value < VALUES; value++) {
        const int i = value % WIDTH, j = value / WIDTH % FROM, tap = value / (WIDTH * FROM);
        float v = sums[tap / KERNEL_W][tap % KERNEL_W][j][i];
#pragma unroll
        for (int mask = LANES; mask < 32; mask *= 2) v += shuffle_xor(v, mask);
        if (lane < LANES) scratch[(warp_id() * VALUES + value) * LANES + lane] = v;
    }
    __syncthreads();
    for (int q = int(threadIdx.x); q < VALUES * LANES; q += THREADS) {
        const int value = q / LANES, k = tile + q % LANES * WIDTH + value % WIDTH;
        const int j = value / WIDTH % FROM, tap = first_line * KERNEL_W + value / (WIDTH * FROM);
        if (k >= geometry.k || tap >= TAPS) continue;
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += scratch[warp * VALUES * LANES + q];
        const i64 place = (i64(k) * TAPS + tap) * FROM + j;
        if (slices == 1) {
            dw[place] = from_float<OUT>(epilogue(sum, nullptr, 0, extra, place));
        } else {
            partial[int(blockIdx.x) * (i64(geometry.k) * TAPS * FROM) + place] = sum;
        }
    }
}
