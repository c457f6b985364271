// Every primitive of `include/hopper.cuh` by itself, as `primitives.cu` does for the others: run by `tests/emulated` on the
// emulator and by `tests/gpu` on a device of compute capability 9.0, before a convolution is trusted.
//
// One block each. Constants: COLUMNS (64, 128, 256), A_ACROSS, B_ACROSS (0, 1): the shape of `warpgroup_products`.
#include "hopper.cuh"
#include "tile.cuh"

#ifndef COLUMNS
#define COLUMNS 64
#define A_ACROSS 0
#define B_ACROSS 0
#endif

// 64 threads, 16 bytes of dynamic shared memory and a number for each lane. Two warps hand numbers to and fro through two
// barriers, four times: the first adds 1 and all of its lanes arrive, the second doubles and one of them arrives.
// in: 32 numbers; out: what becomes of them.
KERNEL phases(const float* in, float* out) {
    SMEM_DYN(memory);
    u64* const there = reinterpret_cast<u64*>(memory);
    u64* const back = there + 1;
    float* const slot = reinterpret_cast<float*>(memory + 16) + lane_id();
    if (threadIdx.x == 0) {
        mbar_init(there, 32);
        mbar_init(back, 1);
        mbar_init_fence();
    }
    if (threadIdx.x < 32) *slot = in[lane_id()];
    __syncthreads();
    for (int round = 0; round < 4; round++) {
        if (uniform(warp_id()) == 0) {
            mbar_wait(back, (round & 1) ^ 1); // the first time at once
            *slot += 1;
            mbar_arrive(there);
        } else {
            mbar_wait(there, round & 1);
            *slot *= 2;
            sync_warp();
            if (lane_id() == 0) mbar_arrive(back);
        }
    }
    if (warp_id() == 1) out[lane_id()] = *slot;
}

// Writes `bytes` bytes of shared memory as numbers, in the order in which they lie there.
DEVICE void show(const u8* memory, int bytes, float* out) {
    const bf16* values = reinterpret_cast<const bf16*>(memory);
    for (int i = int(threadIdx.x); i < bytes / 2; i += int(blockDim.x)) out[i] = to_float(values[i]);
}

// Begins a kernel of one barrier that counts one arrival, behind `bytes` bytes of boxes.
DEVICE u64* one_barrier(u8* memory, int bytes) {
    u64* const bar = reinterpret_cast<u64*>(memory + bytes);
    if (threadIdx.x == 0) {
        mbar_init(bar, 1);
        mbar_init_fence();
    }
    __syncthreads();
    return bar;
}

// out: the boxes of 64 x 4 elements at (c0, r0) of `flat` and of 64 x 2 x 3 at (c0, r0, p0) of `deep`, as they lie in shared
// memory. 64 threads.
KERNEL boxes_tiled(BY_VALUE TensorMap flat, BY_VALUE TensorMap deep, int c0, int r0, int p0, float* out) {
    SMEM_DYN(memory);
    u64* const bar = one_barrier(memory, 1024 + 768);
    if (threadIdx.x == 0) {
        prefetch_map(&flat);
        mbar_arrive_expect(bar, 512 + 768);
        tma_tiled2(memory, &flat, bar, c0, r0);
        tma_tiled3(memory + 1024, &deep, bar, c0, r0, p0);
    }
    mbar_wait(bar, 0);
    show(memory, 512, out);
    show(memory + 1024, 768, out + 256);
}

// out: the 64 channels from c0 on of the 48 pixels that follow (w, h, n), shifted by a tap, as they lie in shared memory.
KERNEL boxes_im2col4(BY_VALUE TensorMap map, int c0, int w, int h, int n, int tap_w, int tap_h, float* out) {
    SMEM_DYN(memory);
    u64* const bar = one_barrier(memory, 48 * 128);
    if (threadIdx.x == 0) {
        mbar_arrive_expect(bar, 48 * 128);
        tma_im2col4(memory, &map, bar, c0, w, h, n, tap_w, tap_h);
    }
    mbar_wait(bar, 0);
    show(memory, 48 * 128, out);
}

KERNEL boxes_im2col5(BY_VALUE TensorMap map, int c0, int w, int h, int d, int n, int tap_w, int tap_h, int tap_d,
                     float* out) {
    SMEM_DYN(memory);
    u64* const bar = one_barrier(memory, 48 * 128);
    if (threadIdx.x == 0) {
        mbar_arrive_expect(bar, 48 * 128);
        tma_im2col5(memory, &map, bar, c0, w, h, d, n, tap_w, tap_h, tap_d);
    }
    mbar_wait(bar, 0);
    show(memory, 48 * 128, out);
}

// Rows of 64 numbers each, written as an operand of wgmma: along the summed index as they are, across it in sub-tiles of 64.
template <bool Across, int Rows> DEVICE void write_operand(u8* memory, const float* from) {
    for (int i = int(threadIdx.x); i < Rows * 64; i += int(blockDim.x)) {
        const int row = i / 64, k = i % 64;
        const bf16 v = from_float<bf16>(from[i]);
        if (Across) *Tile<bf16, 64, 64>{memory + row / 64 * 8192}.at(k, row % 64) = v;
        else *Tile<bf16, Rows, 64>{memory}.at(row, k) = v;
    }
}

// 128 threads. a: 64 x 64, b: COLUMNS columns of 64 (the summed index fastest); out: 64 x COLUMNS, twice their product: once
// over what was in the sums before, once added to it.
KERNEL __launch_bounds__(128, 1) warpgroup_products(const float* a, const float* b, float* out) {
    SMEM_DYN(memory);
    u8* const columns = memory + 64 * 128;
    write_operand<A_ACROSS, 64>(memory, a);
    write_operand<B_ACROSS, COLUMNS>(columns, b);
    fence_async();
    __syncthreads();
    float d[COLUMNS / 2];
    for (float& v : d) v = 7;
    const u64 x = descriptor(memory, 0), y = descriptor(columns, B_ACROSS ? 8192 : 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; k++)
        wgmma<A_ACROSS, B_ACROSS>(d, further(x, (A_ACROSS ? 2048 : 32) * (k % 4)), further(y, (B_ACROSS ? 2048 : 32) * (k % 4)),
                                  k > 0);
    wgmma_commit();
    wgmma_finish(d);
    const int row = 16 * warp_id() + (lane_id() >> 2), column = 2 * (lane_id() & 3);
    for (int i = 0; i < COLUMNS / 2; i++)
        out[(row + 8 * (i >> 1 & 1)) * COLUMNS + i / 4 * 8 + column + (i & 1)] = d[i];
}

// 384 threads. out: each thread's number times its argument, after a third of them has handed registers to the others.
KERNEL __launch_bounds__(384, 1) registers(const float* in, float* out) {
    const float v = in[int(threadIdx.x)];
    if (uniform(warp_id() / 4) == 0) {
        registers_down_to<40>();
    } else {
        registers_up_to<232>();
    }
    out[int(threadIdx.x)] = v * float(threadIdx.x);
}
