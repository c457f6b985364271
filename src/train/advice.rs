//! What a run's user could change so that its layers take faster kernels on a GPU.

use crate::device::launch::Math;
use crate::nn::NetSpec;
use crate::nn::params::Layout;
use std::collections::BTreeSet;

/// Channels up to so many are an image's, a mask's or a score's: nobody chooses them for speed.
const GIVEN: usize = 4;

/// One line about convolutions whose numbers of channels keep them from the kernels that copy 16 bytes at once (in bf16 these are
/// all that `sm_90a` has, and those for few channels), or nothing.
pub fn channels(specs: &[NetSpec], math: Math) -> Option<String> {
    let wanted = 16 / math.element_bytes();
    let (mut layers, mut nets, mut odd) = (0, Vec::new(), BTreeSet::new());
    for spec in specs {
        let weights = spec.params.iter().filter(|t| t.layout == Layout::ChannelsSecond);
        let own = weights.map(|t| {
            let ends = [t.shape[0], t.shape.channels()];
            ends.into_iter().filter(|c| *c > GIVEN && !c.is_multiple_of(wanted)).collect::<Vec<_>>()
        });
        let own: Vec<Vec<usize>> = own.filter(|ends| !ends.is_empty()).collect();
        if !own.is_empty() {
            nets.push(spec.name.as_str());
        }
        layers += own.len();
        odd.extend(own.into_iter().flatten());
    }
    let odd: Vec<String> = odd.iter().map(ToString::to_string).collect();
    (layers > 0).then(|| {
        format!(
            "kernels: {layers} convolutions of {} have channels ({}) that are no multiple of {wanted}: in {} they take slower kernels, which widths in multiples of {wanted} would spare them",
            nets.join(", "),
            odd.join(", "),
            math.name()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ConvLayer;

    #[test]
    fn widths_that_cost_fast_kernels_are_named_and_those_of_images_are_not() {
        let net = |width: usize| {
            NetSpec::describe("G", |cx, graph| {
                let x = graph.input("x", [1, 8, 8, 1]);
                let y = cx.conv("in", &x, ConvLayer::same(width, 3));
                let y = cx.conv("middle", &y, ConvLayer::same(2 * width, 3));
                cx.conv("out", &y, ConvLayer::same(3, 3));
            })
            .expect("valid")
        };
        assert_eq!(channels(&[net(64)], Math::Bf16), None);
        assert_eq!(channels(&[net(20)], Math::Tf32), None);
        let line = channels(&[net(64), net(20)], Math::Bf16).expect("20 is no multiple of 8");
        assert!(
            line.contains("2 convolutions of G have channels (20) that are no multiple of 8: in bf16"),
            "{line}"
        );
        let line = channels(&[net(10)], Math::Fma).expect("10 is no multiple of 4");
        assert!(line.contains("(10) that are no multiple of 4"), "{line}");
    }
}
