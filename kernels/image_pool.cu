// The history of generated images that a discriminator is shown: src/ops/image_pool.rs says what it is for.
//
// Versions
//   1  a thread for each element, which looks through the batch's choices for its image's.
//   On an H100 it conforms; its time was not recorded by itself (docs/measurements/2026-11-27-steps-h100.md).
//
//   choices[i] is -1 (pass image i on), s < size (show slot s and put image i there), or size + s (put a copy of image i
//   into slot s and pass it on); images are taken one after the other, so a later one sees what an earlier one left.
//   pool_query  out[i] = what is shown for image i
//   pool_store  pool[s] = the last image that was put there, in place
//   any grid (grid-stride loops); block 256
//
// Constants: TYPE (float, bf16).
#include "gan.cuh"

// The slot that image i goes to, or -1.
DEVICE int slot_of(const float* __restrict__ choices, int i, int size) {
    const int c = int(choices[i]);
    return choices[i] < 0 ? -1 : c < size ? c : c - size;
}

// The last image before `end` that went to `slot`, or -1.
DEVICE int last_in(const float* __restrict__ choices, int slot, int end, int size) {
    int i = end - 1;
    while (i >= 0 && slot_of(choices, i, size) != slot) i--;
    return i;
}

KERNEL __launch_bounds__(256, 4)
pool_query(i64 each, int n, int size, const TYPE* __restrict__ pool, const TYPE* __restrict__ images,
           const float* __restrict__ choices, TYPE* __restrict__ out) {
    for (i64 t = global_thread(); t < each * n; t += global_threads()) {
        const int i = int(t / each);
        const i64 e = t % each;
        TYPE shown = images[t];
        if (choices[i] >= 0 && choices[i] < float(size)) {
            const int slot = int(choices[i]), newer = last_in(choices, slot, i, size);
            shown = newer < 0 ? pool[slot * each + e] : images[newer * each + e];
        }
        out[t] = shown;
    }
}

KERNEL __launch_bounds__(256, 4)
pool_store(i64 each, int n, int size, const TYPE* __restrict__ images, const float* __restrict__ choices,
           TYPE* __restrict__ pool) {
    for (i64 t = global_thread(); t < each * size; t += global_threads()) {
        const int last = last_in(choices, int(t / each), n, size);
        if (last >= 0) pool[t] = images[last * each + t % each];
    }
}
