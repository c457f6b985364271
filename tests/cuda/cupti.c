// A stand-in for CUPTI: gives a record of every kernel that the stand-in for the driver runs, each of 2 us and half a
// microsecond behind the one before. Misuse ends the process.
//
//   STANDIN_CUPTI        what goes wrong:
//                          "version N"   another version of the API (130001)
//                          "refuse N"    kernels cannot be noted, with this code
//                          "miss N"      every N-th kernel has no record
//                          "rename N"    so has every N-th record the name of another kernel
//                          "lose N"      N records are counted as lost
//                          "zero N"      every N-th record has no times

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const char *name; int grid[3], block[3], shared; } Launch;

// As cupti_activity.h of CUDA 13.0 lays out CUpti_ActivityKernel10, 216 bytes; what this stand-in does not tell is left zero.
typedef struct {
    int kind;
    uint8_t cache, shared_config;
    uint16_t registers;
    int partitioned[2];
    uint64_t start, end, completed;
    uint32_t device, context, stream;
    int grid[3], block[3], static_shared, dynamic_shared;
    uint32_t local, local_total, correlation;
    int64_t grid_id;
    const char *name;
    void *reserved;
    uint64_t queued, submitted;
    uint8_t launch_type, carveout[3];
    uint32_t shared_executed;
    uint64_t node;
    uint8_t rest[64];
} Record;
_Static_assert(sizeof(Record) == 216, "the size of the record");

enum { KERNEL = 10, RECORDS = 8192, MAX_LIMIT_REACHED = 12 };
static Record records[RECORDS];
static int count, on;
static uint64_t clock_ns = 1700000000000000000ull;
static void (*request)(uint8_t **, size_t *, size_t *);
static void (*complete)(void *, uint32_t, uint8_t *, size_t, size_t);

static void say(const char *what) {
    static FILE *logfile;
    if (!logfile) {
        logfile = fopen(getenv("STANDIN_LOG"), "a");
        setvbuf(logfile, 0, _IOLBF, 0);
    }
    fprintf(logfile, "cupti %s\n", what);
}

static int fails(const char *how) {
    static char which[32];
    static int n = -1;
    if (n < 0) {
        n = 0;
        const char *plan = getenv("STANDIN_CUPTI");
        if (plan) sscanf(plan, "%31s %d", which, &n);
    }
    return strcmp(which, how) ? 0 : n;
}

static void ran(const Launch *l) {
    static int number;
    if (!on) return;
    number++;
    clock_ns += 500;
    Record r = {.kind = KERNEL, .registers = 96, .start = clock_ns, .end = clock_ns += 2000, .static_shared = 4096, .local = 8};
    memcpy(r.grid, l->grid, sizeof r.grid);
    memcpy(r.block, l->block, sizeof r.block);
    r.dynamic_shared = l->shared;
    r.name = fails("rename") && number % fails("rename") == 0 ? "another" : l->name;
    if (fails("zero") && number % fails("zero") == 0) r.start = r.end = 0;
    if (fails("miss") && number % fails("miss") == 0) return;
    if (count == RECORDS) abort();
    records[count++] = r;
}

int cuptiGetVersion(uint32_t *v) { *v = fails("version") ? fails("version") : 130001; return 0; }
int cuptiGetResultString(int code, const char **text) {
    *text = code == 35 ? "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES" : "CUPTI_ERROR_NOT_INITIALIZED";
    return 0;
}
int cuptiActivityRegisterCallbacks(void (*r)(uint8_t **, size_t *, size_t *), void (*c)(void *, uint32_t, uint8_t *, size_t, size_t)) {
    if (request) abort();
    request = r;
    complete = c;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!driver) abort();
    ((void (*)(void (*)(const Launch *)))dlsym(driver, "standin_watch"))(ran);
    return 0;
}
int cuptiActivityEnable(int kind) {
    if (kind != KERNEL || on || !request) abort();
    say("enable");
    if (fails("refuse")) return fails("refuse");
    on = 1;
    return 0;
}
int cuptiActivityDisable(int kind) {
    if (kind != KERNEL || !on) abort();
    say("disable");
    on = 0;
    return 0;
}
// Hands over the last record first: their order is nobody's promise. In two buffers, if there are so many.
int cuptiActivityFlushAll(uint32_t flag) {
    if (flag > 1 || !request) abort();
    while (count > 0) {
        uint8_t *at;
        size_t bytes, most, valid = 0;
        request(&at, &bytes, &most);
        if (!at || (uintptr_t)at % 8 || bytes < 64 * sizeof(Record) || most) abort();
        for (int i = 0; i < 64 && count > 0; i++, valid += sizeof(Record)) memcpy(at + valid, &records[--count], sizeof(Record));
        complete(0, 0, at, bytes, valid);
    }
    return 0;
}
int cuptiActivityGetNextRecord(uint8_t *at, size_t valid, Record **record) {
    Record *next = *record ? *record + 1 : (Record *)at;
    if ((uint8_t *)next >= at + valid) return MAX_LIMIT_REACHED;
    *record = next;
    return 0;
}
int cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream, size_t *n) {
    if (context || stream) abort();
    *n = fails("lose");
    return 0;
}
