// Neighbouring elements that are stored together.
//
// Constants: PAIRS (0, 1): whether the result's beginning and pitch allow two elements at once.
#ifndef GAN_PAIRS_CUH
#define GAN_PAIRS_CUH

#include "gan.cuh"

// Two elements that move as one.
template <class T> struct alignas(2 * sizeof(T)) Two {
    T v[2];
};

// Stores two neighbours, at once where that is allowed.
template <class T> DEVICE void store_two(T* to, float first, float second) {
    if constexpr (PAIRS) {
        *reinterpret_cast<Two<T>*>(to) = {from_float<T>(first), from_float<T>(second)};
    } else {
        to[0] = from_float<T>(first);
        to[1] = from_float<T>(second);
    }
}

#endif
