// Several small updates of one flat tensor in one launch: running statistics of all layers, the gradients by scales, shifts and
// biases of a network's second pass.
//
// Versions
//   1  a row of blocks for each stretch.
//   On an H100 (docs/measurements/2026-11-27-steps-h100.md): 5 us a launch at batch 1, 2.4 us at batch 16.
//
//   for each stretch k in order: to[offset_k + i] = keep_k to[offset_k + i] + weight_k x_k[i],  i < length_k
//   (where keep_k is 0, what was there is not looked at)
//   blockIdx.x  any number (a grid-stride loop);  blockIdx.y  stretch;  block  256 threads
//
// Stretches of the same elements are linked: the first of them (`begins`) goes through all (`next`, -1 at the end), so that their
// order is kept. No constants.
#include "gan.cuh"

constexpr int AT_ONCE = 16;

struct Stretches {
    int offset[AT_ONCE], length[AT_ONCE], begins[AT_ONCE], next[AT_ONCE];
    float keep[AT_ONCE], weight[AT_ONCE];
};

KERNEL __launch_bounds__(256, 4)
blend(const Stretches stretches, int count, float* to, const float* x0, const float* x1, const float* x2, const float* x3,
      const float* x4, const float* x5, const float* x6, const float* x7, const float* x8, const float* x9,
      const float* x10, const float* x11, const float* x12, const float* x13, const float* x14, const float* x15) {
    const int own = int(blockIdx.y);
    bool begins = false, kept = false;
    int next = -1, offset = 0, length = 0;
    // Constant indices only: an index that is computed would need memory.
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
        if (k != own) continue;
        begins = stretches.begins[k] != 0;
        kept = stretches.keep[k] != 0;
        offset = stretches.offset[k];
        length = stretches.length[k];
    }
    if (!begins) return;
    for (int i = int(global_thread()); i < length; i += int(global_threads())) {
        const float* const given[AT_ONCE] = {x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15};
        float v = kept ? to[offset + i] : 0.0f;
        next = own;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            if (k != next || k >= count) continue;
            v = stretches.keep[k] * v + stretches.weight[k] * given[k][i];
            next = stretches.next[k];
        }
        to[offset + i] = v;
    }
}
