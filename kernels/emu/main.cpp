// Runs one launch read from a file: the programs that the sanitizers watch. Every buffer is an allocation of its own
// size, so that AddressSanitizer sees its ends.
#include <cstdio>
#include <cstdlib>
#include <cstring>

typedef unsigned int u32;
typedef unsigned long long u64;
extern "C" int gan_emu_run(const char* kernel, void** arguments, const u32* sizes, int count, const u32* grid,
                           const u32* block, size_t shared, int order, int copies, u64 seed, char* report,
                           size_t report_size);

static void read(void* to, size_t bytes, FILE* f) {
    if (bytes && fread(to, bytes, 1, f) != 1) {
        fprintf(stderr, "the launch file is too short\n");
        exit(2);
    }
}

int main(int count, char** names) {
    FILE* f = count == 2 ? fopen(names[1], "rb") : nullptr;
    if (!f) return 2;
    char kernel[256] = {};
    u32 length, grid[3], block[3] = {1, 1, 1}, mode[4];
    u64 shared;
    read(&length, 4, f);
    read(kernel, length < 255 ? length : 255, f);
    read(grid, sizeof grid, f);
    read(block, 4, f);
    read(&shared, 8, f);
    read(mode, sizeof mode, f);
    const u32 n = mode[3];
    void** arguments = static_cast<void**>(calloc(n + 1, sizeof(void*)));
    void** pointers = static_cast<void**>(calloc(n + 1, sizeof(void*)));
    u32* sizes = static_cast<u32*>(calloc(n + 1, sizeof(u32)));
    for (u32 i = 0; i < n; i++) {
        u32 kind;
        u64 bytes;
        read(&kind, 4, f);
        read(&bytes, 8, f);
        void* memory = nullptr;
        if (bytes && posix_memalign(&memory, 256, bytes)) return 2;
        read(memory, bytes, f);
        if (kind == 3) { // maps of a tensor that follows: their offsets become addresses
            u64 size;
            void* tensor = nullptr;
            read(&size, 8, f);
            if (posix_memalign(&tensor, 256, size)) return 2;
            read(tensor, size, f);
            for (u64 at = 0; at < bytes; at += 128) {
                u64 address;
                memcpy(&address, static_cast<char*>(memory) + at, 8);
                address += reinterpret_cast<u64>(tensor);
                memcpy(static_cast<char*>(memory) + at, &address, 8);
            }
        }
        const bool by_value = kind == 0 || kind == 3;
        pointers[i] = memory;
        arguments[i] = by_value ? memory : &pointers[i];
        sizes[i] = by_value ? u32(bytes) : u32(sizeof(void*));
    }
    char report[1024];
    int code = gan_emu_run(kernel, arguments, sizes, int(n), grid, block, shared, int(mode[0]), int(mode[1]), mode[2],
                           report, sizeof report);
    if (code) fprintf(stderr, "%s\n", report);
    return code;
}
