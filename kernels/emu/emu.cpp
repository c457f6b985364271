// The machine behind `emu.cuh`: fibers, warps, barriers and asynchronous copies of one block at a time.
//
// What it is strict about, because a GPU is not:
//   - shared memory and its copies in flight hold NaN until written; canaries around shared memory catch overruns;
//   - asynchronous copies land as late as they may, as early as they can, or at random;
//   - threads run in forward, reverse or random order, each warp as far as it gets before the next one starts; or one
//     warpgroup is held back: it goes on only when nobody else can, and no further than past its next barrier;
//   - a ticket that is drawn (`take_ticket`) is fenced on both sides by the thread that draws it;
//   - a barrier that not all threads reach, or that they reach at different places, ends the launch with a report.
// Under ThreadSanitizer each CUDA thread is a fiber of its own and only barriers order them. This file itself must be
// compiled without that instrumentation.
#include "machine.hpp"

EmuThread* emu_self;
EmuDim emu_grid_dim, emu_block_dim;

namespace {

Fiber* self() { return static_cast<Fiber*>(emu_self); }
int index_of(const Fiber* f) { return int(f - machine.fibers); }

u32 next_random() {
    machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
    return u32(machine.random >> 33);
}

void to_scheduler() {
    Fiber* f = self();
    TSAN(__tsan_switch_to_fiber(machine.scheduler_tsan, 1));
    emu_switch(&f->stack_pointer, machine.scheduler);
}

// Ends the launch with a message; a fiber that calls this never goes on.
void fail(bool in_fiber, const char* format, ...) {
    if (!machine.failed) {
        machine.failed = true;
        va_list list;
        va_start(list, format);
        vsnprintf(machine.report, machine.report_size, format, list);
        va_end(list);
    }
    if (in_fiber) to_scheduler();
}

// Whether a warp is held back.
bool held(int warp) { return machine.held >= 0 && warp / 4 == machine.held; }

// A thread that is held back lets all others go first once it has passed a barrier.
void let_others_go() {
    if (held(index_of(self()) / 32)) to_scheduler();
}

// A thread comes to a barrier of any kind: what it shows there it must have seen.
void check_fences(EmuSite site) {
    Fiber* f = self();
    if (f->drew && !f->fenced) fail(true, "no fence between a ticket and the barrier at %s:%d", site.file, site.line);
    f->fenced = f->drew = false;
}

void land(Copy& c) {
    TSAN(__tsan_write_range(c.to, c.bytes));
    if (c.valid) {
        TSAN(__tsan_read_range((void*)c.from, c.bytes));
        memcpy(c.to, c.from, c.bytes);
    } else {
        memset(c.to, 0, c.bytes);
    }
}

// Lands the copies of all groups below `below`, and of the others each with the chance `chance` in 256.
void land_copies(Fiber* f, int below, u32 chance) {
    int kept = 0;
    for (int i = 0; i < f->copy_count; i++) {
        Copy c = f->copies[i];
        if (c.group < below || (chance && (next_random() & 255) < chance)) land(c);
        else f->copies[kept++] = c;
    }
    f->copy_count = kept;
}

void land_any_box();

void maybe_land(Fiber* f) {
    if (machine.async != ANY_TIME) return;
    if (f->copy_count) land_copies(f, 0, 64);
    land_any_box();
}

void fiber_main() {
    TSAN(__tsan_acquire(&machine.entry));
    machine.entry(machine.arguments);
    Fiber* f = self();
    land_copies(f, f->groups + 1, 0);
    f->state = DONE;
    machine.done++;
    to_scheduler();
    abort();
}

void start_fiber(Fiber& f) {
    if (!f.stack) {
        f.stack = static_cast<u8*>(mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (f.stack == MAP_FAILED) abort();
    }
    void** top = reinterpret_cast<void**>(f.stack + STACK - 64);
    top -= SAVED;
#if defined(__x86_64__)
    top--; // a function begins 8 bytes off a 16-byte boundary
#endif
    memset(top, 0, SAVED * sizeof(void*));
    top[RETURN_SLOT] = reinterpret_cast<void*>(fiber_main);
    f.stack_pointer = top;
    f.state = RUNNABLE;
    f.copy_count = f.groups = 0;
    f.barriers = f.warp_barriers = 0;
    f.fenced = f.drew = false;
    TSAN(f.tsan = __tsan_create_fiber(0));
}

void resume(Fiber& f) {
    emu_self = &f;
    TSAN(__tsan_switch_to_fiber(f.tsan, 1));
    emu_switch(&machine.scheduler, f.stack_pointer);
}

void shuffle_order(int* order, int n) {
    for (int i = 0; i < n; i++) order[i] = machine.order == REVERSE ? n - 1 - i : i;
    if (machine.order != RANDOM) return;
    for (int i = n - 1; i > 0; i--) {
        int j = int(next_random() % u32(i + 1)), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

// Runs each runnable lane of a warp once; says whether there was any.
bool sweep(int warp) {
    int first = warp * 32, lanes = machine.threads - first < 32 ? machine.threads - first : 32, order[32];
    bool any = false;
    shuffle_order(order, lanes);
    for (int i = 0; i < lanes && !machine.failed; i++) {
        Fiber& f = machine.fibers[first + order[i]];
        if (f.state != RUNNABLE) continue;
        any = true;
        resume(f);
    }
    return any;
}

void report_deadlock() {
    int waiting = 0, lanes = 0, phases = 0;
    EmuSite barrier{"", 0}, warp{"", 0}, phase{"", 0};
    for (int i = 0; i < machine.threads; i++) {
        Fiber& f = machine.fibers[i];
        if (f.state == AT_BARRIER) waiting++, barrier = f.site;
        if (f.state == AT_WARP) lanes++, warp = f.site;
        if (f.state == AT_MBAR) phases++, phase = f.site;
    }
    fail(false,
         "deadlock in block (%u, %u, %u): of %d threads %d have ended, %d wait at the barrier %s:%d, %d wait for their "
         "warp at %s:%d, %d for a phase at %s:%d",
         machine.fibers[0].block.x, machine.fibers[0].block.y, machine.fibers[0].block.z, machine.threads, machine.done,
         waiting, barrier.file, barrier.line, lanes, warp.file, warp.line, phases, phase.file, phase.line);
}

void free_shared() {
    for (int i = 0; i < machine.shared_count; i++) {
        Shared& s = machine.shared[i];
        for (size_t k = 0; k < CANARY; k++)
            if (s.memory[k] != 0xa5 || s.memory[CANARY + s.bytes + k] != 0xa5) {
                fail(false, "write outside shared memory: %s, %zu bytes, %s it", s.name, s.bytes,
                     s.memory[k] != 0xa5 ? "before" : "behind");
                break;
            }
        free(s.memory);
    }
    machine.shared_count = 0;
    machine.shared_bytes = 0;
}

u8* new_shared(const void* identity, size_t bytes, const char* name) {
    if (machine.shared_count == MAX_STATIC) fail(true, "more than %d shared arrays in one kernel", MAX_STATIC);
    machine.shared_bytes += (bytes + 15) / 16 * 16;
    if (machine.shared_bytes > MOST_SHARED)
        fail(identity != nullptr, "a block wants %zu bytes of shared memory with %s; no device has more than %zu", machine.shared_bytes,
             name, MOST_SHARED);
    void* memory = nullptr;
    // Arrays start on 1024-byte boundaries, with a canary or without.
    if (posix_memalign(&memory, 1024, bytes + 2 * CANARY ? bytes + 2 * CANARY : 1)) abort();
    u8* m = static_cast<u8*>(memory);
    memset(m, 0xa5, CANARY);
    memset(m + CANARY, 0xff, bytes);
    memset(m + CANARY + bytes, 0xa5, CANARY);
    machine.shared[machine.shared_count++] = {identity, name, m, bytes};
    return m + CANARY;
}

bool land_latest();
void begin_engine();
void end_engine();

void run_block(EmuDim block, size_t dynamic_bytes) {
    machine.at_barrier = machine.done = 0;
    begin_engine();
    int warps = (machine.threads + 31) / 32, order[MAX_THREADS / 32];
    new_shared(nullptr, dynamic_bytes, "dynamic shared memory");
    for (int i = 0; i < warps; i++) machine.warps[i].arrived = 0;
    for (int i = 0; i < machine.threads; i++) {
        Fiber& f = machine.fibers[i];
        f.thread = {u32(i), 0, 0};
        f.block = block;
        start_fiber(f);
    }
    while (machine.done < machine.threads && !machine.failed) {
        bool progressed = false;
        shuffle_order(order, warps);
        for (int i = 0; i < warps && !machine.failed; i++)
            while (!held(order[i]) && !machine.failed && sweep(order[i])) {
                progressed = true;
                if (machine.order == RANDOM && next_random() % 4 == 0) break;
            }
        if (progressed || machine.failed || land_latest()) continue;
        for (int i = 0; i < warps && !machine.failed; i++)
            if (held(order[i]) && sweep(order[i])) progressed = true;
        if (!progressed && !machine.failed) report_deadlock();
    }
    if (!machine.failed) end_engine();
    TSAN(for (int i = 0; i < machine.threads; i++) {
        __tsan_destroy_fiber(machine.fibers[i].tsan);
        munmap(machine.fibers[i].stack, STACK);
        machine.fibers[i].stack = nullptr;
    })
    free_shared();
}

// Leaves `operands` with the warp; the last lane to come performs for all.
void rendezvous(Perform perform, void* operands, EmuSite site) {
    Fiber* f = self();
    maybe_land(f);
    int index = index_of(f), first = index & ~31;
    Warp& w = machine.warps[index / 32];
    if (w.arrived == 0) w.perform = perform, w.site = site;
    else if (w.perform != perform || w.site.line != site.line || strcmp(w.site.file, site.file))
        fail(true, "warp %d has diverged: some lanes are at %s:%d, lane %d is at %s:%d", index / 32, w.site.file,
             w.site.line, index & 31, site.file, site.line);
    w.operands[index & 31] = operands;
    if (++w.arrived < 32) {
        f->state = AT_WARP;
        f->site = site;
        to_scheduler();
        return;
    }
    w.arrived = 0;
    perform(w.operands);
    for (int i = first; i < first + 32; i++)
        if (machine.fibers[i].state == AT_WARP) machine.fibers[i].state = RUNNABLE;
}

float as_float(u32 v) {
    float f;
    memcpy(&f, &v, 4);
    return f;
}

struct ShuffleOperands {
    u32 value, result;
    int lane;
};
void perform_shuffle(void** operands) {
    ShuffleOperands** o = reinterpret_cast<ShuffleOperands**>(operands);
    for (int l = 0; l < 32; l++) o[l]->result = o[o[l]->lane & 31]->value;
}

struct LdmatrixOperands {
    u32* r;
    const u32* row;
    u64 address;
    bool transpose;
};

// The eight rows of a matrix are read at once, unless they lie on the same banks.
void count_conflicts(LdmatrixOperands** o) {
    for (int matrix = 0; matrix < 4; matrix++) {
        int rows_on[8] = {}, most = 0;
        for (int i = 0; i < 8; i++) {
            int n = ++rows_on[o[8 * matrix + i]->address / 16 % 8];
            if (n > most) most = n;
        }
        machine.bank_conflicts += most - 1;
    }
}

void perform_ldmatrix(void** operands) {
    LdmatrixOperands** o = reinterpret_cast<LdmatrixOperands**>(operands);
    count_conflicts(o);
    for (int matrix = 0; matrix < 4; matrix++)
        for (int l = 0; l < 32; l++) {
            int g = l >> 2, t = l & 3;
            u32 v;
            if (!o[l]->transpose) {
                v = o[8 * matrix + g]->row[t];
            } else {
                u32 low = o[8 * matrix + 2 * t]->row[g >> 1], high = o[8 * matrix + 2 * t + 1]->row[g >> 1];
                v = g & 1 ? (low >> 16) | (high & 0xffff0000) : (low & 0xffff) | (high << 16);
            }
            o[l]->r[matrix] = v;
        }
}

struct MmaOperands {
    float* c;
    const u32 *a, *b;
    int mi, ni;
};

// C += A B for one warp's arrangement of fragments, A given by rows and B by columns, each DEPTH deep.
template <int DEPTH, class UnpackA, class UnpackB> void perform_mma(void** operands, UnpackA ua, UnpackB ub) {
    MmaOperands** o = reinterpret_cast<MmaOperands**>(operands);
    int mi = o[0]->mi, ni = o[0]->ni;
    static float a[128][DEPTH], b[DEPTH][256];
    for (int l = 0; l < 32; l++) {
        for (int m = 0; m < mi; m++)
            for (int i = 0; i < 4; i++) ua(a, 16 * m + (l >> 2) + 8 * (i & 1), (l & 3), i >> 1, o[l]->a[4 * m + i]);
        for (int n = 0; n < ni; n++)
            for (int i = 0; i < 2; i++) ub(b, 8 * n + (l >> 2), (l & 3), i, o[l]->b[2 * n + i]);
    }
    static float row[256];
    for (int r = 0; r < 16 * mi; r++) {
        int i0 = 2 * ((r & 15) >> 3), lane = (r & 7) * 4, m = r >> 4;
        for (int c = 0; c < 8 * ni; c++)
            row[c] = o[lane + ((c & 7) >> 1)]->c[(m * ni + (c >> 3)) * 4 + i0 + (c & 1)];
        for (int k = 0; k < DEPTH; k++) {
            float v = a[r][k];
            for (int c = 0; c < 8 * ni; c++) row[c] += v * b[k][c];
        }
        for (int c = 0; c < 8 * ni; c++)
            o[lane + ((c & 7) >> 1)]->c[(m * ni + (c >> 3)) * 4 + i0 + (c & 1)] = row[c];
    }
}
void perform_mma_bf16(void** operands) {
    perform_mma<16>(
        operands,
        [](float(*a)[16], int row, int t, int half, u32 v) {
            a[row][2 * t + 8 * half] = as_float(v << 16);
            a[row][2 * t + 8 * half + 1] = as_float(v & 0xffff0000);
        },
        [](float(*b)[256], int column, int t, int half, u32 v) {
            b[2 * t + 8 * half][column] = as_float(v << 16);
            b[2 * t + 8 * half + 1][column] = as_float(v & 0xffff0000);
        });
}
// The hardware ignores the 13 lowest bits of a tf32 operand.
void perform_mma_tf32(void** operands) {
    perform_mma<8>(
        operands,
        [](float(*a)[8], int row, int t, int half, u32 v) { a[row][t + 4 * half] = as_float(v & 0xffffe000); },
        [](float(*b)[256], int column, int t, int half, u32 v) { b[t + 4 * half][column] = as_float(v & 0xffffe000); });
}

void perform_nothing(void**) {}

} // namespace

#include "hopper.hpp"

// ---- what kernels call ----------------------------------------------------------------------------------------------

// The first thread to reach an array's declaration makes it, in the scheduler's name: else ThreadSanitizer would take
// the making for an access of that thread.
void* emu_static_shared(const void* identity, size_t bytes, const char* name) {
    int i = 1;
    while (i < machine.shared_count && machine.shared[i].identity != identity) i++;
    if (i == machine.shared_count) {
        TSAN(__tsan_switch_to_fiber(machine.scheduler_tsan, 1));
        new_shared(identity, bytes, name);
        TSAN(__tsan_release(&machine.shared[i]); __tsan_switch_to_fiber(self()->tsan, 1));
    }
    TSAN(__tsan_acquire(&machine.shared[i]));
    return machine.shared[i].memory + CANARY;
}

u8* emu_dynamic_shared() { return machine.shared[0].memory + CANARY; }

void emu_barrier(EmuSite site) {
    Fiber* f = self();
    maybe_land(f);
    check_fences(site);
    if (machine.at_barrier == 0) machine.barrier = site;
    else if (machine.barrier.line != site.line || strcmp(machine.barrier.file, site.file))
        fail(true, "divergent barrier: some threads wait at %s:%d, thread %d has come to %s:%d", machine.barrier.file,
             machine.barrier.line, index_of(f), site.file, site.line);
    char* ordering = &machine.barrier_order[f->barriers++ & 1];
    (void)ordering;
    TSAN(__tsan_release(ordering));
    if (++machine.at_barrier < machine.threads) {
        f->state = AT_BARRIER;
        f->site = site;
        to_scheduler();
    } else {
        machine.at_barrier = 0;
        for (int i = 0; i < machine.threads; i++)
            if (machine.fibers[i].state == AT_BARRIER) machine.fibers[i].state = RUNNABLE;
    }
    TSAN(__tsan_acquire(ordering));
    let_others_go();
}

void emu_sync_warp(EmuSite site) {
    Fiber* f = self();
    char* ordering = &machine.warps[index_of(f) / 32].order[f->warp_barriers++ & 1];
    (void)ordering;
    TSAN(__tsan_release(ordering));
    rendezvous(perform_nothing, nullptr, site);
    TSAN(__tsan_acquire(ordering));
}

u32 emu_shuffle(u32 value, int lane, EmuSite site) {
    ShuffleOperands o{value, 0, lane};
    rendezvous(perform_shuffle, &o, site);
    return o.result;
}

void emu_ldmatrix(u32* r, const u32* row, const void* address, bool transpose, EmuSite site) {
    LdmatrixOperands o{r, row, reinterpret_cast<u64>(address), transpose};
    rendezvous(perform_ldmatrix, &o, site);
}

void emu_mma_bf16(float* c, const u32* a, const u32* b, int mi, int ni, EmuSite site) {
    MmaOperands o{c, a, b, mi, ni};
    rendezvous(perform_mma_bf16, &o, site);
}

void emu_mma_tf32(float* c, const u32* a, const u32* b, int mi, int ni, EmuSite site) {
    MmaOperands o{c, a, b, mi, ni};
    rendezvous(perform_mma_tf32, &o, site);
}

void emu_cp_async(void* to, const void* from, int bytes, bool valid, EmuSite site) {
    Fiber* f = self();
    if ((reinterpret_cast<u64>(to) | reinterpret_cast<u64>(from)) & u64(bytes - 1))
        fail(true, "misaligned %d-byte asynchronous copy at %s:%d", bytes, site.file, site.line);
    Copy c{static_cast<u8*>(to), static_cast<const u8*>(from), bytes, f->groups, valid};
    if (machine.async == EARLY) return land(c);
    TSAN(__tsan_write_range(to, bytes));
    memset(to, 0xff, bytes);
    if (f->copy_count == f->copy_room) {
        f->copy_room = f->copy_room ? 2 * f->copy_room : 64;
        f->copies = static_cast<Copy*>(realloc(f->copies, f->copy_room * sizeof(Copy)));
    }
    f->copies[f->copy_count++] = c;
    maybe_land(f);
}

void emu_fence_device() { self()->fenced = true; }

// A ticket orders what the blocks that drew earlier ones wrote before those who draw later ones, if the thread that draws it
// fences after the barrier that showed it what others wrote, and again before the one that tells them of the ticket.
u32 emu_take_ticket(u32* counter, EmuSite site) {
    Fiber* f = self();
    if (!f->fenced) fail(true, "a ticket is drawn without a fence after the last barrier: %s:%d", site.file, site.line);
    f->fenced = false, f->drew = true;
    TSAN(__tsan_acquire(counter));
    const u32 ticket = (*counter)++;
    TSAN(__tsan_release(counter));
    return ticket;
}

void emu_cp_async_commit() { self()->groups++; }

void emu_cp_async_wait(int pending) {
    Fiber* f = self();
    land_copies(f, f->groups - pending, machine.async == ANY_TIME ? 64 : 0);
}

// How many times ldmatrix had to read again since the library was loaded, because rows lay on the same banks.
extern "C" __attribute__((visibility("default"))) u64 gan_emu_bank_conflicts() { return machine.bank_conflicts; }

// ---- what the host calls --------------------------------------------------------------------------------------------

// Runs `entry` on a grid. Returns 0, or 1 with a sentence in `report`.
int emu_launch(void (*entry)(void**), void** arguments, const u32* grid, const u32* block, int most_threads,
               size_t dynamic_bytes, int order, int async, u64 seed, char* report, size_t report_size) {
    Machine& m = machine;
    m.entry = entry;
    m.arguments = arguments;
    m.order = Order(order);
    m.async = Async(async);
    m.random = seed * 2 + 1;
    m.held = order == HELD ? int(seed % ((block[0] + 127) / 128)) : -1;
    m.failed = false;
    m.report = report;
    m.report_size = report_size;
    m.shared_count = 0;
    m.shared_bytes = 0;
    m.threads = int(block[0]);
    emu_grid_dim = {grid[0], grid[1], grid[2]};
    emu_block_dim = {block[0], block[1], block[2]};
    if (block[0] == 0 || block[0] > MAX_THREADS || block[0] % 32 || block[1] != 1 || block[2] != 1) {
        snprintf(report, report_size, "a block must be 32 to %d threads in x, whole warps", MAX_THREADS);
        return 1;
    }
    // What a driver refuses.
    if (int(block[0]) > most_threads) {
        snprintf(report, report_size, "blocks of %u threads; the kernel's launch bounds are %d", block[0], most_threads);
        return 1;
    }
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) {
        snprintf(report, report_size, "a grid of (%u, %u, %u) blocks; 1 to 2147483647, 65535 and 65535 are taken", grid[0], grid[1],
                 grid[2]);
        return 1;
    }
    TSAN(m.scheduler_tsan = __tsan_get_current_fiber(); __tsan_release(&m.entry));
    u64 blocks = u64(grid[0]) * grid[1] * grid[2];
    u64 start = order == RANDOM && blocks ? next_random() % blocks : 0;
    for (u64 i = 0; i < blocks && !m.failed; i++) {
        u64 b = order == REVERSE ? blocks - 1 - i : (i + start) % blocks;
        run_block({u32(b % grid[0]), u32(b / grid[0] % grid[1]), u32(b / grid[0] / grid[1])}, dynamic_bytes);
    }
    return m.failed;
}
