// One warp's share of a matrix product: WM x WN sums in registers, fed from two tiles in shared memory.
//
//   MATH_FMA   fp32, one fused multiply-add at a time: exact to fp32 rounding, any device
//   MATH_TF32  fp32 in, rounded to a 10-bit mantissa, tensor cores (sm_80 and up), fp32 sums
//   MATH_BF16  bf16 in, tensor cores (sm_80 and up), fp32 sums
//
// Either operand may be stored along the summed index ("by k": tile rows are m or n, columns are k), or across it
// (tile rows are k). Which lane holds which sum differs; `each` tells.
#ifndef GAN_WARP_TILE_CUH
#define GAN_WARP_TILE_CUH

#include "tile.cuh"

// How many blocks of a matrix kernel are to share a multiprocessor: caps the registers of a thread. Never left to the
// compiler, which spills registers to fit one more block.
#ifndef MIN_BLOCKS
#define MIN_BLOCKS 1
#endif

enum Math { MATH_FMA, MATH_TF32, MATH_BF16 };
enum Stored { ALONG_K, ACROSS_K };

// The element that a math multiplies.
template <Math By> struct MathOf {
    typedef float Element;
};
template <> struct MathOf<MATH_BF16> {
    typedef bf16 Element;
};

// The tile in which an operand of Extent rows or columns and Depth summed indices is stored.
template <Math By, Stored How, int Extent, int Depth> struct OperandTile {
    typedef Tile<typename MathOf<By>::Element, Extent, Depth> Type;
};
template <Math By, int Extent, int Depth> struct OperandTile<By, ACROSS_K, Extent, Depth> {
    typedef Tile<typename MathOf<By>::Element, Depth, Extent, By == MATH_TF32 ? BY_WORD : BY_ROW> Type;
};

// ---- tensor cores -------------------------------------------------------------------------------------------------

template <Math By, Stored HowA, Stored HowB, int WM, int WN, int Depth> struct WarpTile {
    static constexpr int MI = WM / 16, NI = WN / 8;
    static constexpr int K_STEP = By == MATH_BF16 ? 16 : 8; // depth of one mma
    static constexpr int PER_CHUNK = K_STEP / 2;
    static_assert(WM % 16 == 0 && WN % 16 == 0 && Depth % K_STEP == 0, "tensor-core tiles are multiples of 16");
    float sum[MI][NI][4];

    DEVICE void zero() {
        for (auto& row : sum)
            for (auto& fragment : row)
                for (float& v : fragment) v = 0;
    }

    // sum += A B, for rows m0.. of A and columns n0.. of B.
    template <class TA, class TB> DEVICE void multiply(const TA& a_tile, const TB& b_tile, int m0, int n0) {
#pragma unroll
        for (int k = 0; k < Depth; k += K_STEP) {
            u32 a[MI][4], b[NI][2];
#pragma unroll
            for (int m = 0; m < MI; m++) load_a(a[m], a_tile, m0 + 16 * m, k);
#pragma unroll
            for (int n = 0; n < NI; n += 2) {
                u32 pair[4];
                load_b(pair, b_tile, n0 + 8 * n, k);
                b[n][0] = pair[0], b[n][1] = pair[1], b[n + 1][0] = pair[2], b[n + 1][1] = pair[3];
            }
            if constexpr (By == MATH_BF16) {
                mma_bf16<MI, NI>(sum, a, b);
            } else {
                mma_tf32<MI, NI>(sum, a, b);
            }
        }
    }

    // Calls f(row, column, sum) for each of this lane's sums, relative to the warp's tile.
    template <class F> DEVICE void each(F f) const {
        int g = lane_id() >> 2, t = lane_id() & 3;
#pragma unroll
        for (int m = 0; m < MI; m++)
#pragma unroll
            for (int n = 0; n < NI; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) f(16 * m + g + 8 * (i >> 1), 8 * n + 2 * t + (i & 1), sum[m][n][i]);
    }

  private:
    template <class TA> DEVICE static void load_a(u32 (&r)[4], const TA& tile, int m, int k) {
        int l = lane_id();
        if constexpr (HowA == ALONG_K) {
            ldmatrix_x4(r, tile.chunk(m + (l & 15), k / PER_CHUNK + (l >> 4)));
        } else if constexpr (By == MATH_BF16) {
            ldmatrix_x4_trans(r, tile.chunk(k + (l & 7) + 8 * (l >> 4), m / PER_CHUNK + ((l >> 3) & 1)));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                r[i] = float_to_bits(*tile.at(k + (l & 3) + 4 * (i >> 1), m + (l >> 2) + 8 * (i & 1)));
        }
        round_operands(r);
    }

    // Two neighbouring fragments of B: columns n.. and n + 8...
    template <class TB> DEVICE static void load_b(u32 (&r)[4], const TB& tile, int n, int k) {
        int l = lane_id();
        if constexpr (HowB == ALONG_K) {
            ldmatrix_x4(r, tile.chunk(n + (l & 7) + 8 * (l >> 4), k / PER_CHUNK + ((l >> 3) & 1)));
        } else if constexpr (By == MATH_BF16) {
            ldmatrix_x4_trans(r, tile.chunk(k + (l & 15), n / PER_CHUNK + (l >> 4)));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                r[i] = float_to_bits(*tile.at(k + (l & 3) + 4 * (i & 1), n + (l >> 2) + 8 * (i >> 1)));
        }
        round_operands(r);
    }

    DEVICE static void round_operands(u32 (&r)[4]) {
        if constexpr (By == MATH_TF32) {
#pragma unroll
            for (int i = 0; i < 4; i++) r[i] = round_tf32(r[i]);
        }
    }
};

// ---- plain multiply-adds: lane = 8 lm + ln holds rows lm + 4 i, columns ln + 8 j ----------------------------------

template <Stored HowA, Stored HowB, int WM, int WN, int Depth>
struct WarpTile<MATH_FMA, HowA, HowB, WM, WN, Depth> {
    static constexpr int MI = WM / 4, NI = WN / 8;
    static_assert(WM % 4 == 0 && WN % 8 == 0, "a warp's lanes stand 4 x 8");
    float sum[MI][NI];

    DEVICE void zero() {
        for (auto& row : sum)
            for (float& v : row) v = 0;
    }

    template <class TA, class TB> DEVICE void multiply(const TA& a_tile, const TB& b_tile, int m0, int n0) {
        int lm = lane_id() >> 3, ln = lane_id() & 7;
#pragma unroll 4
        for (int k = 0; k < Depth; k++) {
            float a[MI], b[NI];
#pragma unroll
            for (int i = 0; i < MI; i++) a[i] = element<HowA>(a_tile, m0 + lm + 4 * i, k);
#pragma unroll
            for (int j = 0; j < NI; j++) b[j] = element<HowB>(b_tile, n0 + ln + 8 * j, k);
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
        }
    }

    template <class F> DEVICE void each(F f) const {
        int lm = lane_id() >> 3, ln = lane_id() & 7;
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
            for (int j = 0; j < NI; j++) f(lm + 4 * i, ln + 8 * j, sum[i][j]);
    }

  private:
    template <Stored How, class T> DEVICE static float element(const T& tile, int outer, int k) {
        return How == ALONG_K ? *tile.at(outer, k) : *tile.at(k, outer);
    }
};

#endif
