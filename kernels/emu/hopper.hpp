// What `emu/hopper.cuh` calls: barriers in shared memory, TMA, products of warpgroups. Included by `emu.cpp` only.
//
// Strict where a device is not:
//   - a box that is asked for is NaN until it lands: as late as it may (only when nothing else can go on, the first or the
//     last one first as the order of threads says), at once, or at random;
//   - a product reads its operands when a wait demands it, at once, or at random, and fails if they have changed meanwhile;
//     each warp computes its own 16 rows and nothing orders the four warps of a group;
//   - a phase that passes before a waiting thread has seen it, a barrier that was overwritten, a box that lands after the
//     block's end, and products without fence or wait end the launch with a report.
// Not seen: a missing `fence_async` or `mbar_init_fence`, and warps of a group that issue different products.
#ifndef GAN_EMU_HOPPER_HPP
#define GAN_EMU_HOPPER_HPP

namespace {

// What is in a TensorMap here. `src/device/tensor_map.rs` writes it.
struct MapDescription {
    u64 address, stride[4]; // bytes between neighbours along axes 1 to 4
    u32 extent[5], magic;
    u32 box[5]; // im2col: channels, pixels
    short lower[3], upper[3];
    u8 step[5], rank, im2col;
};
static_assert(sizeof(MapDescription) <= 128, "a tensor map has 128 bytes");
const u32 MAP_MAGIC = 0x70614d54;

struct Box {
    u8* to;
    MapDescription map;
    int bar, at[5], taps[3], bytes;
};
struct Mbar {
    u64* at;
    int arrivals, missing, parity;
    long long bytes;
};
struct Product {
    u64 x, y;
    float* d[32];
    int columns, group;
    bool a_across, b_across, add;
    u64 content;
    EmuSite site;
};
const int MAX_MBARS = 64, MAX_BOXES = 256, MAX_PRODUCTS = 64;
struct WarpProducts {
    Product queue[MAX_PRODUCTS];
    int count, groups, registers;
    bool fenced;
};
struct Engine {
    Mbar mbars[MAX_MBARS];
    Box boxes[MAX_BOXES];
    WarpProducts warps[MAX_THREADS / 32];
    int mbar_count, box_count;
} engine;

u64 cookie_of(int mbar) { return 0x6261726d00000000ull + u64(mbar); }

int mbar_of(const u64* bar, EmuSite site) {
    for (int i = 0; i < engine.mbar_count; i++)
        if (engine.mbars[i].at == bar) {
            if (*bar != cookie_of(i)) fail(true, "a barrier was overwritten: %s:%d", site.file, site.line);
            return i;
        }
    fail(true, "not an initialised barrier: %s:%d", site.file, site.line);
    return 0;
}

// Begins the next phase if this one is over, and wakes those who wait for that.
void settle(int bar) {
    Mbar& b = engine.mbars[bar];
    if (b.missing > 0 || b.bytes != 0) return;
    b.parity ^= 1;
    b.missing = b.arrivals;
    for (int i = 0; i < machine.threads; i++) {
        Fiber& f = machine.fibers[i];
        if (f.state == AT_MBAR && f.mbar == bar && b.parity != f.parity) f.state = RUNNABLE;
    }
}

// ---- TMA ------------------------------------------------------------------------------------------------

// The element at these coordinates, or null outside the tensor.
const u8* element(const MapDescription& m, const long long* at) {
    long long offset = 2 * at[0];
    for (int a = 0; a < m.rank; a++) {
        if (at[a] < 0 || at[a] >= (long long)m.extent[a]) return nullptr;
        if (a) offset += at[a] * (long long)m.stride[a - 1];
    }
    return reinterpret_cast<const u8*>(m.address) + offset;
}

// Writes row `row` of a box, whose first element has the given coordinates: 16-byte chunks, permuted by bits of the address.
void land_row(const Box& b, int row, const long long* first) {
    const int width = int(b.map.box[0]);
    for (int c = 0; c < width; c++) {
        long long at[5];
        memcpy(at, first, sizeof at);
        at[0] += c;
        u64 to = reinterpret_cast<u64>(b.to) + u64(row * width + c) * 2;
        to ^= (to >> 7 & 7) << 4;
        const u8* from = element(b.map, at);
        if (from) memcpy(reinterpret_cast<u8*>(to), from, 2);
        else memset(reinterpret_cast<u8*>(to), 0, 2);
    }
}

void land_box(int which) {
    Unseen state;
    Box b = engine.boxes[which];
    memmove(&engine.boxes[which], &engine.boxes[which + 1], sizeof(Box) * u64(--engine.box_count - which));
    const MapDescription& m = b.map;
    const int rows = b.bytes / 2 / int(m.box[0]);
    long long at[5] = {};
    for (int a = 0; a < m.rank; a++) at[a] = b.at[a];
    for (int row = 0; row < rows; row++) {
        long long here[5];
        memcpy(here, at, sizeof at);
        const int spatial = m.rank - 2;
        if (m.im2col) {
            // The walk stays in the bounding box of the first axes; taps shift what is read.
            for (int a = 0; a < spatial; a++) here[1 + a] += b.taps[a];
        } else {
            int left = row;
            for (int a = 1; a < m.rank; a++) here[a] += left % int(m.box[a]), left /= int(m.box[a]);
        }
        land_row(b, row, here);
        if (!m.im2col) continue;
        int a = 0;
        for (; a < spatial; a++) {
            at[1 + a] += m.step[1 + a];
            if (at[1 + a] < (long long)m.extent[1 + a] + m.upper[a]) break;
            at[1 + a] = m.lower[a];
        }
        if (a == spatial) at[1 + spatial]++;
    }
    engine.mbars[b.bar].bytes -= b.bytes;
    settle(b.bar);
}

// Lands one box when nothing else can go on; says whether there was one.
bool land_latest() {
    if (!engine.box_count) return false;
    const int last = engine.box_count - 1;
    land_box(machine.order == FORWARD ? 0 : machine.order == REVERSE ? last : int(next_random() % u32(last + 1)));
    return true;
}

// Now and then.
void land_any_box() {
    if (engine.box_count && next_random() % 64 == 0) land_box(int(next_random() % u32(engine.box_count)));
}

// ---- products of warpgroups -----------------------------------------------------------------------------------------

const u32 SHARED_BASE = 1024; // no tile has the address 0

// 16 bytes of shared memory, at an address before the swizzle.
const u8* shared_chunk(u32 address, const Product& p) {
    const u32 at = (address ^ (address >> 7 & 7) << 4) - SHARED_BASE;
    if (at + 16 > machine.shared[0].bytes)
        fail(true, "a product reads outside dynamic shared memory: %s:%d", p.site.file, p.site.line);
    return machine.shared[0].memory + CANARY + at;
}

// `outer` rows or columns, beginning with number `first`, and 16 deep: to[k][outer].
void gather(const Product& p, u64 descriptor, bool across, int first, int outer, u16 (*to)[256]) {
    const u32 start = u32(descriptor & 0x3fff) << 4, next = u32(descriptor >> 16 & 0x3fff) << 4;
    const u32 eight = u32(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7))
        fail(true, "a descriptor of another kind than swizzled rows of 128 bytes: %s:%d", p.site.file, p.site.line);
    if (across) {
        for (int k = 0; k < 16; k++)
            for (int o = 0; o < outer; o += 8) {
                const u32 mn = u32(first + o);
                const u8* from = shared_chunk(start + mn / 64 * next + u32(k) / 8 * eight + u32(k) % 8 * 128 + mn % 64 * 2, p);
                TSAN(__tsan_read_range((void*)from, 16));
                memcpy(&to[k][o], from, 16);
            }
    } else {
        for (int o = 0; o < outer; o++)
            for (int half = 0; half < 2; half++) {
                const u32 mn = u32(first + o);
                const u8* from = shared_chunk(start + mn / 8 * eight + mn % 8 * 128 + u32(half) * 16, p);
                TSAN(__tsan_read_range((void*)from, 16));
                u16 chunk[8];
                memcpy(chunk, from, 16);
                for (int k = 0; k < 8; k++) to[8 * half + k][o] = chunk[k];
            }
    }
}

u16 product_a[16][256], product_b[16][256];

// Reads the operands of a warp's product; the result tells whether they are the same another time.
u64 read_operands(const Product& p, int warp) {
    gather(p, p.x, p.a_across, 16 * (warp & 3), 16, product_a);
    gather(p, p.y, p.b_across, 0, p.columns, product_b);
    u64 hash = 14695981039346656037ull;
    for (int k = 0; k < 16; k++) {
        for (int i = 0; i < 16; i++) hash = (hash ^ product_a[k][i]) * 1099511628211ull;
        for (int i = 0; i < p.columns; i++) hash = (hash ^ product_b[k][i]) * 1099511628211ull;
    }
    return hash;
}

void multiply(const Product& p, int warp) {
    if (read_operands(p, warp) != p.content)
        fail(true, "what a product reads was changed while it ran: %s:%d", p.site.file, p.site.line);
    Unseen state;
    static float b[16][256], row[256];
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < p.columns; c++) b[k][c] = as_float(u32(product_b[k][c]) << 16);
    for (int r = 0; r < 16; r++) {
        float* const* lanes = p.d + (r & 7) * 4;
        const int i0 = 2 * (r >> 3);
        for (int c = 0; c < p.columns; c++) row[c] = p.add ? lanes[(c & 7) >> 1][4 * (c >> 3) + i0 + (c & 1)] : 0.0f;
        for (int k = 0; k < 16; k++) {
            const float v = as_float(u32(product_a[k][r]) << 16);
            for (int c = 0; c < p.columns; c++) row[c] += v * b[k][c];
        }
        for (int c = 0; c < p.columns; c++) lanes[(c & 7) >> 1][4 * (c >> 3) + i0 + (c & 1)] = row[c];
    }
}

// Computes the first `count` products of a warp.
void run_products(int warp, int count) {
    WarpProducts& w = engine.warps[warp];
    for (int i = 0; i < count; i++) multiply(w.queue[i], warp);
    Unseen state;
    memmove(w.queue, w.queue + count, sizeof(Product) * u64(w.count -= count));
}

struct ProductOperands {
    Product product;
    float* d;
    int pending, warp;
};

void perform_product(void** operands) {
    ProductOperands** o = reinterpret_cast<ProductOperands**>(operands);
    const int warp = o[0]->warp;
    WarpProducts& w = engine.warps[warp];
    const EmuSite site = o[0]->product.site;
    if (!w.fenced) fail(true, "a product without wgmma_fence since the last wait: %s:%d", site.file, site.line);
    if (w.count == MAX_PRODUCTS)
        fail(true, "more than %d products without a wait: %s:%d", MAX_PRODUCTS, site.file, site.line);
    Product& p = w.queue[w.count];
    {
        Unseen state;
        p = o[0]->product;
        for (int l = 0; l < 32; l++) {
            p.d[l] = o[l]->d;
            if (o[l]->product.x != p.x || o[l]->product.y != p.y || o[l]->product.add != p.add)
                fail(true, "lanes ask for different products: %s:%d", site.file, site.line);
        }
    }
    p.group = w.groups;
    p.content = read_operands(p, warp);
    w.count++;
    if (machine.async == EARLY) run_products(warp, w.count);
    if (machine.async == ANY_TIME) run_products(warp, int(next_random() % u32(w.count + 1)));
}
void perform_fence(void** operands) {
    engine.warps[reinterpret_cast<ProductOperands**>(operands)[0]->warp].fenced = true;
}
void perform_commit(void** operands) { engine.warps[reinterpret_cast<ProductOperands**>(operands)[0]->warp].groups++; }
void perform_wait(void** operands) {
    ProductOperands** o = reinterpret_cast<ProductOperands**>(operands);
    WarpProducts& w = engine.warps[o[0]->warp];
    int due = 0;
    while (due < w.count && w.queue[due].group < w.groups - o[0]->pending) due++;
    run_products(o[0]->warp, due);
    w.fenced = false;
}
void perform_registers(void** operands) {
    ProductOperands** o = reinterpret_cast<ProductOperands**>(operands);
    engine.warps[o[0]->warp].registers = o[0]->pending;
}

void begin_engine() {
    engine.mbar_count = engine.box_count = 0;
    for (WarpProducts& w : engine.warps) w.count = w.groups = w.registers = 0, w.fenced = false;
}

// What must not be left over when a block has ended.
void end_engine() {
    if (engine.box_count) fail(false, "the block ended before %d boxes had landed", engine.box_count);
    int registers = 0, silent = 0;
    for (int i = 0; i < machine.threads / 32; i++) {
        if (engine.warps[i].count) fail(false, "warp %d ended with %d products running", i, engine.warps[i].count);
        registers += 32 * engine.warps[i].registers;
        silent += engine.warps[i].registers == 0;
    }
    if (registers && silent) fail(false, "%d warps neither gave registers back nor took any", silent);
    if (registers > 65536) fail(false, "the warps of a block hold %d registers", registers);
}

} // namespace

u32 emu_shared_address(const void* p, EmuSite site) {
    const u8* base = machine.shared[0].memory + CANARY;
    const u8* at = static_cast<const u8*>(p);
    if (at < base || at >= base + machine.shared[0].bytes)
        fail(true, "not an address in dynamic shared memory: %s:%d", site.file, site.line);
    return u32(at - base) + SHARED_BASE;
}

void emu_mbar_init(u64* bar, int arrivals, EmuSite site) {
    if (engine.mbar_count == MAX_MBARS) fail(true, "more than %d barriers: %s:%d", MAX_MBARS, site.file, site.line);
    TSAN(__tsan_write_range(bar, 8));
    *bar = cookie_of(engine.mbar_count);
    engine.mbars[engine.mbar_count++] = {bar, arrivals, arrivals, 0, 0};
}

void emu_mbar_arrive(u64* bar, int bytes, EmuSite site) {
    maybe_land(self());
    check_fences(site);
    const int i = mbar_of(bar, site);
    TSAN(__tsan_release(&engine.mbars[i]));
    engine.mbars[i].bytes += bytes;
    if (engine.mbars[i].bytes >= 1 << 20) fail(true, "a phase expects too many bytes: %s:%d", site.file, site.line);
    if (--engine.mbars[i].missing < 0) fail(true, "more arrivals than a barrier counts: %s:%d", site.file, site.line);
    settle(i);
}

void emu_mbar_wait(u64* bar, int parity, EmuSite site) {
    Fiber* f = self();
    maybe_land(f);
    const int i = mbar_of(bar, site);
    if (engine.mbars[i].parity == parity) {
        f->state = AT_MBAR;
        f->mbar = i;
        f->parity = parity;
        f->site = site;
        to_scheduler();
        if (engine.mbars[i].parity == parity)
            fail(true, "two phases passed while a thread waited for one: %s:%d", site.file, site.line);
    }
    TSAN(__tsan_acquire(&engine.mbars[i]));
    let_others_go();
}

void emu_tma(void* to, const void* map, u64* bar, int rank, bool im2col, const int* at, const int* taps, EmuSite site) {
    Box b = {};
    memcpy(&b.map, map, sizeof b.map);
    if (b.map.magic != MAP_MAGIC || b.map.rank != rank || b.map.im2col != im2col)
        fail(true, "not the map of a tensor of rank %d in this mode: %s:%d", rank, site.file, site.line);
    if (b.map.box[0] != 64 || reinterpret_cast<u64>(to) % 1024)
        fail(true, "a box of rows of 128 bytes at a multiple of 1024 bytes is needed: %s:%d", site.file, site.line);
    emu_shared_address(to, site);
    b.to = static_cast<u8*>(to);
    b.bar = mbar_of(bar, site);
    int rows = 1;
    for (int a = 1; a < (im2col ? 2 : rank); a++) rows *= int(b.map.box[a]);
    b.bytes = rows * 128;
    for (int a = 0; a < rank; a++) b.at[a] = at[a];
    for (int a = 0; im2col && a < rank - 2; a++) {
        b.taps[a] = taps[a];
        if (taps[a] < 0) fail(true, "a negative offset: %s:%d", site.file, site.line);
    }
    emu_shared_address(b.to + b.bytes - 1, site);
    if (engine.box_count == MAX_BOXES) fail(true, "more than %d boxes in flight: %s:%d", MAX_BOXES, site.file, site.line);
    // To ThreadSanitizer the box is written now, by this thread; whoever waits for the barrier has seen that.
    TSAN(__tsan_write_range(to, b.bytes); __tsan_release(&engine.mbars[b.bar]));
    {
        Unseen state;
        memset(to, 0xff, u64(b.bytes));
        engine.boxes[engine.box_count++] = b;
    }
    if (machine.async == EARLY) land_box(engine.box_count - 1);
    maybe_land(self());
}

void emu_wgmma(float* d, int columns, u64 x, u64 y, bool a_across, bool b_across, bool add, EmuSite site) {
    ProductOperands o = {};
    o.product.x = x, o.product.y = y, o.product.columns = columns, o.product.site = site;
    o.product.a_across = a_across, o.product.b_across = b_across, o.product.add = add;
    o.d = d, o.warp = index_of(self()) / 32;
    rendezvous(perform_product, &o, site);
}

static void together(Perform perform, int number, EmuSite site) {
    ProductOperands o = {};
    o.pending = number, o.warp = index_of(self()) / 32;
    rendezvous(perform, &o, site);
}
void emu_wgmma_fence(EmuSite site) { together(perform_fence, 0, site); }
void emu_wgmma_commit(EmuSite site) { together(perform_commit, 0, site); }

// Whichever lane a product was computed in: all of them know afterwards that it has read.
void emu_wgmma_wait(int pending, EmuSite site) {
    Fiber* f = self();
    char* ordering = &machine.warps[index_of(f) / 32].order[f->warp_barriers++ & 1];
    (void)ordering;
    TSAN(__tsan_release(ordering));
    together(perform_wait, pending, site);
    TSAN(__tsan_acquire(ordering));
}

void emu_registers(int count, bool, EmuSite site) {
    if (count < 24 || count > 256 || count % 8) fail(true, "%d registers cannot be asked for: %s:%d", count, site.file, site.line);
    together(perform_registers, count, site);
}

#endif
