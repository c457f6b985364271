//! What memory plans must never do.

use gan::dtype::DType;
use gan::exec::evaluate;
use gan::ops::concat::pack;
use gan::shape::Shape;

/// A value that is packed twice (the gradient of a critic's last bias is the same in every update) must survive what
/// happens to the first pack.
#[test]
fn a_packed_value_outlives_the_memory_of_its_pack() {
    let inputs = [(Shape::from([4]), vec![1.0, 2.0, 3.0, 4.0])];
    let out = evaluate(DType::F64, &inputs, |x| {
        let (a, b) = (x[0].mul_scalar(2.0), x[0].mul_scalar(3.0));
        // Overwrites the first pack where it stands, and lets others use its memory.
        let first = pack(&[&a, &b]).mul_scalar(10.0).square().sum_all();
        let second = pack(&[&b, &a]).add(&first.mul_scalar(0.0));
        vec![first, second]
    })
    .expect("a valid graph");
    assert_eq!(out[0].1, [39_000.0]);
    assert_eq!(out[1].1, [3.0, 6.0, 9.0, 12.0, 2.0, 4.0, 6.0, 8.0]);
}
