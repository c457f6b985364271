// Batched matrix product with either operand transposed.
//
// Versions
//   1  the tiles and pipeline of conv.cu without its gathering.
//   On an H100 it conforms; its time was not recorded by itself (docs/measurements/2026-11-27-steps-h100.md).
//
//   out[b, m, n] = epilogue(sum over k of A[b, m, k] B[b, k, n])
//   A_STORED  ALONG_K: A lies as [m, k] rows of a_pitch elements; ACROSS_K: as [k, m]
//   B_STORED  ALONG_K: B lies as [n, k] rows of b_pitch elements; ACROSS_K: as [k, n]
//   blockIdx.x  tile of BM rows, then tile of BN columns, then batch (only x counts beyond 65535);  blockIdx.y  slice of the sum
//   block       32 WARPS_M WARPS_N threads;  shared memory: STAGES (BM + BN) BK elements
//
// Constants: MATH, OUT, BM, BN, BK, WARPS_M, WARPS_N, STAGES, BIAS (over n), ACTIVATION as in conv.cu; VEC_A, VEC_B:
// elements copied at once, which must divide the extent along the rows as stored, the pitch and the batch stride.
// Slices as in conv.cu: with more than one, slice s of batch b writes to partial + (s * batches + b) * m * n.
#include "epilogue.cuh"
#include "warp_tile.cuh"

typedef MathOf<MATH>::Element In;
constexpr int THREADS = 32 * WARPS_M * WARPS_N;
typedef OperandTile<MATH, A_STORED, BM, BK>::Type ATile;
typedef OperandTile<MATH, B_STORED, BN, BK>::Type BTile;
typedef WarpTile<MATH, A_STORED, B_STORED, BM / WARPS_M, BN / WARPS_N, BK> Sums;

// Copies a BK-deep slab of one operand, whose summed index begins at k0 and whose outer index begins at outer0.
template <Stored How, int Vec, class TileType>
DEVICE void load_operand(const TileType& tile, const In* from, int pitch, int outer0, int outer_end, int k0,
                         int k_end) {
    fill_tile<THREADS, Vec>(tile, [&](int row, int column, In* slot) {
        const int outer = outer0 + (How == ALONG_K ? row : column), k = k0 + (How == ALONG_K ? column : row);
        const bool valid = outer < outer_end && k < k_end;
        const i64 at = How == ALONG_K ? i64(outer) * pitch + k : i64(k) * pitch + outer;
        copy_to_tile<Vec>(slot, from + (valid ? at : 0), valid);
    });
}

KERNEL __launch_bounds__(THREADS, MIN_BLOCKS)
matmul(int m, int n, int k, const In* __restrict__ a, const In* __restrict__ b, const float* __restrict__ bias,
       OUT* __restrict__ out, float* __restrict__ partial, int slices, int a_pitch, int b_pitch, int out_pitch,
       i64 a_batch, i64 b_batch, i64 out_batch) {
    const int row_tiles = ceil_div(m, BM), tiles = row_tiles * ceil_div(n, BN), tile = int(blockIdx.x) % tiles;
    const int slice = int(blockIdx.y), batch = int(blockIdx.x) / tiles, batches = int(gridDim.x) / tiles;
    const int m0 = tile % row_tiles * BM, n0 = tile / row_tiles * BN;
    const int steps = ceil_div(k, BK), steps_a_slice = ceil_div(steps, slices);
    const int begin = min_of(slice * steps_a_slice, steps), end = min_of(begin + steps_a_slice, steps);

    SMEM_DYN(memory);
    auto a_tile = [&](int stage) { return ATile{memory + stage * ATile::BYTES}; };
    auto b_tile = [&](int stage) { return BTile{memory + STAGES * ATile::BYTES + stage * BTile::BYTES}; };
    const int warp_m = warp_id() / WARPS_N * (BM / WARPS_M), warp_n = warp_id() % WARPS_N * (BN / WARPS_N);
    Sums sums;
    sums.zero();
    pipeline<STAGES>(
        begin, end,
        [&](int step, int stage) {
            load_operand<A_STORED, VEC_A>(a_tile(stage), a + batch * a_batch, a_pitch, m0, m, step * BK, k);
            load_operand<B_STORED, VEC_B>(b_tile(stage), b + batch * b_batch, b_pitch, n0, n, step * BK, k);
        },
        [&](int stage) { sums.multiply(a_tile(stage), b_tile(stage), warp_m, warp_n); });

    sums.each([&](int r, int c, float v) {
        const int row = m0 + warp_m + r, column = n0 + warp_n + c;
        if (row >= m || column >= n) return;
        if (slices == 1) {
            out[batch * out_batch + i64(row) * out_pitch + column] = from_float<OUT>(epilogue(v, bias, column, nullptr, 0));
        } else {
            partial[((i64(slice) * batches + batch) * m + row) * n + column] = v;
        }
    });
}
