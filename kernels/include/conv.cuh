// Index arithmetic of convolutions, shared by their three derivatives.
//
// Layouts, all row-major, channels last; 2D has depth 1:
//   x [n, d, h, w, c]    w [k, kd, kh, kw, c / groups]    y [n, od, oh, ow, k]
#ifndef GAN_CONV_CUH
#define GAN_CONV_CUH

#include "gan.cuh"

// The fields of `ConvGeometry` in `src/ops/conv/geometry.rs`, in its order.
struct Geometry {
    int n, c, k, groups;
    int input[3], output[3], kernel[3], stride[3], padding[3], dilation[3];
};

// Division by a number that the host knows, of anything from 0 to 2^31 - 1, by a multiplication: for `by` above 1 the quotient is
// the upper half of v * factor, shifted.
struct Divider {
    int by;
    u32 factor;
    int shift;
};

// What positions of a result and its summed index are divided by: the positions of an image, their height and width (of a phase,
// where the gradient by the input has several), and the channels that are summed over.
struct Dividers {
    Divider positions, height, width, channels;
};

// The argument of the convolutions.
struct ConvShape {
    Geometry geometry;
    Dividers divide;
};

// With -DGEOMETRY=n,c,k,... the shape is a constant and every division by it a multiplication; without, it is the
// kernel's argument. The launch is the same. With -DWINDOW=groups,kernel...,stride...,padding...,dilation... what moves over the
// source is a constant, and layers that differ in extents and channels are one kernel; then no tap meets nothing but
// padding, and all phases have the same extents, those of the dividers.
#ifdef GEOMETRY
#define USE_GEOMETRY(argument) constexpr Geometry geometry = {GEOMETRY}
#define USE_SHAPE(argument) USE_GEOMETRY(argument); constexpr Dividers divide = {}
#elif defined(WINDOW)
struct Window {
    int groups, kernel[3], stride[3], padding[3], dilation[3];
};
DEVICE Geometry with_window(Geometry g) {
    constexpr Window window = {WINDOW};
    g.groups = window.groups;
#pragma unroll
    for (int a = 0; a < 3; a++) {
        g.kernel[a] = window.kernel[a];
        g.stride[a] = window.stride[a];
        g.padding[a] = window.padding[a];
        g.dilation[a] = window.dilation[a];
    }
    return g;
}
#define USE_SHAPE(argument) \
    const Geometry geometry = with_window(argument.geometry); \
    const Dividers& divide = argument.divide
#else
#define USE_GEOMETRY(argument) const Geometry& geometry = argument
#define USE_SHAPE(argument) \
    const Geometry& geometry = argument.geometry; \
    const Dividers& divide = argument.divide
#endif

// -DWHOLE=1: the channels of the result (of x, in the gradient by the weights) are whole tiles, and need not be compared with.
#ifndef WHOLE
#define WHOLE 0
#endif

// v / by, where `by` is a constant or what a divider is for.
DEVICE int quotient(int v, int by, const Divider& divider) {
#ifndef WINDOW
    if (by != divider.by) return v / by;
#endif
    return divider.by == 1 ? v : int(u32(u64(u32(v)) * divider.factor >> 32) >> divider.shift);
}

DEVICE constexpr int volume(const int (&e)[3]) { return e[0] * e[1] * e[2]; }

DEVICE constexpr int gcd(int a, int b) {
    while (b) {
        int r = a % b;
        a = b;
        b = r;
    }
    return a;
}

// Along one axis, how a position of the result meets the source: position p and tap j read source coordinate
// p * scale + origin + j * step, multiply by kernel tap first_tap + j * tap_step, and sum into result coordinate
// p * out_scale + out_origin.
struct Axis {
    int positions, scale, origin, source;
    int taps, step, first_tap, tap_step;
    int out_scale, out_origin;
};

// y[o] = sum_r x[o stride - padding + r dilation] w[r].
DEVICE Axis forward_axis(const Geometry& g, int a) {
    return {g.output[a], g.stride[a], -g.padding[a], g.input[a], g.kernel[a], g.dilation[a], 0, 1, 1, 0};
}

// dx[i] = sum over (o, r) with o stride - padding + r dilation = i of dy[o] w[r].
// Inputs i = phase + stride u of one phase share their taps: those r with (phase + padding - r dilation) divisible by
// the stride. Such r are first_tap + j tap_step, and o = u + origin - j (tap_step dilation / stride). So each phase is
// a dense stride-1 convolution, and no product with a zero in between is ever formed.
DEVICE Axis phase_axis(const Geometry& g, int a, int phase) {
    int stride = g.stride[a], dilation = g.dilation[a], target = phase + g.padding[a];
    int tap_step = stride / gcd(stride, dilation), first = 0;
    while (first < tap_step && mod_floor(target - first * dilation, stride) != 0) first++;
    int taps = first < tap_step && first < g.kernel[a] ? ceil_div(g.kernel[a] - first, tap_step) : 0;
    // Said so that it can be a constant: all phases have as many where the stride divides the kernel.
    if (tap_step == stride && g.kernel[a] % tap_step == 0) taps = g.kernel[a] / tap_step;
    return {ceil_div(max_of(g.input[a] - phase, 0), stride),
            1,
            taps ? (target - first * dilation) / stride : 0,
            g.output[a],
            taps,
            -(tap_step * dilation / stride),
            first,
            tap_step,
            stride,
            phase};
}

// The same without the taps at either end that read nothing but padding, whatever the position: at 1x1, reached from 2x2 by a
// 4x4 kernel, twelve of sixteen. A kernel that streams its weights need not read theirs.
DEVICE Axis without_dead_taps(Axis a) {
    const int lowest = a.origin, highest = a.origin + (a.positions - 1) * a.scale; // of the first tap
    int first, end;
    if (a.step > 0) {
        first = ceil_div(max_of(-highest, 0), a.step);
        end = ceil_div(max_of(a.source - lowest, 0), a.step);
    } else {
        first = lowest < a.source ? 0 : (lowest - a.source) / -a.step + 1;
        end = highest < 0 ? 0 : highest / -a.step + 1;
    }
    a.taps = max_of(min_of(end, a.taps) - first, 0);
    a.origin += first * a.step;
    a.first_tap += first * a.tap_step;
    return a;
}

// Splits `flat` into three coordinates, the last one fastest.
struct Triple {
    int d, h, w;
};
DEVICE Triple split3(int flat, int extent_h, int extent_w) {
    int dh = flat / extent_w;
    return {dh / extent_h, dh % extent_h, flat % extent_w};
}

// The same for a position of the result.
DEVICE Triple position(int flat, int extent_h, int extent_w, const Dividers& divide) {
    const int dh = quotient(flat, extent_w, divide.width), d = quotient(dh, extent_h, divide.height);
    return {d, dh - d * extent_h, flat - dh * extent_w};
}

#endif
