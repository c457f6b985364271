// The primitives that need PTX, by name; `emu/emu.cuh` has the same names. Inline assembly stands here and, for sm_90a, in
// `hopper.cuh` alone.
//
// What is volatile: whatever touches memory, waits, or needs all lanes of a warp (`.sync.aligned`). Products touch registers
// alone, but without `volatile` the compiler may move them to where their sums are used, a branch that only some lanes take.
// Conversions are neither: they may be moved, shared and left out.
//
// Needed per architecture: asynchronous copies and tensor cores from sm_80 on. On sm_75 the copies are done at once,
// which is slower and just as right; the tensor-core functions are absent, so only the FMA kernels compile there.
#ifndef GAN_PTX_CUH
#define GAN_PTX_CUH

__device__ __forceinline__ float bits_to_float(u32 v) { return __uint_as_float(v); }
__device__ __forceinline__ u32 float_to_bits(float v) { return __float_as_uint(v); }

// Round to nearest, ties to even; any NaN becomes 0x7fff.
__device__ __forceinline__ bf16 float_to_bf16(float v) {
    bf16 out;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(v));
#else
    u32 b = float_to_bits(v);
    out.bits = v != v ? u16(0x7fff) : u16((b + 0x7fff + ((b >> 16) & 1)) >> 16);
#endif
    return out;
}

// Sine and cosine of an angle given in whole turns.
__device__ __forceinline__ double sin_turns(double v) { return sinpi(2.0 * v); }
__device__ __forceinline__ double cos_turns(double v) { return cospi(2.0 * v); }

// ---- warps --------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void sync_warp() { __syncwarp(); }

// The value that lane (this ^ mask) passed.
__device__ __forceinline__ float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }

// The value that `lane` passed.
__device__ __forceinline__ float shuffle(float v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }

// ---- between blocks -----------------------------------------------------------------------------------------------

// Adds one to a counter in global memory and gives back what it held.
__device__ __forceinline__ u32 take_ticket(u32* counter) { return atomicAdd(counter, 1u); }

// Whoever sees what this thread writes after it (a ticket) also sees what it wrote before.
__device__ __forceinline__ void fence_device() { __threadfence(); }

// ---- asynchronous copies from global to shared memory -------------------------------------------------------------
// A thread's copies since its last commit form a group. After `cp_async_wait<N>` all but its latest N groups have
// landed, for this thread only: a barrier must follow before others read them. With `valid` false the destination is
// filled with zeros and the source is not read (it must still be a valid address).

__device__ __forceinline__ u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void cp_async16(void* to, const void* from, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#else
    *static_cast<Chunk*>(to) = valid ? *static_cast<const Chunk*>(from) : Chunk{};
#endif
}

__device__ __forceinline__ void cp_async4(void* to, const void* from, bool valid) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0)
                 : "memory");
#else
    *static_cast<u32*>(to) = valid ? *static_cast<const u32*>(from) : 0u;
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int Pending> __device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

// ---- tensor cores -------------------------------------------------------------------------------------------------
// Fragments of a warp, lane = 4 g + t. For bf16 a register holds two values, the lower k in the lower half.
//   A 16 x 16 (bf16)  a[i]: row g + 8 (i & 1), k = 2 t + 8 (i >> 1) + {0, 1}
//   A 16 x 8  (tf32)  a[i]: row g + 8 (i & 1), k = t + 4 (i >> 1)
//   B 8 x 16 / 8 x 8  b[i]: column g, k = 2 t + 8 i + {0, 1}  /  k = t + 4 i
//   C 16 x 8          c[i]: row g + 8 (i >> 1), column 2 t + (i & 1)

#if __CUDA_ARCH__ >= 800

// Four 8 x 8 matrices of 16-bit values (or 8 x 4 of 32-bit values): lanes 8 i .. 8 i + 7 give the addresses of the
// eight 16-byte rows of matrix i; register i receives matrix i, row g, 32-bit column t.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, every matrix of 16-bit values transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Rounds to the 10-bit mantissa that the tensor cores read of an fp32 number; ties away from zero.
__device__ __forceinline__ u32 round_tf32(u32 v) {
    u32 out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(v)));
    return out;
}

// c += a b for an MI x NI arrangement of fragments, 16 deep, bf16.
template <int MI, int NI>
__device__ __forceinline__ void mma_bf16(float (&c)[MI][NI][4], const u32 (&a)[MI][4], const u32 (&b)[NI][2]) {
#pragma unroll
    for (int m = 0; m < MI; m++)
#pragma unroll
        for (int n = 0; n < NI; n++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                         "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                         : "+f"(c[m][n][0]), "+f"(c[m][n][1]), "+f"(c[m][n][2]), "+f"(c[m][n][3])
                         : "r"(a[m][0]), "r"(a[m][1]), "r"(a[m][2]), "r"(a[m][3]), "r"(b[n][0]), "r"(b[n][1]));
}

// c += a b for an MI x NI arrangement of fragments, 8 deep, tf32.
template <int MI, int NI>
__device__ __forceinline__ void mma_tf32(float (&c)[MI][NI][4], const u32 (&a)[MI][4], const u32 (&b)[NI][2]) {
#pragma unroll
    for (int m = 0; m < MI; m++)
#pragma unroll
        for (int n = 0; n < NI; n++)
            asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                         "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                         : "+f"(c[m][n][0]), "+f"(c[m][n][1]), "+f"(c[m][n][2]), "+f"(c[m][n][3])
                         : "r"(a[m][0]), "r"(a[m][1]), "r"(a[m][2]), "r"(a[m][3]), "r"(b[n][0]), "r"(b[n][1]));
}

#endif
#endif
