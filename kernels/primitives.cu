// Every primitive of `include/ptx.cuh` by itself, so that a device can be compared with its documentation before anything
// is built on it. Not part of any program: run by `tests/emulated` on the emulator and by `tests/gpu` on a device.
//
// One warp each. Version 1: one kernel per group of primitives.

#include "gan.cuh"

// in: 32 numbers; out: what shuffle_xor(., 5) and shuffle(., 7 lane mod 32) give.
KERNEL shuffles(const float* in, float* out) {
    const int lane = lane_id();
    out[lane] = shuffle_xor(in[lane], 5);
    out[32 + lane] = shuffle(in[lane], lane * 7 % 32);
}

// in: 64 numbers; out: 32 rounded to bf16, sine and cosine of so many turns as the others say.
KERNEL roundings(const float* in, float* out) {
    const int lane = lane_id();
    out[lane] = to_float(float_to_bf16(in[lane]));
    out[32 + lane] = float(sin_turns(double(in[32 + lane])));
    out[64 + lane] = float(cos_turns(double(in[32 + lane])));
}

// in: 288 numbers; out: the first 128 by copies of 16 bytes, of which every third is told to be zeros; the next 128 as
// read after all but the latest group have landed; 32 by copies of 4 bytes, every fifth zeros.
KERNEL async_copies(const float* in, float* out) {
    SMEM(float, first, 128);
    SMEM(float, second, 128);
    SMEM(float, third, 32);
    const int lane = lane_id();
    cp_async16(first + 4 * lane, in + 4 * lane, lane % 3 != 0);
    cp_async_commit();
    cp_async16(second + 4 * lane, in + 128 + 4 * lane, true);
    cp_async_commit();
    cp_async4(third + lane, in + 256 + lane, lane % 5 != 0);
    cp_async_commit();
    cp_async_wait<1>();
    sync_warp();
    // Of another lane, so that the wait of each matters to all.
    const int other = (lane + 1) % 32;
    for (int i = 0; i < 4; i++) {
        out[4 * other + i] = first[4 * other + i];
        out[128 + 4 * other + i] = second[4 * other + i];
    }
    cp_async_wait<0>();
    sync_warp();
    out[256 + other] = third[other];
}

#ifdef TENSOR_CORES

// in: 32 rows of four 32-bit words (four 8 x 8 matrices of 16-bit values, one below the other); out: the four registers of
// every lane, plain and transposed, as their 16-bit halves.
KERNEL matrices(const float* in, float* out) {
    SMEM(u32, rows, 128);
    const int lane = lane_id();
    // 16-bit values are given as numbers: two become one word.
    for (int i = lane; i < 128; i += 32) rows[i] = u32(in[2 * i]) | u32(in[2 * i + 1]) << 16;
    sync_warp();
    u32 plain[4], transposed[4];
    ldmatrix_x4(plain, rows + 4 * lane);
    ldmatrix_x4_trans(transposed, rows + 4 * lane);
    for (int i = 0; i < 4; i++) {
        float* to = out + (lane * 4 + i) * 2;
        to[0] = float(plain[i] & 0xffffu);
        to[1] = float(plain[i] >> 16);
        to[256] = float(transposed[i] & 0xffffu);
        to[257] = float(transposed[i] >> 16);
    }
}

// a: 32 x 16, b: 16 columns of 16 (k fastest); out: 32 x 16, two by two fragments of bf16.
KERNEL products_bf16(const float* a, const float* b, float* out) {
    const int g = lane_id() / 4, t = lane_id() % 4;
    auto pair = [](const float* p) { return u32(float_to_bf16(p[0]).bits) | u32(float_to_bf16(p[1]).bits) << 16; };
    u32 x[2][4], y[2][2];
    float c[2][2][4] = {};
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < 4; i++) x[m][i] = pair(a + (16 * m + g + 8 * (i & 1)) * 16 + 2 * t + 8 * (i >> 1));
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 2; i++) y[n][i] = pair(b + (8 * n + g) * 16 + 2 * t + 8 * i);
    mma_bf16(c, x, y);
    for (int m = 0; m < 2; m++)
        for (int n = 0; n < 2; n++)
            for (int i = 0; i < 4; i++) out[(16 * m + g + 8 * (i >> 1)) * 16 + 8 * n + 2 * t + (i & 1)] = c[m][n][i];
}

// a: 32 x 8, b: 16 columns of 8 (k fastest); out: 32 x 16, two by two fragments of tf32; then 32 numbers of a rounded.
KERNEL products_tf32(const float* a, const float* b, float* out) {
    const int g = lane_id() / 4, t = lane_id() % 4;
    auto word = [](float v) { return round_tf32(float_to_bits(v)); };
    u32 x[2][4], y[2][2];
    float c[2][2][4] = {};
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < 4; i++) x[m][i] = word(a[(16 * m + g + 8 * (i & 1)) * 8 + t + 4 * (i >> 1)]);
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 2; i++) y[n][i] = word(b[(8 * n + g) * 8 + t + 4 * i]);
    mma_tf32(c, x, y);
    for (int m = 0; m < 2; m++)
        for (int n = 0; n < 2; n++)
            for (int i = 0; i < 4; i++) out[(16 * m + g + 8 * (i >> 1)) * 16 + 8 * n + 2 * t + (i & 1)] = c[m][n][i];
    out[512 + lane_id()] = bits_to_float(word(a[lane_id()]));
}

#endif
