// The last of several blocks does what is left to do, so that no second launch is needed and no block waits for another.
//
// Each block writes its partial results to global memory and draws a ticket. Who draws the last one sees what all have
// written, and combines it in an order that depends on the shape alone: which block is the last changes nothing.
// Counters must hold zero when a kernel begins (the host puts them there once) and are left at zero.
#ifndef GAN_LAST_BLOCK_CUH
#define GAN_LAST_BLOCK_CUH

#include "reduce.cuh"

// Whether this block is the last of `blocks` to come here with this counter. All threads of a team come together.
template <class Team> DEVICE bool last_block(u32* counter, int blocks, Team& team) {
    SMEM(u32, ticket, 1);
    team.sync(); // shows thread 0 what all threads of the team have written
    if (team.thread() == 0) {
        // The fences belong to the thread that draws: they order all that it has seen, not only what it wrote itself. As in
        // cooperative groups' grid barrier: barrier, fence, atomic, fence, barrier.
        fence_device(); // what the team wrote, before the ticket that tells of it
        ticket[0] = take_ticket(counter);
        if (ticket[0] + 1 == u32(blocks)) *counter = 0;
        fence_device(); // the ticket, before what others wrote is read
    }
    team.sync();
    return ticket[0] + 1 == u32(blocks);
}
DEVICE bool last_block(u32* counter, int blocks) {
    WholeBlock block;
    return last_block(counter, blocks, block);
}

// Adds up N elements over all slices, in their order. One block does this for a whole tile, so what counts is how many loads are
// on their way at once: those of N elements and of four slices are.
template <int N> DEVICE void add_slices(float (&sum)[N], const float* const (&from)[N], i64 stride, int slices) {
#pragma unroll
    for (int n = 0; n < N; n++) sum[n] = 0;
#pragma unroll 4
    for (int s = 0; s < slices; s++)
#pragma unroll
        for (int n = 0; n < N; n++) sum[n] += from[n][s * stride];
}

#endif
