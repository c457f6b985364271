// The state of the machine in `emu.cpp`, and how it changes from one stack to another. Included there only.
#ifndef GAN_EMU_MACHINE_HPP
#define GAN_EMU_MACHINE_HPP

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct EmuDim {
    u32 x, y, z;
};
struct EmuThread {
    EmuDim thread, block;
};
struct EmuSite {
    const char* file;
    int line;
};

#ifdef EMU_TSAN
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long size);
void __tsan_write_range(void* address, unsigned long size);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#define TSAN(statement) statement
#else
#define TSAN(statement)
#endif
// While it lives, ThreadSanitizer does not see what this thread does to the machine's own state: even uninstrumented code
// calls memcpy and memset, which it watches.
struct Unseen {
    Unseen() { TSAN(AnnotateIgnoreReadsBegin(__FILE__, __LINE__); AnnotateIgnoreWritesBegin(__FILE__, __LINE__)); }
    ~Unseen() { TSAN(AnnotateIgnoreWritesEnd(__FILE__, __LINE__); AnnotateIgnoreReadsEnd(__FILE__, __LINE__)); }
};
#ifdef EMU_ASAN
static const size_t CANARY = 0; // red zones of the allocator do it better
#else
static const size_t CANARY = 1024;
#endif

namespace {

const size_t STACK = 256 * 1024;
const int MAX_THREADS = 1024;
const int MAX_STATIC = 32;
const size_t MOST_SHARED = 227 << 10; // of a block, static and dynamic: sm_90 and sm_100
enum Order { FORWARD, REVERSE, RANDOM, HELD };
enum Async { LATE, EARLY, ANY_TIME };
enum State { RUNNABLE, AT_BARRIER, AT_WARP, AT_MBAR, DONE };

struct Copy {
    u8* to;
    const u8* from;
    int bytes, group;
    bool valid;
};

struct Fiber : EmuThread {
    void* stack_pointer;
    u8* stack;
    State state;
    EmuSite site;
    Copy* copies;
    int copy_count, copy_room, groups;
    u32 barriers, warp_barriers; // passed so far
    int mbar, parity;            // waited for in shared memory: which one, and the phase
    bool fenced, drew;           // since its last barrier: whether it fenced, whether it drew a ticket after that
    void* tsan;
};

typedef void (*Perform)(void** operands);
struct Warp {
    int arrived;
    Perform perform;
    EmuSite site;
    void* operands[32];
    char order[2]; // what ThreadSanitizer orders lanes by, alternating
};

struct Shared {
    const void* identity;
    const char* name;
    u8* memory;
    size_t bytes;
};

struct Machine {
    Fiber fibers[MAX_THREADS];
    Warp warps[MAX_THREADS / 32];
    Shared shared[MAX_STATIC];
    size_t shared_bytes;
    int shared_count, threads, at_barrier, done;
    EmuSite barrier;
    char barrier_order[2];
    void* scheduler;
    void* scheduler_tsan;
    void (*entry)(void**);
    void** arguments;
    Order order;
    Async async;
    int held; // the warpgroup that is held back, or -1
    u64 random, bank_conflicts;
    bool failed;
    char* report;
    size_t report_size;
} machine;

} // namespace

// ---- context switch: keeps the callee-saved registers on the stack, then changes stacks -----------------------------

extern "C" void emu_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
emu_switch:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    ret
)");
const int SAVED = 7; // six registers and the return address
const int RETURN_SLOT = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
emu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0];   stp x21, x22, [sp, #16];  stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48];  stp x27, x28, [sp, #64];  stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96];    stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0];   ldp x21, x22, [sp, #16];  ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48];  ldp x27, x28, [sp, #64];  ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96];    ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
const int SAVED = 20;
const int RETURN_SLOT = 11;
#else
#error "the emulator knows how to switch stacks on x86-64 and on 64-bit Arm"
#endif

#endif
