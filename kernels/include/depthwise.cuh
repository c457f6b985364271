// Convolutions of channels that see few others, thread by thread: which results are a thread's, and what they read.
//
// A group has FROM channels of the source and TO of the result. A thread has WIDTH channels of the result, one group's or
// those of several groups, of RUN pixels in a row; threads lie along the channels first, LANES of them, and then along a patch of
// PATCH_D x PATCH_H x PATCH_W such runs, so that what neighbouring results read meets in the first-level cache.
//
// Constants: FROM, TO; WIDTH: a multiple of TO or a divisor of it, divides the channels; RUN: with GRAD_X a multiple of STRIDE_W;
// LANES; PATCH_D, PATCH_H, PATCH_W: with LANES, 256 threads; GRAD_X (0, 1): whether results are gradients by the input; SOURCE:
// the source's element type, and SOURCE_PIECE, how many of its channels are read at once; KERNEL_, STRIDE_ and DILATION_, each
// by D, H and W.
#ifndef GAN_DEPTHWISE_CUH
#define GAN_DEPTHWISE_CUH

#include "conv.cuh"
#include "epilogue.cuh"

constexpr int THREADS = 256, TAPS = KERNEL_D * KERNEL_H * KERNEL_W;
constexpr int SOURCES = (WIDTH > TO ? WIDTH / TO : 1) * FROM; // channels of the source that a thread reads
static_assert(LANES * PATCH_D * PATCH_H * PATCH_W == THREADS, "a patch is a block");
static_assert(WIDTH % TO == 0 || TO % WIDTH == 0, "whole groups, or a part of one");
static_assert(!GRAD_X || RUN % STRIDE_W == 0, "the taps of a result depend on its place in the run alone");

// The thread's source channel that its result channel `i` reads as number j of its group.
DEVICE constexpr int source_channel(int i, int j) { return i / TO * FROM + j; }

// Neighbouring elements that move as one.
template <class T, int N> struct alignas(N * sizeof(T)) Piece {
    T v[N];
};

template <int Bytes> struct UnitOf {
    typedef u32 Type;
};
template <> struct UnitOf<2> {
    typedef u16 Type;
};

// Some channels of a pixel as they are stored, read N at a time. They stay in words, of which bf16 takes one instruction each to
// convert; one by one, two.
template <class T, int Count, int N> struct Channels {
    static constexpr int BYTES = N * int(sizeof(T)), UNIT = BYTES < 4 ? BYTES : 4;
    typedef typename UnitOf<UNIT>::Type Unit;
    Unit unit[Count * int(sizeof(T)) / UNIT];

    DEVICE void clear() {
#pragma unroll
        for (Unit& u : unit) u = 0;
    }
    DEVICE void read(const T* from) {
#pragma unroll
        for (int i = 0; i < Count; i += N) {
            const auto piece = *reinterpret_cast<const Piece<Unit, BYTES / UNIT>*>(from + i);
#pragma unroll
            for (int j = 0; j < BYTES / UNIT; j++) unit[i / N * (BYTES / UNIT) + j] = piece.v[j];
        }
    }
    DEVICE void convert(float (&to)[Count]) const {
#pragma unroll
        for (int i = 0; i < Count; i++) {
            if (sizeof(T) == 4) to[i] = bits_to_float(unit[i]);
            else if (UNIT == 2) to[i] = bits_to_float(u32(unit[i]) << 16);
            else to[i] = bits_to_float(i % 2 ? u32(unit[i / 2]) & 0xffff0000u : u32(unit[i / 2]) << 16);
        }
    }
};

// Patches of all images, and how many an image has along each axis.
struct Patches {
    int count;
    Divider d, h, w;
};

// The first pixel of a thread's run.
struct Run {
    int image, d, h, w;
};

// `before`: how many pixels before the first one the first run begins.
DEVICE Run run_of(const Patches& patches, int patch, int before) {
    const int row = int(threadIdx.x) / LANES;
    const int dh = quotient(patch, patches.w.by, patches.w), d = quotient(dh, patches.h.by, patches.h);
    const int image = quotient(d, patches.d.by, patches.d);
    return {image, (d - image * patches.d.by) * PATCH_D + row / (PATCH_H * PATCH_W),
            (dh - d * patches.h.by) * PATCH_H + row / PATCH_W % PATCH_H,
            ((patch - dh * patches.w.by) * PATCH_W + row % PATCH_W) * RUN - before};
}

// Along depth or height, the coordinate that position `at` reads through a tap, or -1.
template <int Stride, int Dilation> DEVICE int source_at(int at, int tap, int padding, int extent) {
    if (!GRAD_X) {
        const int to = at * Stride + tap * Dilation - padding;
        return inside(to, extent) ? to : -1;
    }
    const int to = at + padding - tap * Dilation;
    return to >= 0 && to % Stride == 0 && to / Stride < extent ? to / Stride : -1;
}

// Along the width a run reads READ neighbours, the first of them BEHIND before what its first result sees through tap 0, and all
// that is asked about them is known to the compiler: whether any result reads one, and which do through which tap.
constexpr int REACH = (KERNEL_W - 1) * DILATION_W, BEHIND = GRAD_X ? REACH / STRIDE_W : 0;
constexpr int READ = GRAD_X ? BEHIND + (RUN - 1) / STRIDE_W + 1 : (RUN - 1) * STRIDE_W + REACH + 1;

DEVICE constexpr bool meets(int read, int result, int tap) {
    return GRAD_X ? (read - BEHIND) * STRIDE_W == result - tap * DILATION_W : read == result * STRIDE_W + tap * DILATION_W;
}
DEVICE constexpr bool is_read(int read) {
    bool any = false;
#pragma unroll
    for (int t = 0; t < RUN; t++)
#pragma unroll
        for (int r = 0; r < KERNEL_W; r++) any = any || meets(read, t, r);
    return any;
}

// Calls `act(neighbour, its channels)` for what a run reads of a row that begins at `row`, and zeros for what lies beyond either
// end. All of it is asked for before any of it is used.
template <class Act> DEVICE void for_neighbours(const SOURCE* row, int first, int extent, int channels, Act act) {
    Channels<SOURCE, SOURCES, SOURCE_PIECE> seen[READ];
    const SOURCE* from = row + i64(first) * channels;
#pragma unroll
    for (int read = 0; read < READ; read++, from += channels) {
        if (!is_read(read)) continue;
        seen[read].clear();
        if (inside(first + read, extent)) seen[read].read(from);
    }
#pragma unroll
    for (int read = 0; read < READ; read++) {
        if (!is_read(read)) continue;
        float v[SOURCES];
        seen[read].convert(v);
        act(read, v);
    }
}

#endif
