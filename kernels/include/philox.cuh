// Philox 4x32-10, number for number as `src/rng.rs`.
#ifndef GAN_PHILOX_CUH
#define GAN_PHILOX_CUH

#include "gan.cuh"

struct Philox {
    u32 word[4];
};

DEVICE Philox philox4x32(u32 c0, u32 c1, u32 c2, u32 c3, u32 key0, u32 key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 p0 = u64(0xD2511F53u) * c0, p1 = u64(0xCD9E8D57u) * c2;
        c0 = u32(p1 >> 32) ^ c1 ^ key0;
        c1 = u32(p1);
        c2 = u32(p0 >> 32) ^ c3 ^ key1;
        c3 = u32(p0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The number of a step, in two parts that fp32 holds exactly: the lower 24 bits and those above (`step_input` in `src/rng.rs`).
DEVICE u32 step_number(const float* step) { return u32(step[0]) + (u32(step[1]) << 24); }

#endif
