// Convolution forward, and its gradient by the input, of channels that see few others: depthwise ones, with one result of each
// channel or several, and groups of a few channels.
//
// Versions
//   1  multiply-adds of what is read in 16 bytes; each neighbour along the width once for all results of a run. Not yet measured.
//
// Maths: the sums of conv.cu, which takes a group as a matrix product of its own: with one channel a tile of 16 columns has
// fifteen that are nobody's. Here there is no tile. Depthwise, an element is read and written once and meets as many
// multiply-adds as there are taps: what takes time is memory, and a thread asks for it in vectors of neighbouring channels. The
// weights of a block's channels lie in shared memory, in fp32, from the first patch to the last.
// Gradient by the input: a run begins where a stride begins, so that which taps reach a result is known to the compiler; along
// depth and height those that do not are left out.
//
//   blockIdx.x  patches (a stride loop)
//   blockIdx.y  LANES WIDTH channels of the result
//   block       256 threads: see depthwise.cuh
//   shared memory: TAPS x FROM x LANES WIDTH floats
//
// Constants: those of depthwise.cuh; WEIGHT (float, bf16); OUT (float, bf16) and OUT_PIECE, EXTRA_PIECE: how many channels are
// stored and read at once; BIAS, ACTIVATION, EXTRA: see epilogue.cuh.
#include "depthwise.cuh"

constexpr int TILE = LANES * WIDTH;
// Neighbouring lanes read neighbouring pieces: eight lanes' 16 bytes are all banks.
constexpr int FLOATS = WIDTH % 4 == 0 ? 4 : WIDTH % 2 == 0 ? 2 : 1;

// Where the weight of a tile's channel lies, given its lane, its number there, the tap, and the source's channel in its group.
DEVICE constexpr int weight_at(int lane, int i, int tap, int j) {
    return (tap * FROM + j) * TILE + i / FLOATS * (LANES * FLOATS) + lane * FLOATS + i % FLOATS;
}

KERNEL __launch_bounds__(THREADS, 2)
conv_depthwise(const Geometry geometry, const Patches patches, const SOURCE* __restrict__ source,
               const WEIGHT* __restrict__ weight, const float* __restrict__ bias, const EXTRA_TYPE* extra, OUT* out) {
    const int(&extents)[3] = GRAD_X ? geometry.output : geometry.input;
    const int(&result)[3] = GRAD_X ? geometry.input : geometry.output;
    const int(&padding)[3] = geometry.padding;
    const int sources = GRAD_X ? geometry.k : geometry.c, channels = GRAD_X ? geometry.c : geometry.k;
    const int tile = int(blockIdx.y) * TILE;

    SMEM_DYN(memory);
    float* const weights = reinterpret_cast<float*>(memory);
    for (int q = int(threadIdx.x); q < TILE * TAPS * FROM; q += THREADS) {
        const int of_tile = q / (TAPS * FROM), tap = q / FROM % TAPS, j = q % FROM, channel = tile + of_tile;
        if (channel >= channels) break;
        const i64 from = GRAD_X ? (i64(channel / TO * FROM + j) * TAPS + tap) * TO + channel % TO
                                : (i64(channel) * TAPS + tap) * FROM + j;
        weights[weight_at(of_tile / WIDTH, of_tile % WIDTH, tap, j)] = to_float(weight[from]);
    }
    __syncthreads();

    const int lane = int(threadIdx.x) % LANES, channel = tile + lane * WIDTH;
    if (channel >= channels) return;
    const int before = GRAD_X ? padding[2] % STRIDE_W : 0;
    for (int patch = int(blockIdx.x); patch < patches.count; patch += int(gridDim.x)) {
        const Run run = run_of(patches, patch, before);
        if (run.d >= result[0] || run.h >= result[1] || run.w >= result[2]) continue;
        float sums[RUN][WIDTH];
#pragma unroll
        for (auto& of_pixel : sums)
#pragma unroll
            for (float& v : of_pixel) v = 0;

        const int first = GRAD_X ? (run.w + padding[2]) / STRIDE_W - BEHIND : run.w * STRIDE_W - padding[2];
#pragma unroll 1
        for (int line = 0; line < KERNEL_D * KERNEL_H; line++) {
            const int d = source_at<STRIDE_D, DILATION_D>(run.d, line / KERNEL_H, padding[0], extents[0]);
            const int h = source_at<STRIDE_H, DILATION_H>(run.h, line % KERNEL_H, padding[1], extents[1]);
            if (d < 0 || h < 0) continue;
            float w[KERNEL_W][FROM][WIDTH];
#pragma unroll
            for (int r = 0; r < KERNEL_W; r++)
#pragma unroll
                for (int j = 0; j < FROM; j++)
#pragma unroll
                    for (int i = 0; i < WIDTH; i += FLOATS) {
                        const int at = line * (KERNEL_W * FROM * TILE) + weight_at(lane, i, r, j);
                        const auto piece = *reinterpret_cast<const Piece<float, FLOATS>*>(weights + at);
#pragma unroll
                        for (int f = 0; f < FLOATS; f++) w[r][j][i + f] = piece.v[f];
                    }
            const i64 row = ((i64(run.image) * extents[0] + d) * extents[1] + h) * extents[2];
            const SOURCE* const from = source + row * sources + channel / TO * FROM;
            for_neighbours(from, first, extents[2], sources, [&](int read, const float(&v)[SOURCES]) {
#pragma unroll
                for (int t = 0; t < RUN; t++)
#pragma unroll
                    for (int r = 0; r < KERNEL_W; r++)
                        if (meets(read, t, r)) {
#pragma unroll
                            for (int i = 0; i < WIDTH; i++)
#pragma unroll
                                for (int j = 0; j < FROM; j++) sums[t][i] += v[source_channel(i, j)] * w[r][j][i];
                        }
            });
        }

        const i64 row = ((i64(run.image) * result[0] + run.d) * result[1] + run.h) * result[2] + run.w;
#pragma unroll
        for (int t = 0; t < RUN; t++) {
            if (!inside(run.w + t, result[2])) continue;
            const i64 place = (row + t) * channels + channel;
            EXTRA_TYPE second[WIDTH];
            if (EXTRA) {
#pragma unroll
                for (int i = 0; i < WIDTH; i += EXTRA_PIECE) {
                    const auto piece = *reinterpret_cast<const Piece<EXTRA_TYPE, EXTRA_PIECE>*>(extra + place + i);
#pragma unroll
                    for (int j = 0; j < EXTRA_PIECE; j++) second[i + j] = piece.v[j];
                }
            }
#pragma unroll
            for (int i = 0; i < WIDTH; i += OUT_PIECE) {
                Piece<OUT, OUT_PIECE> piece;
#pragma unroll
                for (int j = 0; j < OUT_PIECE; j++)
                    piece.v[j] = from_float<OUT>(epilogue(sums[t][i + j], bias, channel + i + j, second, i + j));
                *reinterpret_cast<Piece<OUT, OUT_PIECE>*>(out + place + i) = piece;
            }
        }
    }
}
