// The tile vocabulary of the matrix kernels: tiles in shared memory, filling them, and the multi-stage pipeline.
#ifndef GAN_TILE_CUH
#define GAN_TILE_CUH

#include "gan.cuh"

// How the 16-byte chunks of a row are permuted, so that the accesses of one instruction fall on different banks.
enum Swizzle {
    BY_ROW,  // eight rows at the same chunk: what ldmatrix reads
    BY_WORD, // four rows at the same two chunks: fp32 fragments taken word by word from a transposed tile
};

// Rows x Columns elements in shared memory. Columns is a power of two and at least one chunk.
template <class T, int Rows, int Columns, Swizzle Swizzled = BY_ROW> struct Tile {
    static constexpr int PER_CHUNK = 16 / int(sizeof(T));
    static constexpr int CHUNKS = Columns / PER_CHUNK;
    static constexpr int BYTES = Rows * Columns * int(sizeof(T));
    u8* base;

    DEVICE static int swizzled(int row, int chunk) {
        // Rows narrower than 128 bytes share a line of banks, so every (8 / CHUNKS) rows have one permutation.
        int line = CHUNKS < 8 ? row / (8 / min_of(CHUNKS, 8)) : row;
        int mask = Swizzled == BY_ROW ? line & 7 : (line & 3) << 1;
        return chunk ^ (mask & (min_of(CHUNKS, 8) - 1));
    }

    DEVICE u8* chunk(int row, int chunk) const { return base + (row * CHUNKS + swizzled(row, chunk)) * 16; }

    DEVICE T* at(int row, int column) const {
        return reinterpret_cast<T*>(chunk(row, column / PER_CHUNK)) + column % PER_CHUNK;
    }
};

// Copies Count consecutive elements from global to shared memory, or zeros where `valid` is false: 16 or 4 bytes
// asynchronously, fewer at once.
template <int Count, class T> DEVICE void copy_to_tile(T* to, const T* from, bool valid) {
    if constexpr (Count * sizeof(T) == 16) {
        cp_async16(to, from, valid);
    } else if constexpr (Count * sizeof(T) == 4) {
        cp_async4(to, from, valid);
    } else {
        static_assert(Count == 1, "a copy moves 16 bytes, 4 bytes or one element");
        *to = valid ? *from : T{};
    }
}

// Fills a Rows x Columns tile with Threads threads, Vec elements at a time. A thread keeps to one column, so that
// `f(row, column, slot)` is called with the same column every time; `slot` is the place to copy to.
template <int Threads, int Vec, class T, int Rows, int Columns, Swizzle Swizzled, class F>
DEVICE void fill_tile(const Tile<T, Rows, Columns, Swizzled>& tile, F f) {
    constexpr int ACROSS = Columns / Vec;
    static_assert(Threads % ACROSS == 0 || ACROSS % Threads == 0, "threads and columns must divide each other");
    if constexpr (ACROSS <= Threads) {
        constexpr int STEP = Threads / ACROSS;
        int column = int(threadIdx.x) % ACROSS * Vec, row = int(threadIdx.x) / ACROSS;
#pragma unroll
        for (int r = 0; r < ceil_div(Rows, STEP); r++, row += STEP)
            if (Rows % STEP == 0 || row < Rows) f(row, column, tile.at(row, column));
    } else {
        for (int row = 0; row < Rows; row++)
            for (int c = int(threadIdx.x); c < ACROSS; c += Threads) f(row, c * Vec, tile.at(row, c * Vec));
    }
}

// Steps begin..end with Stages buffers: `load(step, stage)` is issued Stages - 1 steps ahead of `compute(stage)`.
// One barrier a step serves both ways: it shows this step's tile to all, and proves that all have finished the step
// before, whose buffer is loaded next.
template <int Stages, class Load, class Compute> DEVICE void pipeline(int begin, int end, Load load, Compute compute) {
    static_assert(Stages >= 2, "a pipeline needs two buffers");
    for (int s = 0; s < Stages - 1; s++) {
        if (begin + s < end) load(begin + s, s);
        cp_async_commit();
    }
    int stage = 0;
    for (int step = begin; step < end; step++) {
        cp_async_wait<Stages - 2>();
        __syncthreads();
        int ahead = step + Stages - 1;
        if (ahead < end) load(ahead, stage == 0 ? Stages - 1 : stage - 1);
        cp_async_commit();
        compute(stage);
        stage = stage + 1 == Stages ? 0 : stage + 1;
    }
}

#endif
