// The primitives of `include/hopper.cuh` on the CPU: see `emu/hopper.hpp`. Included by that header when GAN_EMULATE is defined.
#ifndef GAN_EMU_HOPPER_CUH
#define GAN_EMU_HOPPER_CUH

// 128 bytes like the driver's; what is in them stands in `emu/hopper.hpp`.
struct TensorMap {
    u64 words[16];
};
#define BY_VALUE const

u32 emu_shared_address(const void* p, EmuSite);
void emu_mbar_init(u64* bar, int arrivals, EmuSite);
void emu_mbar_arrive(u64* bar, int expected_bytes, EmuSite);
void emu_mbar_wait(u64* bar, int parity, EmuSite);
void emu_tma(void* to, const void* map, u64* bar, int rank, bool im2col, const int* at, const int* taps, EmuSite);
void emu_wgmma_fence(EmuSite);
void emu_wgmma_commit(EmuSite);
void emu_wgmma_wait(int pending, EmuSite);
void emu_wgmma(float* d, int columns, u64 x, u64 y, bool a_across, bool b_across, bool add, EmuSite);
void emu_registers(int count, bool up, EmuSite);

inline int uniform(int v, EMU_HERE) { return int(emu_shuffle(u32(v), 0, {file, line})); }
inline u32 shared_address(const void* p, EMU_HERE) { return emu_shared_address(p, {file, line}); }

inline void mbar_init(u64* bar, int arrivals, EMU_HERE) { emu_mbar_init(bar, arrivals, {file, line}); }
inline void mbar_init_fence() {}
inline void mbar_arrive(u64* bar, EMU_HERE) { emu_mbar_arrive(bar, 0, {file, line}); }
inline void mbar_arrive_expect(u64* bar, int bytes, EMU_HERE) { emu_mbar_arrive(bar, bytes, {file, line}); }
inline void mbar_wait(u64* bar, int parity, EMU_HERE) { emu_mbar_wait(bar, parity, {file, line}); }

inline void prefetch_map(const TensorMap*) {}
inline void tma_tiled2(void* to, const TensorMap* map, u64* bar, int c0, int c1, EMU_HERE) {
    const int at[] = {c0, c1};
    emu_tma(to, map, bar, 2, false, at, nullptr, {file, line});
}
inline void tma_tiled3(void* to, const TensorMap* map, u64* bar, int c0, int c1, int c2, EMU_HERE) {
    const int at[] = {c0, c1, c2};
    emu_tma(to, map, bar, 3, false, at, nullptr, {file, line});
}
inline void tma_im2col4(void* to, const TensorMap* map, u64* bar, int c, int w, int h, int n, int tap_w, int tap_h,
                        EMU_HERE) {
    const int at[] = {c, w, h, n}, taps[] = {tap_w, tap_h};
    emu_tma(to, map, bar, 4, true, at, taps, {file, line});
}
inline void tma_im2col5(void* to, const TensorMap* map, u64* bar, int c, int w, int h, int d, int n, int tap_w, int tap_h,
                        int tap_d, EMU_HERE) {
    const int at[] = {c, w, h, d, n}, taps[] = {tap_w, tap_h, tap_d};
    emu_tma(to, map, bar, 5, true, at, taps, {file, line});
}

inline void fence_async() {}
inline void wgmma_fence(EMU_HERE) { emu_wgmma_fence({file, line}); }
inline void wgmma_commit(EMU_HERE) { emu_wgmma_commit({file, line}); }
template <int Pending> inline void wgmma_wait(EMU_HERE) { emu_wgmma_wait(Pending, {file, line}); }
template <int Count> inline void wgmma_finish(float (&)[Count], EMU_HERE) { emu_wgmma_wait(0, {file, line}); }
template <bool ACross, bool BCross, int Count> inline void wgmma(float (&d)[Count], u64 x, u64 y, bool add, EMU_HERE) {
    emu_wgmma(d, 2 * Count, x, y, ACross, BCross, add, {file, line});
}
template <int Count> inline void registers_down_to(EMU_HERE) { emu_registers(Count, false, {file, line}); }
template <int Count> inline void registers_up_to(EMU_HERE) { emu_registers(Count, true, {file, line}); }

#endif
