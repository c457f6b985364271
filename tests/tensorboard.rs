//! Event files read back: record by record with our own reader, and by TensorBoard itself.

use gan::dtype::DType;
use gan::graph::Var;
use gan::methods::step::{StepBuilder, Update};
use gan::metrics::thresholds::Thresholds;
use gan::nn::{ConvLayer, Ctx, NetSpec};
use gan::ops::optimiser::Rule;
use gan::watch::model_graph;
use gan::watch::panels::Image;
use gan::watch::tensorboard::Events;
use protobuf::Message;
use std::path::Path;
use std::process::Command;
use tensorboard_proto::event::{Event, SessionLog_SessionStatus};

/// What `tests/python/check_tensorboard.py` expects: a run that is resumed from step 6.
fn write_run(folder: &Path) {
    let mut first = Events::create(folder, None).unwrap();
    for step in 1..=10 {
        first.scalar("loss/G_GAN", step, step as f32 / 3.0).unwrap();
    }
    first.scalar("val/psnr", 5, 20.0).unwrap();
    first.scalar("val/psnr", 10, 21.0).unwrap();
    drop(first);

    let mut resumed = Events::create(folder, Some(6)).unwrap();
    for step in 7..=9u8 {
        resumed.scalar("loss/G_GAN", step.into(), 100.0 + f32::from(step)).unwrap();
    }
    resumed.scalar("special", 7, f32::INFINITY).unwrap();
    resumed.scalar("special", 8, f32::NAN).unwrap();
    resumed.image("images/grey", 8, &pattern(13, 7, 1)).unwrap();
    resumed.image("images/rgb", 8, &pattern(6, 11, 3)).unwrap();
    let mut weights: Vec<f32> = (-500..1500i16).map(|v| f32::from(v) / 100.0).collect();
    weights.extend([f32::NAN, f32::NEG_INFINITY]);
    resumed.histogram("weights/G", 8, &weights).unwrap();
    resumed.histogram("weights/none", 8, &[f32::NAN]).unwrap();
    resumed.text("recipe", 7, "# Recipe\n\n`lr = 2e-4` – ümläut\n").unwrap();
    let params = [("lr", 2e-4.into()), ("generator", "unet256".into()), ("dropout", true.into())];
    let params: Vec<_> = params.into_iter().map(|(name, v)| (name.to_string(), v)).collect();
    resumed.hparams_begin(&params).unwrap();
    resumed.pr_curve("pr/TC", 9, &curve()).unwrap();
    resumed.graph(&model_graph::of(&[small_step()])).unwrap();
    resumed.hparams_end(9, &[("final/psnr".to_string(), 24.5)]).unwrap();
}

/// 1000 voxels with probabilities 0, 0.001, ..., of which every third one is true.
fn curve() -> Thresholds {
    let mut curve = Thresholds::default();
    (0..1000u16).for_each(|i| curve.add(f32::from(i) / 1000.0, i.is_multiple_of(3)));
    curve
}

/// A network of one convolution and its loss, with an optimiser, which is not drawn.
fn small_step() -> StepBuilder {
    let layer =
        |cx: &Ctx, x: &Var| cx.graph().scope("G", || cx.conv("first", x, ConvLayer::same(4, 3)).relu());
    let spec = NetSpec::describe("G", |cx, graph| {
        layer(cx, &graph.input("image", [1, 8, 8, 2]));
    })
    .unwrap();
    let mut step = StepBuilder::new(DType::F32, 1);
    let graph = step.graph().clone();
    let net = step.bind(&spec, Rule::adam(0.5, 0.999).slots());
    let x = graph.input("input", [3, 8, 8, 2]);
    let y = graph.phase("G forward", || layer(&step.train(&net), &x));
    let loss = graph.phase("G loss", || y.square().mean_all());
    let update = Update { rule: Rule::adam(0.5, 0.999), clip_norm: None, ema: None };
    graph.phase("G backward", || step.update(&net, &loss, &update));
    step.output("loss/G", &loss);
    step
}

/// Every pixel differs from its neighbours, in all directions.
fn pattern(width: usize, height: usize, channels: usize) -> Image {
    let pixel = |i: usize| {
        let (y, x, c) = (i / (width * channels), i / channels % width, i % channels);
        ((7 * x + 29 * y + 83 * c) % 256) as u8
    };
    Image::new(width, height, channels, (0..width * height * channels).map(pixel).collect()).unwrap()
}

/// Records of an event file: length, masked CRC-32C of the length, payload, masked CRC-32C of the payload.
fn records(bytes: &[u8]) -> Vec<Event> {
    let check = |data: &[u8], crc: &[u8]| {
        let masked = crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(crc, masked.to_le_bytes(), "checksum");
    };
    let (mut rest, mut events) = (bytes, Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        check(&rest[..8], &rest[8..12]);
        check(&rest[12..12 + length], &rest[12 + length..16 + length]);
        events.push(Event::parse_from_bytes(&rest[12..12 + length]).unwrap());
        rest = &rest[16 + length..];
    }
    events
}

#[test]
fn records_read_back_with_their_checksums() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path());
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2);

    let first = records(&std::fs::read(&files[0]).unwrap());
    assert_eq!(first.len(), 2 + 10 + 2);
    assert_eq!(first[0].get_file_version(), "brain.Event:2");
    assert_eq!(
        (first[1].get_session_log().get_status(), first[1].get_step()),
        (SessionLog_SessionStatus::START, 0)
    );
    let value = &first[4].get_summary().get_value()[0];
    assert_eq!((first[4].get_step(), value.get_tag(), value.get_simple_value()), (3, "loss/G_GAN", 1.0));

    let resumed = records(&std::fs::read(&files[1]).unwrap());
    assert_eq!(resumed[1].get_session_log().get_status(), SessionLog_SessionStatus::START);
    // Steps from the mark on are dropped, so it stands right behind the checkpoint's.
    assert_eq!(resumed[1].get_step(), 7);
    let values = resumed[2..].iter().flat_map(|e| e.get_summary().get_value());
    let tags: Vec<&str> = values.map(|v| v.get_tag()).collect();
    assert!(!tags.contains(&"weights/none"));
    let grey =
        resumed.iter().find(|e| e.get_summary().get_value().iter().any(|v| v.get_tag() == "images/grey"));
    let png = grey.unwrap().get_summary().get_value()[0].get_image().get_encoded_image_string();
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
    assert_eq!(decoder.next_frame(&mut pixels).unwrap().color_type, png::ColorType::Grayscale);
    assert_eq!(pixels, pattern(13, 7, 1).pixels());
}

#[test]
fn a_live_reader_sees_what_was_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = Events::create(folder.path(), None).unwrap();
    let seen = |events: &Events| records(&std::fs::read(events.path()).unwrap()).len();
    assert_eq!(seen(&events), 2);
    events.scalar("loss/D", 1, 0.5).unwrap();
    events.flush().unwrap();
    assert_eq!(seen(&events), 3);
}

/// Needs a Python with tensorboard: the one named by GAN_PYTHON, else `python3`. Without it the test says so and
/// passes, except on a build server (CI=true), where it must run.
#[test]
fn tensorboard_reads_what_was_written() {
    let python = std::env::var("GAN_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let usable = Command::new(&python).args(["-c", "import tensorboard, numpy, PIL"]).output();
    if !usable.is_ok_and(|o| o.status.success()) {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{python} has no tensorboard; install it or set GAN_PYTHON"
        );
        println!(
            "not checked: {python} has no tensorboard, numpy and pillow (set GAN_PYTHON to one that has)"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_tensorboard.py");
    let output = Command::new(&python).arg(script).arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("tensorboard agrees"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
