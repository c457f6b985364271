// Random numbers that are a pure function of seed, stream, step and position: src/ops/random.rs draws the same ones.
//
// Versions
//   1  a thread makes one Philox block of four words for four neighbouring elements.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): 32 us a launch in a step of WGAN-GP (batch 64).
//
//   words = philox(counter = [e / 4 (64 bits), stream, step], key = seed)
//   uniform  y[e] = the upper 24 bits of words[e % 4], as a fraction
//   normal   pairs of words give a radius r = sqrt(-2 ln((word + 1/2) / 2^32)) and an angle (Box and Muller): r cos, r sin;
//            in double precision, because near 1 the logarithm has lost its digits in fp32
//   any grid (a grid-stride loop); block 256
//
// Constants: NORMAL (0, 1). `step` (in two parts, see philox.cuh) lies in device memory, so that a captured step can be replayed.
#include "philox.cuh"

struct Two {
    float first, second;
};

DEVICE Two normals(u32 radius, u32 angle) {
    const double scale = 1.0 / 4294967296.0;
    const double r = sqrt(-2.0 * log((double(radius) + 0.5) * scale)), turns = double(angle) * scale;
    return {float(r * cos_turns(turns)), float(r * sin_turns(turns))};
}

// Double precision takes registers.
KERNEL __launch_bounds__(256, NORMAL ? 2 : 4)
random_numbers(i64 count, u32 seed_low, u32 seed_high, u32 stream, const float* __restrict__ step, float* __restrict__ y) {
    const u32 now = step_number(step);
    for (i64 q = global_thread(); 4 * q < count; q += global_threads()) {
        const Philox r = philox4x32(u32(q), u32(u64(q) >> 32), stream, now, seed_low, seed_high);
        float value[4];
        if (NORMAL) {
            const Two a = normals(r.word[0], r.word[1]), b = normals(r.word[2], r.word[3]);
            value[0] = a.first, value[1] = a.second, value[2] = b.first, value[3] = b.second;
        } else {
#pragma unroll
            for (int j = 0; j < 4; j++) value[j] = float(r.word[j] >> 8) * (1.0f / 16777216.0f);
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (4 * q + j < count) y[4 * q + j] = value[j];
    }
}
