//! The layer table of `tests/gpu`, rehearsed: rows as the peer writes them, timed on the emulator.

use crate::device::Emulator;
use crate::layers::{Layer, PASSES};
use gan::device::launch::{GpuTraits, Math, Tailored};
use gan_emu::Mode;
use serde_json::{Value, json};

fn rows() -> Vec<Value> {
    let row = |module: &str, x: &[usize], y: &[usize]| {
        json!({"layer": "G.layer", "module": module, "in": x, "out": y, "count": 2, "op": "conv", "flop": 1,
               "fwd_ms": 0.5, "dgrad_ms": 0.25, "wgrad_ms": 0.125})
    };
    vec![
        row(
            "Conv2d(1, 8, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), bias=False)",
            &[2, 1, 8, 8],
            &[2, 8, 4, 4],
        ),
        row(
            "ConvTranspose2d(8, 4, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))",
            &[1, 8, 2, 2],
            &[1, 4, 4, 4],
        ),
        row(
            "Conv2d(8, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)",
            &[1, 8, 9, 9],
            &[1, 16, 9, 9],
        ),
        row(
            "Conv3d(4, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))",
            &[1, 4, 3, 4, 5],
            &[1, 8, 3, 4, 5],
        ),
    ]
}

#[test]
fn every_pass_of_a_listed_layer_is_timed() {
    for math in [Math::Fma, Math::Bf16] {
        let device = Emulator::new(Mode::all()[0], math);
        for row in rows() {
            let layer = Layer::parse(&row).unwrap();
            for i in 0..PASSES.len() {
                for (hopper, window) in [
                    (Tailored::Off, Tailored::Off),
                    (Tailored::Always, Tailored::Off),
                    (Tailored::Off, Tailored::Always),
                ] {
                    let gpu = GpuTraits { hopper, window, ..device.traits };
                    let ms = layer.time(i, &*device, &gpu, 0.0).unwrap_or_else(|e| panic!("{row}: {e}"));
                    assert!(ms > 0.0 && ms.is_finite());
                }
                assert!(layer.bytes(i, math) > 0.0);
            }
        }
    }
}

#[test]
fn rows_are_read_as_pytorch_means_them() {
    let [conv, transposed, _, volume] = rows().try_into().expect("four rows");
    let g = Layer::parse(&conv).unwrap();
    assert_eq!(
        (g.geometry.c, g.geometry.k, g.geometry.stride, g.geometry.padding),
        (1, 8, [1, 2, 2], [0, 1, 1])
    );
    assert!(!g.bias && !g.transposed && g.count == 2 && g.peer_ms == [0.5, 0.25, 0.125]);
    assert_eq!(g.flops(), 2.0 * (2 * 8 * 4 * 4 * 16) as f64);
    // From 8 channels to 4, so the convolution that it is the gradient of goes from 4 to 8.
    let t = Layer::parse(&transposed).unwrap();
    assert_eq!(
        (t.geometry.c, t.geometry.k, t.geometry.input, t.geometry.output),
        (4, 8, [1, 4, 4], [1, 2, 2])
    );
    assert!(t.bias && t.transposed);
    assert_eq!(Layer::parse(&volume).unwrap().geometry.kernel, [3; 3]);
    let mut odd = conv;
    odd["module"] = json!("Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), groups=4)");
    assert!(Layer::parse(&odd).unwrap_err().contains("module"));
    assert!(Layer::parse(&json!({"module": "Conv2d(1, 1)"})).is_err());
}
