// Dropout, forward and gradient alike: the mask is a pure function of seed, stream, step and position, so it is never
// stored, and the CPU draws the same one.
//
// Versions
//   1  a thread makes one Philox block of four words for four neighbouring elements. Not yet measured.
//
//   y[e] = x[e] scale where philox(counter = [e / 4 (64 bits), stream, *step], key = seed)[e % 4] / 2^8 >= threshold,
//   else 0; threshold = ceil(2^24 p), which compares exactly as unit(word) >= p does in double precision
//   any grid (a grid-stride loop); block 256
//
// Constants: TYPE (float, bf16). `step` lies in device memory, so that a captured step can be replayed.
#include "philox.cuh"

KERNEL __launch_bounds__(256, 4)
dropout(i64 count, u32 threshold, float scale, u32 seed_low, u32 seed_high, u32 stream, const float* __restrict__ step,
        const TYPE* __restrict__ x, TYPE* __restrict__ y) {
    const u32 now = u32(*step);
    for (i64 q = global_thread(); 4 * q < count; q += global_threads()) {
        const Philox r = philox4x32(u32(q), u32(u64(q) >> 32), stream, now, seed_low, seed_high);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const i64 e = 4 * q + j;
            if (e < count) y[e] = from_float<TYPE>(r.word[j] >> 8 >= threshold ? to_float(x[e]) * scale : 0.0f);
        }
    }
}
