// The vocabulary of the warp-specialised kernels: a ring of buffers that one thread has filled by TMA and eight
// warps multiply from.
#ifndef GAN_RING_CUH
#define GAN_RING_CUH

#include "conv.cuh"
#include "hopper.cuh"
#include "pairs.cuh"

// A warpgroup whose first thread asks for copies, and two that multiply, 64 rows each.
constexpr int RING_THREADS = 384, RING_ROWS = 128, CONSUMER_WARPS = 8, CONSUMER_THREADS = 32 * CONSUMER_WARPS;
constexpr int DEPTH = 64;                  // of a step: a row of a tile is 128 bytes
constexpr int SUB_TILE = 64 * 2 * DEPTH;   // bytes of 64 rows, or of 64 columns across the summed index

// Registers of a thread while it asks for copies, and while it multiplies: 128 * 40 + 256 * 232 are all there are.
constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;

// Stages buffers of Bytes bytes, and behind them two barriers each: `full` waits for the bytes of a step, `empty` for one
// lane of every multiplying warp. Producer and consumers each walk the ring by themselves and meet at the barriers only.
template <int Stages, int Bytes> struct Ring {
    u8* memory;
    int stage = 0, parity = 0;

    DEVICE u64* full(int of) const { return reinterpret_cast<u64*>(memory + Stages * Bytes) + of; }
    DEVICE u64* empty(int of) const { return full(Stages + of); }
    DEVICE u8* tile() const { return memory + stage * Bytes; }

    // By one thread, before a barrier of the block.
    DEVICE void open() const {
        for (int s = 0; s < Stages; s++) {
            mbar_init(full(s), 1);
            mbar_init(empty(s), CONSUMER_WARPS);
        }
        mbar_init_fence();
    }

    DEVICE void next() {
        if (++stage == Stages) {
            stage = 0;
            parity ^= 1;
        }
    }

    // Waits until the buffer is free, and announces what will be copied into it. A fresh buffer is free.
    DEVICE void reserve() const {
        mbar_wait(empty(stage), parity ^ 1);
        mbar_arrive_expect(full(stage), Bytes);
    }

    // Waits for a step's copies.
    DEVICE void await() const { mbar_wait(full(stage), parity); }

    // Gives back a buffer that this warp has read.
    DEVICE void release(int of) const {
        if (lane_id() == 0) mbar_arrive(empty(of));
    }

    // The products of the steps begin..end of one tile into `d`: `issue(tile, first)` asks for those of a step, which lie in
    // `tile`; the first of all overwrites the sums. One step stays in flight while the next is awaited.
    template <int Count, class F> DEVICE void multiply(float (&d)[Count], int begin, int end, F issue) {
        for (int step = begin; step < end; step++) {
            await();
            wgmma_fence();
            issue(tile(), step == begin);
            wgmma_commit();
            wgmma_wait<1>(); // the step before has been read
            if (step > begin) release(stage == 0 ? Stages - 1 : stage - 1);
            next();
        }
        wgmma_finish(d);
        if (begin < end) release(stage == 0 ? Stages - 1 : stage - 1);
    }
};

// The multiplying warps as a team that meets at a barrier of its own: the copying thread is elsewhere.
struct Consumers {
    u64* barrier;
    int meeting = 0; // its parity

    // By one thread, before a barrier of the block.
    DEVICE void open() const {
        mbar_init(barrier, CONSUMER_THREADS);
        mbar_init_fence();
    }
    DEVICE int thread() const { return int(threadIdx.x) - (RING_THREADS - CONSUMER_THREADS); }
    DEVICE void sync() {
        mbar_arrive(barrier);
        mbar_wait(barrier, meeting);
        meeting ^= 1;
    }
};

// The sources' pixels that a step reads: where the box of an im2col copy begins. `low` is the lowest source coordinate of the
// walk along each axis: `lower` of the tensor map.
DEVICE void load_pixels(void* to, const TensorMap* map, u64* bar, int channel, int image, Triple at, Triple tap) {
    if constexpr (SPATIAL == 2) {
        tma_im2col4(to, map, bar, channel, at.w, at.h, image, tap.w, tap.h);
    } else {
        tma_im2col5(to, map, bar, channel, at.w, at.h, at.d, image, tap.w, tap.h, tap.d);
    }
}

#endif
