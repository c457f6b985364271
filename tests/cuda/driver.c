// A stand-in for the NVIDIA driver, for tests on machines without one. The device's memory is the host's; copies are made,
// kernels do nothing. Every call is written to a log, and what a real driver would let pass but no program should do ends
// the process: memory or handles that do not exist, work on two streams that no event orders, host memory that is
// overwritten while a copy from it is under way. What a real driver refuses it refuses with the same code, and says why in
// the log: launches beyond what the function or the device has, more shared memory than was asked for.
//
//   STANDIN_LOG          file that the calls are appended to
//   STANDIN_VERSION      what cuDriverGetVersion says (13000)
//   STANDIN_DEVICES      number of devices (1)
//   STANDIN_CAPABILITY   of the devices (90)
//   STANDIN_SMS          multiprocessors of the devices (132)
//   STANDIN_STATIC       bytes of static shared memory of every kernel whose code does not tell (2560)
//   STANDIN_THREADS      launch bound of every kernel whose code does not tell (1024)
//   STANDIN_MEMORY       bytes of the device's memory (1 GiB)
//   STANDIN_POOLS        0: no memory pools
//   STANDIN_LATE         1: copies are made as late as they may be
//   STANDIN_FAIL         "cuGraphLaunch 5 719": the fifth call gives this code; from 200 on every later call does, too

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int R;
typedef uint64_t P;

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600, OUT_OF_RESOURCES = 701 };

static FILE *logfile;
static long long setting(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoll(text) : otherwise;
}

static void say(const char *format, ...) {
    if (!logfile) {
        const char *path = getenv("STANDIN_LOG");
        logfile = path ? fopen(path, "a") : stderr;
        setvbuf(logfile, 0, _IOLBF, 0);
    }
    va_list list;
    va_start(list, format);
    vfprintf(logfile, format, list);
    va_end(list);
    fputc('\n', logfile);
}

static void fault(const char *what) {
    say("FAULT %s", what);
    fprintf(stderr, "stand-in for the driver: %s\n", what);
    fflush(logfile);
    abort();
}

// The planned failure: counts the calls of one function.
static int lost;
static R planned(const char *name) {
    static char which[64];
    static int at = -1, code, count;
    if (at < 0) {
        at = 0;
        const char *plan = getenv("STANDIN_FAIL");
        if (plan) sscanf(plan, "%63s %d %d", which, &at, &code);
    }
    int now = at && !strcmp(which, name) && ++count == at;
    if (now && code >= 200) lost = code;
    return lost ? lost : now ? code : OK;
}

#define CALL(name, ...)                  \
    do {                                 \
        say(name __VA_ARGS__);           \
        R planned_ = planned(name);      \
        if (planned_) return planned_;   \
    } while (0)
#define CHECK(condition) \
    do {                 \
        if (!(condition)) fault(#condition); \
    } while (0)

// ---- handles ----

enum { STREAMS = 8, HOST = 0 };
typedef struct { unsigned at[STREAMS]; } Clock;
typedef struct { int kind, id; } Handle;
enum { STREAM = 1, EVENT, MODULE, FUNCTION, GRAPH, EXECUTABLE };
// A kernel that is launched, and who is told of each that runs (the stand-in for CUPTI).
typedef struct { const char *name; int grid[3], block[3], shared; } Launch;
typedef struct { Launch *at; int count; } Launches;
// What a function demands and was given; 0 bytes of parameters where its code does not tell.
typedef struct { int fixed, registers, threads, parameters, dynamic; } Facts;
typedef struct { Handle h; char name[64]; Facts facts; } Function;
typedef struct { Handle h; unsigned char *image; size_t bytes; } Module;
static void (*watcher)(const Launch *);
void standin_watch(void (*who)(const Launch *)) { watcher = who; }
static void ran(const Launches *all) {
    for (int i = 0; watcher && i < all->count; i++) watcher(&all->at[i]);
}
typedef struct { Handle h; Clock clock; int timing; double at; } Event;
typedef struct { Handle h; Clock clock; int capturing; Launches nodes; } Stream;
typedef struct { Handle h; Launches nodes; } Graph;

static int current_context;
static char context_token;
static Stream *streams[STREAMS];
static int stream_count = 1;
static Clock host;

static void later(Clock *a, const Clock *b) {
    for (int i = 0; i < STREAMS; i++)
        if (b->at[i] > a->at[i]) a->at[i] = b->at[i];
}

static Stream *stream_of(void *p) {
    CHECK(p && "a stream of our own");
    CHECK(((Handle *)p)->kind == STREAM);
    CHECK(current_context);
    return p;
}

// One more thing is asked of a stream, by a host that has waited for what it has waited for.
static unsigned ask(Stream *s) {
    later(&s->clock, &host);
    return ++s->clock.at[s->h.id];
}

// ---- memory ----

typedef struct { char *at; size_t bytes; int pinned; } Block;
static Block blocks[4096];
static int block_count;
static size_t used;

static Block *block_of(const void *p, size_t n, int pinned) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].pinned == pinned && (const char *)p >= blocks[i].at && (const char *)p + n <= blocks[i].at + blocks[i].bytes)
            return &blocks[i];
    return 0;
}

static void *reserve(size_t bytes, int pinned) {
    CHECK(bytes > 0);
    CHECK(block_count < 4096);
    char *at = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(at, pinned ? 0xcc : 0, bytes);
    blocks[block_count++] = (Block){at, bytes, pinned};
    if (!pinned) used += bytes;
    return at;
}

static void release(void *p, int pinned) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].at == p && blocks[i].pinned == pinned) {
            if (!pinned) used -= blocks[i].bytes;
            free(p);
            blocks[i] = blocks[--block_count];
            return;
        }
    fault("freed what was never reserved");
}

// ---- what streams do to memory, and whether the events order it ----

typedef struct { char *at; size_t bytes; int write, stream; unsigned time; } Access;
enum { ACCESSES = 8192 };
static Access accesses[ACCESSES];
static unsigned access_count;

static void touch(Stream *s, const void *p, size_t bytes, int write) {
    unsigned first = access_count > ACCESSES ? access_count - ACCESSES : 0;
    for (unsigned i = first; i < access_count; i++) {
        Access *a = &accesses[i % ACCESSES];
        int meet = (char *)p < a->at + a->bytes && a->at < (char *)p + bytes;
        if (meet && (write || a->write) && s->clock.at[a->stream] < a->time)
            fault("two streams use the same memory and no event orders them");
    }
    accesses[access_count++ % ACCESSES] = (Access){(char *)p, bytes, write, s->h.id, s->clock.at[s->h.id]};
}

// Copies that are under way, in the order in which they were asked for: with STANDIN_LATE none is made before the host has
// waited for it. `sum` is of the source when the copy was asked for, if that is the host's.
typedef struct { char *to; const char *from; size_t bytes; int pinned; uint64_t sum; int stream; unsigned time; } Copy;
enum { COPIES = 4096 };
static Copy copies[COPIES];
static int copy_count;

static uint64_t sum_of(const char *p, size_t n) {
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 1099511628211ull;
    return h;
}

// Makes the copies that precede a point.
static void arrive(const Clock *by) {
    int kept = 0;
    for (int i = 0; i < copy_count; i++) {
        Copy c = copies[i];
        if (by->at[c.stream] < c.time) {
            copies[kept++] = c;
            continue;
        }
        if (c.pinned && sum_of(c.from, c.bytes) != c.sum) fault("host memory was overwritten while a copy from it was under way");
        memmove(c.to, c.from, c.bytes);
    }
    copy_count = kept;
}

static void copy(Stream *s, void *to, const void *from, size_t n, int from_pinned, int may_be_late) {
    if (!may_be_late || !setting("STANDIN_LATE", 0)) {
        arrive(&s->clock);
        memmove(to, from, n);
        return;
    }
    CHECK(copy_count < COPIES);
    uint64_t sum = from_pinned ? sum_of(from, n) : 0;
    copies[copy_count++] = (Copy){to, from, n, from_pinned, sum, s->h.id, s->clock.at[s->h.id]};
}

static int under_way(const Clock *by) {
    for (int i = 0; i < copy_count; i++)
        if (by->at[copies[i].stream] >= copies[i].time) return 1;
    return 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

// ---- the driver's functions ----

R cuInit(unsigned flags) { CALL("cuInit"); (void)flags; return OK; }
R cuDriverGetVersion(int *v) { CALL("cuDriverGetVersion"); *v = (int)setting("STANDIN_VERSION", 13000); return OK; }

static const struct { int code; const char *name, *meaning; } codes[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
};
static R text_of(int code, const char **text, int name) {
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) {
            *text = name ? codes[i].name : codes[i].meaning;
            return OK;
        }
    *text = 0;
    return INVALID_VALUE;
}
R cuGetErrorName(int code, const char **text) { return text_of(code, text, 1); }
R cuGetErrorString(int code, const char **text) { return text_of(code, text, 0); }

R cuDeviceGetCount(int *n) { CALL("cuDeviceGetCount"); *n = (int)setting("STANDIN_DEVICES", 1); return OK; }
R cuDeviceGet(int *d, int n) {
    CALL("cuDeviceGet", " %d", n);
    if (n < 0 || n >= setting("STANDIN_DEVICES", 1)) return INVALID_DEVICE;
    *d = n;
    return OK;
}
R cuDeviceGetName(char *name, int n, int d) { CALL("cuDeviceGetName"); snprintf(name, n, "Stand-in %d", d); return OK; }
R cuDeviceTotalMem_v2(size_t *n, int d) { CALL("cuDeviceTotalMem_v2"); (void)d; *n = setting("STANDIN_MEMORY", 1 << 30); return OK; }
// Of a block, static and dynamic (CUDA C++ Programming Guide, "Compute Capabilities").
static int most_shared(void) {
    int c = (int)setting("STANDIN_CAPABILITY", 90);
    return (c < 80 ? 64 : c == 80 || c == 87 ? 163 : c == 90 || (c >= 100 && c < 120) ? 227 : 99) << 10;
}
// Of a kernel: sm_70 and newer, with a driver for CUDA 12.1 or newer.
static int most_parameters(void) { return setting("STANDIN_CAPABILITY", 90) >= 70 && setting("STANDIN_VERSION", 13000) >= 12010 ? 32764 : 4096; }
R cuDeviceGetAttribute(int *value, int which, int d) {
    CALL("cuDeviceGetAttribute", " %d", which);
    (void)d;
    int capability = (int)setting("STANDIN_CAPABILITY", 90);
    switch (which) {
        case 1: case 2: *value = 1024; break;
        case 5: *value = 0x7fffffff; break;
        case 6: case 7: *value = 65535; break;
        case 8: *value = 48 << 10; break;
        case 12: *value = 65536; break;
        case 16: *value = (int)setting("STANDIN_SMS", 132); break;
        case 39: *value = 2048; break;
        case 81: *value = (most_shared() + 1024); break;
        case 82: *value = 65536; break;
        case 97: *value = most_shared(); break;
        case 106: *value = 32; break;
        case 111: *value = 1024; break;
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 115: *value = (int)setting("STANDIN_POOLS", 1); break;
        default: *value = 0;
    }
    return OK;
}
R cuDeviceGetDefaultMemPool(void **pool, int d) { CALL("cuDeviceGetDefaultMemPool"); (void)d; *pool = &context_token; return OK; }
R cuMemPoolSetAttribute(void *pool, int which, void *value) {
    CALL("cuMemPoolSetAttribute", " %d %llx", which, *(unsigned long long *)value);
    CHECK(pool == &context_token && which == 4);
    return OK;
}
R cuDevicePrimaryCtxRetain(void **c, int d) { CALL("cuDevicePrimaryCtxRetain"); (void)d; *c = &context_token; return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { CALL("cuDevicePrimaryCtxRelease_v2"); (void)d; CHECK(block_count == 0 || lost); return OK; }
R cuCtxSetCurrent(void *c) {
    if (lost) return lost;
    CHECK(c == &context_token);
    current_context = 1;
    return OK;
}

R cuStreamCreate(void **s, unsigned flags) {
    CALL("cuStreamCreate", " %d", stream_count);
    CHECK(flags == 1 && "a stream that does not wait for the default one");
    CHECK(stream_count < STREAMS);
    Stream *own = calloc(1, sizeof *own);
    own->h = (Handle){STREAM, stream_count};
    streams[stream_count++] = own;
    *s = own;
    return OK;
}
R cuStreamDestroy_v2(void *s) { CALL("cuStreamDestroy_v2"); stream_of(s); return OK; }
R cuStreamSynchronize(void *p) {
    CALL("cuStreamSynchronize", " %d", stream_of(p)->h.id);
    Stream *s = p;
    CHECK(!s->capturing);
    later(&host, &s->clock);
    arrive(&host);
    return OK;
}
R cuStreamWaitEvent(void *p, void *e, unsigned flags) {
    CALL("cuStreamWaitEvent", " %d %d", stream_of(p)->h.id, ((Handle *)e)->id);
    (void)flags;
    CHECK(((Handle *)e)->kind == EVENT);
    ask(p);
    later(&((Stream *)p)->clock, &((Event *)e)->clock);
    return OK;
}
R cuEventCreate(void **e, unsigned flags) {
    static int count;
    CALL("cuEventCreate", " %d flags %u", ++count, flags);
    Event *own = calloc(1, sizeof *own);
    own->h = (Handle){EVENT, count};
    own->timing = !(flags & 2);
    *e = own;
    return OK;
}
R cuEventRecord(void *e, void *p) {
    CALL("cuEventRecord", " %d on %d", ((Handle *)e)->id, stream_of(p)->h.id);
    CHECK(((Handle *)e)->kind == EVENT);
    ask(p);
    CHECK(!((Event *)e)->timing || !((Stream *)p)->capturing);
    ((Event *)e)->clock = ((Stream *)p)->clock;
    ((Event *)e)->at = now();
    return OK;
}
// As in every version: milliseconds between two events that were made for it, have happened and that the host has waited for.
R cuEventElapsedTime(float *ms, void *from, void *to) {
    Event *a = from, *b = to;
    CHECK(a->h.kind == EVENT && b->h.kind == EVENT && a->timing && b->timing);
    for (int i = 0; i < STREAMS; i++)
        if (b->clock.at[i] > host.at[i] || a->clock.at[i] > host.at[i]) return NOT_READY;
    *ms = (float)(b->at - a->at);
    return OK;
}
R cuEventQuery(void *e) {
    CALL("cuEventQuery", " %d", ((Handle *)e)->id);
    CHECK(((Handle *)e)->kind == EVENT);
    if (under_way(&((Event *)e)->clock)) return NOT_READY;
    later(&host, &((Event *)e)->clock);
    return OK;
}
R cuEventSynchronize(void *e) {
    CALL("cuEventSynchronize", " %d", ((Handle *)e)->id);
    CHECK(((Handle *)e)->kind == EVENT);
    later(&host, &((Event *)e)->clock);
    arrive(&host);
    return OK;
}
R cuEventDestroy_v2(void *e) { CALL("cuEventDestroy_v2"); CHECK(((Handle *)e)->kind == EVENT); free(e); return OK; }

R cuMemGetInfo_v2(size_t *available, size_t *total) {
    CALL("cuMemGetInfo_v2");
    *total = setting("STANDIN_MEMORY", 1 << 30);
    *available = *total - used;
    return OK;
}
static R get_memory(P *p, size_t n) {
    if (used + n > (size_t)setting("STANDIN_MEMORY", 1 << 30)) return OUT_OF_MEMORY;
    *p = (P)reserve(n, 0);
    return OK;
}
R cuMemAlloc_v2(P *p, size_t n) { CALL("cuMemAlloc_v2", " %zu", n); CHECK(!setting("STANDIN_POOLS", 1)); return get_memory(p, n); }
R cuMemFree_v2(P p) { CALL("cuMemFree_v2"); release((void *)p, 0); return OK; }
#ifndef OLD // a driver from before memory pools
R cuMemAllocAsync(P *p, size_t n, void *s) {
    CALL("cuMemAllocAsync", " %zu", n);
    CHECK(setting("STANDIN_POOLS", 1));
    CHECK(!stream_of(s)->capturing);
    R r = get_memory(p, n);
    if (r == OK) {
        ask(s);
        touch(s, (void *)*p, n, 1);
    }
    return r;
}
#endif
R cuMemFreeAsync(P p, void *s) {
    CALL("cuMemFreeAsync");
    Block *b = block_of((void *)p, 1, 0);
    CHECK(b);
    ask(stream_of(s));
    touch(s, b->at, b->bytes, 1);
    arrive(&((Stream *)s)->clock);
    for (int i = 0; i < copy_count; i++) CHECK(copies[i].to < b->at || copies[i].to >= b->at + b->bytes);
    release((void *)p, 0);
    return OK;
}
R cuMemHostAlloc(void **p, size_t n, unsigned flags) { CALL("cuMemHostAlloc", " %zu flags %u", n, flags); *p = reserve(n, 1); return OK; }
R cuMemFreeHost(void *p) { CALL("cuMemFreeHost"); release(p, 1); return OK; }

R cuMemcpyHtoDAsync_v2(P to, const void *from, size_t n, void *s) {
    int pinned = block_of(from, n, 1) != 0;
    CALL("cuMemcpyHtoDAsync_v2", " %zu %s on %d", n, pinned ? "pinned" : "pageable", stream_of(s)->h.id);
    CHECK(block_of((void *)to, n, 0));
    CHECK(!((Stream *)s)->capturing);
    ask(s);
    touch(s, (void *)to, n, 1);
    copy(s, (void *)to, from, n, pinned, pinned);
    return OK;
}
R cuMemcpyDtoHAsync_v2(void *to, P from, size_t n, void *s) {
    int pinned = block_of(to, n, 1) != 0;
    CALL("cuMemcpyDtoHAsync_v2", " %zu %s on %d", n, pinned ? "pinned" : "pageable", stream_of(s)->h.id);
    CHECK(block_of((void *)from, n, 0));
    CHECK(!((Stream *)s)->capturing);
    ask(s);
    touch(s, (void *)from, n, 0);
    copy(s, to, (void *)from, n, 0, pinned);
    return OK;
}
R cuMemcpyDtoDAsync_v2(P to, P from, size_t n, void *s) {
    CALL("cuMemcpyDtoDAsync_v2", " %zu on %d", n, stream_of(s)->h.id);
    CHECK(block_of((void *)to, n, 0) && block_of((void *)from, n, 0));
    ask(s);
    touch(s, (void *)from, n, 0);
    touch(s, (void *)to, n, 1);
    copy(s, (void *)to, (void *)from, n, 0, 1);
    return OK;
}
R cuMemsetD8Async(P p, unsigned char v, size_t n, void *s) {
    CALL("cuMemsetD8Async", " %zu on %d", n, stream_of(s)->h.id);
    CHECK(block_of((void *)p, n, 0));
    ask(s);
    touch(s, (void *)p, n, 1);
    arrive(&((Stream *)s)->clock);
    memset((void *)p, v, n);
    return OK;
}

// ---- what a cubin tells of its kernels: an ELF file with a few sections for each (cuda-binary-utilities, `cuobjdump -elf`) ----

typedef struct { uint32_t name, type; uint64_t flags, address, offset, size; uint32_t link, info; uint64_t align, entry; } Section;
static int is_elf(const unsigned char *p) { return !memcmp(p, "\177ELF", 4); }
static Section section(const unsigned char *p, int i) {
    uint64_t table;
    Section s;
    memcpy(&table, p + 40, 8);
    memcpy(&s, p + table + i * sizeof s, sizeof s);
    return s;
}
static int sections(const unsigned char *p) { return p[60] | p[61] << 8; }
static size_t image_size(const unsigned char *p) {
    if (!is_elf(p)) return strlen((const char *)p);
    uint64_t table, segments, end;
    memcpy(&segments, p + 32, 8);
    memcpy(&table, p + 40, 8);
    end = table + sections(p) * sizeof(Section);
    segments += 56 * (p[56] | p[57] << 8);
    if (segments > end) end = segments;
    for (int i = 0; i < sections(p); i++) {
        Section s = section(p, i);
        if (s.type != 8 && s.offset + s.size > end) end = s.offset + s.size; // 8: takes no room in the file
    }
    return end;
}
static int find_section(const unsigned char *p, const char *prefix, const char *kernel, Section *found) {
    Section names = section(p, p[62] | p[63] << 8);
    size_t n = strlen(prefix);
    for (int i = 0; i < sections(p); i++) {
        *found = section(p, i);
        const char *name = (const char *)p + names.offset + found->name;
        if (!strncmp(name, prefix, n) && !strcmp(name + n, kernel)) return 1;
    }
    return 0;
}
// Registers of a thread: sm_80's code has them with its section, newer code in a list by symbol.
static int registers_of(const unsigned char *p, const char *kernel, Section text) {
    Section info, symbols;
    if (text.info >> 24) return text.info >> 24;
    if (!find_section(p, ".nv.info", "", &info) || !find_section(p, ".symtab", "", &symbols)) return 0;
    Section names = section(p, symbols.link);
    for (uint64_t at = info.offset; at + 12 <= info.offset + info.size;) {
        int format = p[at], number = p[at + 1], value = p[at + 2] | p[at + 3] << 8;
        uint32_t symbol, count, name;
        memcpy(&symbol, p + at + 4, 4);
        memcpy(&count, p + at + 8, 4);
        if (number == 0x2f && format == 4) {
            memcpy(&name, p + symbols.offset + 24 * symbol, 4);
            if (!strcmp((const char *)p + names.offset + name, kernel)) return count;
        }
        at += 4 + (format == 4 ? value : 0);
    }
    return 0;
}
static R facts_of(const Module *m, const char *kernel, Facts *f) {
    const unsigned char *p = m->image;
    *f = (Facts){(int)setting("STANDIN_STATIC", 2560), 40, (int)setting("STANDIN_THREADS", 1024), 0, 0};
    f->dynamic = (48 << 10) - f->fixed;
    if (!is_elf(p)) return OK;
    Section text, s;
    if (!find_section(p, ".text.", kernel, &text)) return NOT_FOUND;
    f->registers = registers_of(p, kernel, text);
    CHECK(f->registers > 0 && "a cubin that tells of its registers");
    f->fixed = find_section(p, ".nv.shared.", kernel, &s) ? (int)s.size : 0;
    // From sm_90 on the section begins with the 1 KiB that the system keeps of every block; the attribute leaves it out.
    if (f->fixed >= 1024 && setting("STANDIN_CAPABILITY", 90) >= 90) f->fixed -= 1024;
    f->dynamic = (48 << 10) - f->fixed;
    if (!find_section(p, ".nv.info.", kernel, &s)) return OK;
    // Attributes: a format (4: with a size and so many bytes), a number, 16 bits of value or size.
    for (uint64_t at = s.offset; at + 4 <= s.offset + s.size;) {
        int format = p[at], number = p[at + 1], value = p[at + 2] | p[at + 3] << 8;
        if (number == 0x05 && format == 4) memcpy(&f->threads, p + at + 4, 4); // the launch bound along x
        if (number == 0x19 && format == 3) f->parameters = value;
        at += 4 + (format == 4 ? value : 0);
    }
    return OK;
}

R cuModuleLoadData(void **m, const void *image) {
    CALL("cuModuleLoadData");
    CHECK(current_context && image);
    Module *own = calloc(1, sizeof *own);
    own->h.kind = MODULE;
    own->bytes = image_size(image);
    own->image = calloc(1, own->bytes + 64);
    memcpy(own->image, image, own->bytes);
    *m = own;
    return OK;
}
R cuModuleUnload(void *m) { CALL("cuModuleUnload"); CHECK(((Handle *)m)->kind == MODULE); free(((Module *)m)->image); free(m); return OK; }
R cuModuleGetFunction(void **f, void *m, const char *name) {
    CALL("cuModuleGetFunction", " %s", name);
    CHECK(((Handle *)m)->kind == MODULE);
    Function *own = calloc(1, sizeof *own);
    own->h.kind = FUNCTION;
    snprintf(own->name, sizeof own->name, "%s", name);
    *f = own;
    return facts_of(m, name, &own->facts);
}
// Says why, and gives the driver's code.
#define REFUSE(code, ...)                         \
    do {                                          \
        say("REFUSED " __VA_ARGS__);              \
        return code;                              \
    } while (0)
R cuFuncSetAttribute(void *p, int which, int value) {
    Function *f = p;
    CALL("cuFuncSetAttribute", " %d %d", which, value);
    CHECK(f->h.kind == FUNCTION && which == 8);
    if (value < 0 || value + f->facts.fixed > most_shared())
        REFUSE(INVALID_VALUE, "%s: %d dynamic and %d static bytes of shared memory of %d", f->name, value, f->facts.fixed, most_shared());
    f->facts.dynamic = value;
    return OK;
}
R cuFuncGetAttribute(int *value, int which, void *p) {
    Function *f = p;
    CHECK(f->h.kind == FUNCTION);
    switch (which) {
        case 0: { // what the launch bound and the registers leave
            int fit = 65536 / ((f->facts.registers * 32 + 255) / 256 * 256) * 32;
            *value = fit < f->facts.threads ? fit : f->facts.threads;
            break;
        }
        case 1: *value = f->facts.fixed; break;
        case 3: *value = 16; break; // spills
        case 4: *value = f->facts.registers; break;
        case 8: *value = f->facts.dynamic; break;
        default: *value = 0;
    }
    return OK;
}
// Whether a device would run it: what the driver checks before anything runs.
static R check_launch(const Function *f, const unsigned *grid, const unsigned *block, unsigned shared) {
    const char *name = f->name;
    unsigned threads = block[0] * block[1] * block[2];
    if (!grid[0] || !grid[1] || !grid[2]) REFUSE(INVALID_VALUE, "%s: a grid without blocks", name);
    if (grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
        REFUSE(INVALID_VALUE, "%s: a grid of (%u,%u,%u)", name, grid[0], grid[1], grid[2]);
    if (!threads || threads > 1024 || block[0] > 1024 || block[1] > 1024 || block[2] > 64)
        REFUSE(INVALID_VALUE, "%s: blocks of %u threads", name, threads);
    if ((int)threads > f->facts.threads) REFUSE(INVALID_VALUE, "%s: blocks of %u threads, launch bound %d", name, threads, f->facts.threads);
    if ((f->facts.registers * 32 + 255) / 256 * 256 * ((threads + 31) / 32) > 65536)
        REFUSE(OUT_OF_RESOURCES, "%s: %d registers of %u threads", name, f->facts.registers, threads);
    if ((int)shared > f->facts.dynamic)
        REFUSE(INVALID_VALUE, "%s: %u bytes of dynamic shared memory beside %d static, %d asked for", name, shared, f->facts.fixed, f->facts.dynamic);
    if (f->facts.parameters > most_parameters())
        REFUSE(INVALID_VALUE, "%s: %d bytes of parameters of %d", name, f->facts.parameters, most_parameters());
    return OK;
}
R cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **args, void **extra) {
    CALL("cuLaunchKernel", " (%u,%u,%u) (%u,%u,%u) %u%s", gx, gy, gz, bx, by, bz, shared, stream_of(s)->capturing ? " recorded" : "");
    CHECK(((Handle *)f)->kind == FUNCTION);
    CHECK(args && !extra);
    R refused = check_launch(f, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared);
    if (refused) return refused;
    CHECK(!args[0] || (uintptr_t)args[0] % 16 == 0);
    Launch one = {((Function *)f)->name, {gx, gy, gz}, {bx, by, bz}, shared};
    if (((Stream *)s)->capturing) {
        Launches *all = &((Stream *)s)->nodes;
        all->at = realloc(all->at, (all->count + 1) * sizeof one);
        all->at[all->count++] = one;
    } else {
        ask(s);
        ran(&(Launches){&one, 1});
    }
    return OK;
}

R cuStreamBeginCapture_v2(void *s, int mode) {
    CALL("cuStreamBeginCapture_v2");
    CHECK(mode == 1 && !stream_of(s)->capturing);
    ((Stream *)s)->capturing = 1;
    ((Stream *)s)->nodes = (Launches){0};
    return OK;
}
R cuStreamEndCapture(void *s, void **g) {
    CALL("cuStreamEndCapture", " %d nodes", stream_of(s)->nodes.count);
    CHECK(((Stream *)s)->capturing);
    ((Stream *)s)->capturing = 0;
    Graph *own = calloc(1, sizeof *own);
    own->h.kind = GRAPH;
    own->nodes = ((Stream *)s)->nodes;
    *g = own;
    return OK;
}
R cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long flags) {
    CALL("cuGraphInstantiateWithFlags", " flags %llu", flags);
    CHECK(((Handle *)g)->kind == GRAPH);
    Graph *own = calloc(1, sizeof *own);
    *own = *(Graph *)g;
    own->h.kind = EXECUTABLE;
    *e = own;
    return OK;
}
R cuGraphDestroy(void *g) { CALL("cuGraphDestroy"); CHECK(((Handle *)g)->kind == GRAPH); free(g); return OK; }
R cuGraphLaunch(void *e, void *s) {
    CALL("cuGraphLaunch", " %d nodes on %d", ((Graph *)e)->nodes.count, stream_of(s)->h.id);
    CHECK(((Handle *)e)->kind == EXECUTABLE);
    ask(s);
    ran(&((Graph *)e)->nodes);
    return OK;
}
R cuGraphExecDestroy(void *e) { CALL("cuGraphExecDestroy"); CHECK(((Handle *)e)->kind == EXECUTABLE); free(e); return OK; }

// ---- maps for TMA: the driver's conditions on them, for the maps that this program makes ----

// Where the driver gives INVALID_VALUE.
#define ENCODABLE(condition) \
    do {                     \
        if (!(condition)) REFUSE(INVALID_VALUE, "a tensor map: %s", #condition); \
    } while (0)
static R check_map(void *map, int type, unsigned rank, void *at, const uint64_t *extents, const uint64_t *strides, const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    ENCODABLE((uintptr_t)map % 64 == 0 && (uintptr_t)at % 16 == 0);
    CHECK(type == 9 && "bf16");
    CHECK(interleave == 0 && swizzle == 3 && promotion >= 0 && promotion <= 3 && fill == 0);
    ENCODABLE(rank >= 2 && rank <= 5);
    uint64_t bytes = 2;
    for (unsigned a = 0; a < rank; a++) {
        ENCODABLE(extents[a] > 0 && extents[a] <= (1ull << 32));
        ENCODABLE(steps[a] >= 1 && steps[a] <= 8);
        bytes *= extents[a];
        if (a + 1 < rank) ENCODABLE(strides[a] % 16 == 0 && strides[a] < (1ull << 40) && strides[a] >= bytes && "no neighbours that overlap");
        if (a + 1 < rank) bytes = strides[a];
    }
    CHECK(block_of(at, bytes, 0) && "a tensor in the device's memory");
    memset(map, 0x5a, 128);
    return OK;
}
R cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *at, const uint64_t *extents, const uint64_t *strides, const unsigned *box, const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    CALL("cuTensorMapEncodeTiled", " rank %u", rank);
    ENCODABLE(box[0] * 2 <= 128 && box[0] * 2 % 16 == 0 && "rows of a box fit the swizzle");
    for (unsigned a = 0; a < rank; a++) ENCODABLE(box[a] >= 1 && box[a] <= 256);
    return check_map(map, type, rank, at, extents, strides, steps, interleave, swizzle, promotion, fill);
}
R cuTensorMapEncodeIm2col(void *map, int type, unsigned rank, void *at, const uint64_t *extents, const uint64_t *strides, const int *lower, const int *upper, unsigned channels, unsigned pixels, const unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    CALL("cuTensorMapEncodeIm2col", " rank %u", rank);
    ENCODABLE(rank >= 3 && rank <= 5);
    ENCODABLE(channels * 2 <= 128 && channels * 2 % 16 == 0 && pixels >= 1 && pixels <= 1024);
    const int most = rank == 3 ? 32767 : rank == 4 ? 127 : 15;
    for (unsigned a = 0; a + 2 < rank; a++) {
        ENCODABLE(lower[a] >= -most - 1 && lower[a] <= most && upper[a] >= -most - 1 && upper[a] <= most);
        ENCODABLE((int64_t)extents[1 + a] + upper[a] - lower[a] > 0 && "a box that holds a pixel");
    }
    return check_map(map, type, rank, at, extents, strides, steps, interleave, swizzle, promotion, fill);
}
