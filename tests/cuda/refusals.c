// Plants what a driver refuses, once each, and sees the stand-in refuse it. With a cubin and a kernel's name: prints what the
// stand-in reads of it.

#include "driver.c"

static void expect(const char *what, R got, R want) {
    printf("%s %s: %d\n", got == want ? "ok" : "WRONG", what, got);
}

int main(int count, char **given) {
    void *context, *stream, *module, *f;
    setenv("STANDIN_LOG", "/dev/null", 0);
    cuInit(0);
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxSetCurrent(context);
    cuStreamCreate(&stream, 1);
    if (count == 3) {
        FILE *file = fopen(given[1], "rb");
        static char image[1 << 24];
        if (!file || !fread(image, 1, sizeof image - 1, file)) return 1;
        if (cuModuleLoadData(&module, image) || cuModuleGetFunction(&f, module, given[2])) return 2;
        int threads;
        cuFuncGetAttribute(&threads, 0, f);
        Facts *facts = &((Function *)f)->facts;
        printf("%d registers, %d static, %d threads, %d parameters, %zu bytes\n", facts->registers, facts->fixed, threads, facts->parameters, ((Module *)module)->bytes);
        return 0;
    }
    setenv("STANDIN_THREADS", "256", 1);
    cuModuleLoadData(&module, "code");
    cuModuleGetFunction(&f, module, "conv");
    Facts *facts = &((Function *)f)->facts;
    void *nothing[] = {0};
#define LAUNCH(gx, gy, gz, threads, shared) cuLaunchKernel(f, gx, gy, gz, threads, 1, 1, shared, stream, nothing, 0)
    expect("a launch", LAUNCH(7, 1, 1, 256, 0), OK);
    expect("the largest grid", LAUNCH(0x7fffffff, 65535, 65535, 32, 0), OK);
    expect("no blocks", LAUNCH(0, 1, 1, 256, 0), INVALID_VALUE);
    expect("no blocks along y", LAUNCH(1, 0, 1, 256, 0), INVALID_VALUE);
    expect("no blocks along z", LAUNCH(1, 1, 0, 256, 0), INVALID_VALUE);
    expect("too many along x", LAUNCH(0x80000000u, 1, 1, 256, 0), INVALID_VALUE);
    expect("too many along y", LAUNCH(1, 65536, 1, 256, 0), INVALID_VALUE);
    expect("too many along z", LAUNCH(1, 1, 65536, 256, 0), INVALID_VALUE);
    expect("no threads", LAUNCH(1, 1, 1, 0, 0), INVALID_VALUE);
    expect("more threads than the launch bound", LAUNCH(1, 1, 1, 288, 0), INVALID_VALUE);
    facts->threads = 1024;
    facts->registers = 96;
    expect("more registers than there are", LAUNCH(1, 1, 1, 1024, 0), OUT_OF_RESOURCES);
    expect("48 KiB with what is static", LAUNCH(1, 1, 1, 32, 49152 - 2560), OK);
    expect("48 KiB beside what is static, not asked for", LAUNCH(1, 1, 1, 32, 49152), INVALID_VALUE);
    expect("asking for it", cuFuncSetAttribute(f, 8, 49152), OK);
    expect("asked for", LAUNCH(1, 1, 1, 32, 49152), OK);
    expect("more than was asked for", LAUNCH(1, 1, 1, 32, 49153), INVALID_VALUE);
    expect("all that a block can have", cuFuncSetAttribute(f, 8, (227 << 10) - 2560), OK);
    expect("more than a block can have", cuFuncSetAttribute(f, 8, (227 << 10) - 2559), INVALID_VALUE);
    setenv("STANDIN_CAPABILITY", "80", 1);
    expect("more than sm_80 has", cuFuncSetAttribute(f, 8, (163 << 10) - 2559), INVALID_VALUE);
    setenv("STANDIN_CAPABILITY", "90", 1);
    facts->parameters = 4097;
    expect("arguments of 4 KiB and more", LAUNCH(1, 1, 1, 32, 0), OK);
    setenv("STANDIN_VERSION", "12000", 1);
    expect("with an older driver", LAUNCH(1, 1, 1, 32, 0), INVALID_VALUE);
    setenv("STANDIN_VERSION", "13000", 1);
    facts->parameters = 32765;
    expect("too many arguments", LAUNCH(1, 1, 1, 32, 0), INVALID_VALUE);

    P tensor;
    cuMemAllocAsync(&tensor, 1 << 20, stream);
    char *at = (char *)tensor;
    _Alignas(64) char map[128 + 64];
    uint64_t extents[] = {64, 9, 5, 2}, odd[] = {60, 9, 5, 2}, none[] = {64, 0, 5, 2}, strides[] = {128, 1152, 5760}, far[] = {128, 1152, 1ull << 40}, uneven[] = {120, 1080, 5400};
    unsigned box[] = {64, 1, 1, 1}, wide[] = {128, 1, 1, 1}, tall[] = {64, 257, 1, 1}, steps[] = {1, 1, 1, 1}, far_steps[] = {1, 9, 1, 1};
    int corner[] = {-1, -1}, beyond[] = {-129, -1}, lower[] = {5, 5}, upper[] = {-5, -5};
#define TILED(map, rank, at, extents, strides, box, steps) cuTensorMapEncodeTiled(map, 9, rank, at, extents, strides, box, steps, 0, 3, 3, 0)
#define IM2COL(rank, lower, upper, channels, pixels, steps) cuTensorMapEncodeIm2col(map, 9, rank, at, extents, strides, lower, upper, channels, pixels, steps, 0, 3, 3, 0)
    expect("a tiled map", TILED(map, 4, at, extents, strides, box, steps), OK);
    expect("a map at an odd place", TILED(map + 16, 4, at, extents, strides, box, steps), INVALID_VALUE);
    expect("a tensor at an odd place", TILED(map, 4, at + 8, extents, strides, box, steps), INVALID_VALUE);
    expect("six axes", TILED(map, 6, at, extents, strides, box, steps), INVALID_VALUE);
    expect("no elements", TILED(map, 4, at, none, strides, box, steps), INVALID_VALUE);
    expect("rows of 120 bytes", TILED(map, 4, at, odd, uneven, box, steps), INVALID_VALUE);
    expect("a stride of 2^40", TILED(map, 4, at, extents, far, box, steps), INVALID_VALUE);
    expect("rows wider than the swizzle", TILED(map, 4, at, extents, strides, wide, steps), INVALID_VALUE);
    expect("boxes of 257", TILED(map, 4, at, extents, strides, tall, steps), INVALID_VALUE);
    expect("steps of 9", TILED(map, 4, at, extents, strides, box, far_steps), INVALID_VALUE);
    expect("an im2col map", IM2COL(4, corner, corner, 64, 128, steps), OK);
    expect("two axes of im2col", IM2COL(2, corner, corner, 64, 128, steps), INVALID_VALUE);
    expect("a corner at -129", IM2COL(4, beyond, corner, 64, 128, steps), INVALID_VALUE);
    expect("a box without pixels", IM2COL(4, lower, upper, 64, 128, steps), INVALID_VALUE);
    expect("128 channels", IM2COL(4, corner, corner, 128, 128, steps), INVALID_VALUE);
    expect("1025 pixels", IM2COL(4, corner, corner, 64, 1025, steps), INVALID_VALUE);
    return 0;
}
