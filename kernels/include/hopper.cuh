// What sm_90a adds, by name: barriers in shared memory that count arrivals and bytes, copies of tensors by TMA
// (TMA), products of a whole warpgroup straight from shared memory (wgmma), and registers handed from warp to warp.
//
// Kernels that include this file compile for sm_90a alone. `emu/hopper.cuh` has the same names. Exact facts: PTX ISA,
// "mbarrier", "cp.async.bulk.tensor", "Asynchronous Warpgroup Level Matrix Operations".
#ifndef GAN_HOPPER_CUH
#define GAN_HOPPER_CUH

#include "gan.cuh"

#ifdef GAN_EMULATE
#include "../emu/hopper.cuh"
#else

// What the host has encoded of a tensor: 128 bytes that only TMA reads. A kernel takes it by value.
struct alignas(64) TensorMap {
    u64 opaque[16];
};
#define BY_VALUE const __grid_constant__

// The value of the warp's first lane: the compiler then knows that branches on it do not part the warp.
DEVICE int uniform(int v) { return __shfl_sync(0xffffffffu, v, 0); }

// ---- barriers in shared memory ------------------------------------------------------------------------------------
// A phase is over when as many threads have arrived as the barrier was made for and all bytes that were expected have
// landed; the next one begins by itself. `mbar_wait(b, p)` waits for the end of a phase of parity p. A fresh barrier is in
// a phase of parity 0, the one before (parity 1) counts as over.

DEVICE void mbar_init(u64* bar, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
}

// Shows initialised barriers to TMA; a barrier of the block must follow.
DEVICE void mbar_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void mbar_arrive(u64* bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}

// Arrives, and lets the phase wait for so many bytes more (below 2^20).
DEVICE void mbar_arrive_expect(u64* bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes)
                 : "memory");
}

DEVICE void mbar_wait(u64* bar, int parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(bar)),
                 "r"(parity)
                 : "memory");
}

// ---- copies of tensors to shared memory ---------------------------------------------------------------------------
// One thread asks for a whole box; its bytes, those outside the tensor as zeros, are counted on `bar`. Coordinates go from
// the fastest axis to the slowest. In im2col mode the offsets are those of the filter's tap.

DEVICE void prefetch_map(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

DEVICE void tma_tiled2(void* to, const TensorMap* map, u64* bar, int c0, int c1) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
                 "[%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1)
                 : "memory");
}

DEVICE void tma_tiled3(void* to, const TensorMap* map, u64* bar, int c0, int c1, int c2) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
                 "%5}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(bar)), "r"(c0), "r"(c1), "r"(c2)
                 : "memory");
}

DEVICE void tma_im2col4(void* to, const TensorMap* map, u64* bar, int c, int w, int h, int n, int tap_w, int tap_h) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
                 "%5, %6}], [%2], {%7, %8};" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(bar)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(u16(tap_w)), "h"(u16(tap_h))
                 : "memory");
}

DEVICE void tma_im2col5(void* to, const TensorMap* map, u64* bar, int c, int w, int h, int d, int n, int tap_w, int tap_h,
                        int tap_d) {
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
                 "%5, %6, %7}], [%2], {%8, %9, %10};" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(bar)), "r"(c), "r"(w), "r"(h), "r"(d), "r"(n), "h"(u16(tap_w)),
                 "h"(u16(tap_h)), "h"(u16(tap_d))
                 : "memory");
}

// ---- products of a warpgroup: 128 threads, the first one's warp a multiple of 4 ---------------------------------------
// 64 rows times N columns, 16 deep, bf16 from shared memory, fp32 sums in registers: with l = lane = 4 g + t of warp w,
// d[4 j + i] is row 16 w + g + 8 (i >> 1), column 8 j + 2 t + (i & 1). Products run on by themselves until a wait.

// Shows what this thread wrote to shared memory to products and to TMA; a barrier must follow.
DEVICE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first product, and before one that follows any other use of its sums.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes a group of products.
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most Pending groups run: what the others read may be overwritten.
template <int Pending> DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

// Waits for all products, after which their sums may be read.
template <int Count> DEVICE void wgmma_finish(float (&d)[Count]) {
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < Count; i++) asm volatile("" : "+f"(d[i])::"memory"); // not read before
}

// The registers of the sums, as text and as operands.
#define GAN_SUMS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define GAN_SUMS_64 \
    GAN_SUMS_32 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define GAN_SUMS_128 \
    GAN_SUMS_64 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define GAN_OPERANDS_8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define GAN_OPERANDS_32(i) GAN_OPERANDS_8(i), GAN_OPERANDS_8(i + 8), GAN_OPERANDS_8(i + 16), GAN_OPERANDS_8(i + 24)
#define GAN_OPERANDS_64(i) GAN_OPERANDS_32(i), GAN_OPERANDS_32(i + 32)
#define GAN_OPERANDS_128(i) GAN_OPERANDS_64(i), GAN_OPERANDS_64(i + 64)
#define GAN_WGMMA(n, count, a, b, go, ta, tb)                                                                \
    asm volatile("{\n.reg .pred go;\nsetp.ne.b32 go, " go ", 0;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" GAN_SUMS_##count "}, " a ", " b \
                 ", go, 1, 1, " ta ", " tb ";\n}"                                                            \
                 : GAN_OPERANDS_##count(0)                                                                   \
                 : "l"(x), "l"(y), "r"(int(add)), "n"(int(ACross)), "n"(int(BCross)))

// d = A B, or d += A B where `add`. x and y are the operands' descriptors (see below); an operand lies across the summed
// index (MN-major) or along it (K-major).
template <bool ACross, bool BCross, int Count> DEVICE void wgmma(float (&d)[Count], u64 x, u64 y, bool add) {
    if constexpr (Count == 32) {
        GAN_WGMMA("64", 32, "%32", "%33", "%34", "%35", "%36");
    } else if constexpr (Count == 64) {
        GAN_WGMMA("128", 64, "%64", "%65", "%66", "%67", "%68");
    } else {
        static_assert(Count == 128, "64, 128 or 256 columns");
        GAN_WGMMA("256", 128, "%128", "%129", "%130", "%131", "%132");
    }
}

// ---- registers: all four warps of a group hand some back, or take more; multiples of 8 ---------------------------------

template <int Count> DEVICE void registers_down_to() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count)); }
template <int Count> DEVICE void registers_up_to() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count)); }

#endif

// ---- descriptors of operands in shared memory, rows of 128 bytes whose 16-byte chunks are swizzled ------------------------
//   along the summed index    rows are m or n, 64 k wide; 8 rows lie together; 16 k further: 32 bytes further
//   across it                 rows are k, 64 m or n wide; 8 rows lie together; the next 64 m or n: `next` bytes further;
//                             16 k further: 2048 bytes further
// Every tile begins at a multiple of 1024 bytes.
DEVICE u64 descriptor(const void* tile, int next) {
    const u64 eight_rows = 1024 >> 4, swizzle_128 = 1;
    return u64((shared_address(tile) & 0x3ffff) >> 4) | u64(next >> 4) << 16 | eight_rows << 32 | swizzle_128 << 62;
}

// The same operand so many bytes further.
DEVICE u64 further(u64 descriptor, int bytes) { return descriptor + u64(bytes >> 4); }

#endif
