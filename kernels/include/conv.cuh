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

// With -DGEOMETRY=n,c,k,... the shape is a constant and every division by it a multiplication; without, it is the
// kernel's argument. The launch is the same.
#ifdef GEOMETRY
#define USE_GEOMETRY(argument) constexpr Geometry geometry = {GEOMETRY}
#else
#define USE_GEOMETRY(argument) const Geometry& geometry = argument
#endif

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

#endif
