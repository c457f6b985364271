//! The operations. One file is one operation: documentation and mathematics, shapes, derivative, cost, how each device
//! runs it, and samples that drive the tests. Adding one: `docs/adding-an-operation.md`.

pub mod activation;
pub mod attention;
pub mod binary;
pub mod broadcast;
pub mod concat;
pub mod constant;
pub mod conv;
pub mod dropout;
pub mod fused;
pub mod gradient;
pub mod image_pool;
pub mod matmul;
pub mod max_pool;
pub mod mul_add;
pub mod norm;
pub mod one_hot;
pub mod optimiser;
pub mod pad;
pub mod pad_mode;
pub mod permute;
pub mod pixel_shuffle;
pub mod random;
pub mod resample;
pub mod reshape;
pub mod sample;
pub mod softmax;
pub mod sum;
pub mod unary;

use sample::Sample;

/// The samples of every operation: what the tests, the benchmarks and the comparison of devices run through.
pub fn registry() -> Vec<Sample> {
    [
        unary::samples(),
        binary::samples(),
        sum::samples(),
        broadcast::samples(),
        reshape::samples(),
        permute::samples(),
        pad::samples(),
        concat::samples(),
        matmul::samples(),
        conv::samples(),
        max_pool::samples(),
        resample::samples(),
        norm::samples(),
        softmax::samples(),
        dropout::samples(),
        image_pool::samples(),
        optimiser::samples(),
        activation::samples(),
        attention::samples(),
        mul_add::samples(),
        one_hot::samples(),
        pad_mode::samples(),
        pixel_shuffle::samples(),
        random::samples(),
    ]
    .concat()
}
