// The primitives of `include/ptx.cuh` on the CPU. Included by `gan.cuh` when GAN_EMULATE is defined.
//
// One fiber runs each CUDA thread. A warp primitive leaves a pointer to its operands with the warp and sleeps; the last
// lane to arrive computes for all 32. See `emu.cpp`.
#ifndef GAN_EMU_CUH
#define GAN_EMU_CUH

// C's own <math.h>: C++'s, with its overloads, takes longer to compile than most kernels, which call the functions of float
// by their own names anyway. The build makes a call that widens a float by itself an error.
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <math.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct EmuDim {
    u32 x, y, z;
};

// What a running kernel may see of its thread.
struct EmuThread {
    EmuDim thread, block;
};

extern EmuThread* emu_self;
extern EmuDim emu_grid_dim, emu_block_dim;
#define threadIdx (emu_self->thread)
#define blockIdx (emu_self->block)
#define gridDim (emu_grid_dim)
#define blockDim (emu_block_dim)

// Where in the sources a primitive was called; two lanes that meet at different places have diverged.
struct EmuSite {
    const char* file;
    int line;
};
#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

void* emu_static_shared(const void* identity, size_t bytes, const char* name);
u8* emu_dynamic_shared();
void emu_barrier(EmuSite);
void emu_sync_warp(EmuSite);
u32 emu_shuffle(u32 value, int lane, EmuSite);
void emu_ldmatrix(u32* r, const u32* row, const void* address, bool transpose, EmuSite);
void emu_mma_bf16(float* c, const u32* a, const u32* b, int mi, int ni, EmuSite);
void emu_mma_tf32(float* c, const u32* a, const u32* b, int mi, int ni, EmuSite);
void emu_cp_async(void* to, const void* from, int bytes, bool valid, EmuSite);
u32 emu_take_ticket(u32* counter, EmuSite);
void emu_fence_device();
void emu_cp_async_commit();
void emu_cp_async_wait(int pending);

inline void __syncthreads(EMU_HERE) { emu_barrier({file, line}); }

inline float bits_to_float(u32 v) {
    float f;
    memcpy(&f, &v, 4);
    return f;
}
inline u32 float_to_bits(float f) {
    u32 v;
    memcpy(&v, &f, 4);
    return v;
}
inline bf16 float_to_bf16(float v) {
    u32 b = float_to_bits(v);
    return {v != v ? u16(0x7fff) : u16((b + 0x7fff + ((b >> 16) & 1)) >> 16)};
}

inline double sin_turns(double v) { return sin(6.283185307179586476925 * v); }
inline double cos_turns(double v) { return cos(6.283185307179586476925 * v); }

inline u32 take_ticket(u32* counter, EMU_HERE) { return emu_take_ticket(counter, {file, line}); }
inline void fence_device() { emu_fence_device(); } // memory is the host's, one block after another: only that it is there

inline void sync_warp(EMU_HERE) { emu_sync_warp({file, line}); }
inline float shuffle(float v, int lane, EMU_HERE) {
    return bits_to_float(emu_shuffle(float_to_bits(v), lane, {file, line}));
}
inline float shuffle_xor(float v, int mask, EMU_HERE) {
    return bits_to_float(emu_shuffle(float_to_bits(v), int(threadIdx.x & 31) ^ mask, {file, line}));
}

inline void cp_async16(void* to, const void* from, bool valid, EMU_HERE) {
    emu_cp_async(to, from, 16, valid, {file, line});
}
inline void cp_async4(void* to, const void* from, bool valid, EMU_HERE) {
    emu_cp_async(to, from, 4, valid, {file, line});
}
inline void cp_async_commit() { emu_cp_async_commit(); }
template <int Pending> inline void cp_async_wait() { emu_cp_async_wait(Pending); }

// Each lane reads its own row, so that a race on it is blamed on the right thread.
inline void ldmatrix_x4(u32 (&r)[4], const void* row, EMU_HERE) {
    Chunk mine = *static_cast<const Chunk*>(row);
    emu_ldmatrix(r, mine.word, row, false, {file, line});
}
inline void ldmatrix_x4_trans(u32 (&r)[4], const void* row, EMU_HERE) {
    Chunk mine = *static_cast<const Chunk*>(row);
    emu_ldmatrix(r, mine.word, row, true, {file, line});
}
inline u32 round_tf32(u32 v) { return (v & 0x7f800000) == 0x7f800000 ? v : (v + 0x1000) & 0xffffe000; }

template <int MI, int NI>
inline void mma_bf16(float (&c)[MI][NI][4], const u32 (&a)[MI][4], const u32 (&b)[NI][2], EMU_HERE) {
    emu_mma_bf16(&c[0][0][0], &a[0][0], &b[0][0], MI, NI, {file, line});
}
template <int MI, int NI>
inline void mma_tf32(float (&c)[MI][NI][4], const u32 (&a)[MI][4], const u32 (&b)[NI][2], EMU_HERE) {
    emu_mma_tf32(&c[0][0][0], &a[0][0], &b[0][0], MI, NI, {file, line});
}

inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
using ::fmaf;

// ---- calling a kernel the way the driver does: an array of pointers to its arguments --------------------------------

template <int... I> struct EmuIndices {};
template <int N, int... I> struct EmuCount : EmuCount<N - 1, N - 1, I...> {};
template <int... I> struct EmuCount<0, I...> {
    using type = EmuIndices<I...>;
};
template <class... A, int... I> inline void emu_apply(void (*kernel)(A...), void** args, EmuIndices<I...>) {
    kernel(*static_cast<A*>(args[I])...);
}
template <class... A> inline void emu_call(void (*kernel)(A...), void** args) {
    emu_apply(kernel, args, typename EmuCount<sizeof...(A)>::type{});
}

inline void emu_say(char* report, size_t size, const char* message) { snprintf(report, size, "%s", message); }

// Whether the arguments given are as many and as long as the kernel's parameters.
template <class... A>
inline bool emu_fits(void (*)(A...), const u32* sizes, int count, char* report, size_t report_size) {
    const u32 wanted[] = {u32(sizeof(A))...};
    if (count != int(sizeof...(A))) {
        snprintf(report, report_size, "%d arguments given, the kernel has %d", count, int(sizeof...(A)));
        return false;
    }
    for (int i = 0; i < count; i++)
        if (sizes[i] != wanted[i]) {
            snprintf(report, report_size, "argument %d has %u bytes, the kernel wants %u", i, sizes[i], wanted[i]);
            return false;
        }
    // Where each lies in the block of arguments; sm_70 and newer, CUDA 12.1 and newer.
    const u32 alignments[] = {u32(alignof(A))...}, most = 32764;
    u32 at = 0;
    for (int i = 0; i < count; i++) at = (at + alignments[i] - 1) / alignments[i] * alignments[i] + sizes[i];
    if (at > most) {
        snprintf(report, report_size, "%u bytes of arguments; a launch has %u", at, most);
        return false;
    }
    return true;
}

#endif
