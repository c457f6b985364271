// Swaps the last two axes: NCHW to NHWC and back, at the border of the program.
//
// Versions
//   1  tiles of 32 x 32 through shared memory, one word of padding a row against bank conflicts.
//   On an H100 it conforms; its time was not recorded by itself (docs/measurements/2026-11-27-steps-h100.md).
//
//   y[b, column, row] = x[b, row, column]
//   grid  (columns / 32, rows / 32, b);  block  256 threads
// Constants: IN, OUT.
#include "gan.cuh"

KERNEL __launch_bounds__(256, 4) transpose(int rows, int columns, const IN* __restrict__ x, OUT* __restrict__ y) {
    SMEM(float, tile, 32 * 33);
    const int across = int(threadIdx.x) & 31, down = int(threadIdx.x) >> 5;
    const int row0 = int(blockIdx.y) * 32, column0 = int(blockIdx.x) * 32;
    const i64 base = i64(blockIdx.z) * rows * columns;
    for (int j = down; j < 32; j += 8) {
        const int row = row0 + j, column = column0 + across;
        if (row < rows && column < columns) tile[j * 33 + across] = to_float(x[base + i64(row) * columns + column]);
    }
    __syncthreads();
    for (int j = down; j < 32; j += 8) {
        const int row = row0 + across, column = column0 + j;
        if (row < rows && column < columns) y[base + i64(column) * rows + row] = from_float<OUT>(tile[across * 33 + j]);
    }
}
