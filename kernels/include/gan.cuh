// What every kernel starts from: integer names, bf16, shared memory, and the warp and tensor-core primitives.
//
// Kernels include nothing but the headers of this folder: the run-time compiler finds no others. The same sources are
// also compiled as plain C++ against `emu/emu.cuh`, which runs them on the CPU, one fiber a CUDA thread. For that to
// work, kernels keep five rules:
//   1. shared memory is declared with SMEM (size known) or SMEM_DYN (size given at launch);
//   2. anything that needs PTX goes through the named primitives of `ptx.cuh`;
//   3. blocks are one-dimensional whole warps, and all 32 lanes meet in every warp primitive;
//   4. constants given by -D are in capitals and longer than a letter, and nothing in a header is called like one;
//   5. no spinning, no grid-wide synchronisation, no floating-point atomics.
#ifndef GAN_CUH
#define GAN_CUH

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// The upper half of an IEEE float.
struct bf16 {
    u16 bits;
};

// 16 bytes that move as one.
struct alignas(16) Chunk {
    u32 word[4];
};

#ifdef GAN_EMULATE
#include "../emu/emu.cuh"
#define SMEM(T, name, count)     \
    static char name##_identity; \
    T* const name = static_cast<T*>(emu_static_shared(&name##_identity, sizeof(T) * (count), #name))
#define SMEM_DYN(name) u8* const name = emu_dynamic_shared()
#else
#include "ptx.cuh"
#define SMEM(T, name, count) __shared__ __align__(16) T name[count]
#define SMEM_DYN(name) extern __shared__ __align__(1024) u8 name[]
#endif

#define KERNEL extern "C" __global__ void
#define DEVICE __device__ __forceinline__

// ---- element types: arithmetic is always done in fp32 -------------------------------------------------------------

DEVICE float to_float(float v) { return v; }
DEVICE float to_float(bf16 v) { return bits_to_float(u32(v.bits) << 16); }

template <class T> DEVICE T from_float(float v);
template <> DEVICE float from_float<float>(float v) { return v; }
template <> DEVICE bf16 from_float<bf16>(float v) { return float_to_bf16(v); }

constexpr u32 INFINITY_BITS = 0x7f800000;
#define INFINITY_FLOAT bits_to_float(INFINITY_BITS)

// ---- small integer helpers ----------------------------------------------------------------------------------------

DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
DEVICE constexpr int min_of(int a, int b) { return a < b ? a : b; }
DEVICE constexpr int max_of(int a, int b) { return a > b ? a : b; }
DEVICE bool inside(int v, int extent) { return u32(v) < u32(extent); } // 0 <= v < extent

// The remainder that is never negative.
DEVICE constexpr int mod_floor(int a, int b) { return (a % b + b) % b; }

DEVICE int lane_id() { return int(threadIdx.x & 31); }
DEVICE int warp_id() { return int(threadIdx.x >> 5); }

// This thread's number in the grid, for one-dimensional grids.
DEVICE i64 global_thread() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE i64 global_threads() { return i64(gridDim.x) * blockDim.x; }

#endif
