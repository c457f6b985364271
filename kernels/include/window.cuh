// Boxes of pixels in shared memory, copied once and read through every tap of a kernel.
//
// The channels of a pixel are cut into chunks of 8 (16 bytes, bf16). First come all pixels' first chunks, then their second
// ones: planes. Eight neighbours in a row are then 128 bytes side by side, wherever they begin, so ldmatrix reads them
// without a conflict of banks at every tap.
#ifndef GAN_WINDOW_CUH
#define GAN_WINDOW_CUH

#include "conv.cuh"
#include "tile.cuh"

// Chunks from one plane to the next: room for so many rows, and such that the chunks of a row, which neighbouring threads copy,
// and those of the next rows fall on different banks.
DEVICE constexpr int plane(int rows, int chunks) {
    int apart = 8; // of the eight places of 16 bytes that all banks are
    for (int c = 1; c < chunks && apart > 1; c *= 2) apart /= 2;
    return rows + mod_floor(apart - rows, 8);
}

template <int D, int H, int W, int Chunks> struct Box {
    static constexpr int PIXELS = D * H * W, PLANE = plane(PIXELS, Chunks), BYTES = 16 * PLANE * Chunks;

    // A pixel's number.
    DEVICE static constexpr int at(int d, int h, int w) { return (d * H + h) * W + w; }

    // Bytes from the first pixel's first chunk to another.
    DEVICE static constexpr int offset(int pixel, int chunk) { return 16 * (chunk * PLANE + pixel); }

    // Begins to copy the pixels of an image from `first` on, with zeros where there is none.
    template <int Threads>
    DEVICE static void fill(u8* to, const bf16* tensor, const int (&extents)[3], int image, Triple first) {
        for (int i = int(threadIdx.x); i < PIXELS * Chunks; i += Threads) {
            const int pixel = i / Chunks, chunk = i % Chunks;
            const Triple p = split3(pixel, H, W);
            const int d = first.d + p.d, h = first.h + p.h, w = first.w + p.w;
            const bool valid = inside(d, extents[0]) && inside(h, extents[1]) && inside(w, extents[2]);
            const i64 from = valid ? ((i64(image) * extents[0] + d) * extents[1] + h) * extents[2] + w : 0;
            cp_async16(to + offset(pixel, chunk), tensor + from * (8 * Chunks) + 8 * chunk, valid);
        }
    }
};

// The boxes that a tensor's images are cut into, and where the first pixel of one is.
struct Boxes {
    int d, h, w;

    DEVICE Boxes(const int (&extents)[3])
        : d(ceil_div(extents[0], BOX_D)), h(ceil_div(extents[1], BOX_H)), w(ceil_div(extents[2], BOX_W)) {}

    DEVICE int an_image() const { return d * h * w; }
    DEVICE Triple first(int box) const {
        const Triple b = split3(box % an_image(), h, w);
        return {b.d * BOX_D, b.h * BOX_H, b.w * BOX_W};
    }
};

#endif
