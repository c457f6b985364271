//! What fusion makes of a graph: the same numbers, with fewer passes over memory.

use gan::compile::plan::{Passes, Plan, plan, plan_with};
use gan::dtype::DType;
use gan::exec::{Program, States};
use gan::graph::{Graph, Var};
use gan::objectives;
use gan::ops;
use gan::ops::concat::{concat, pack};
use gan::ops::conv::ConvSpec;
use gan::ops::dropout::Dropout;
use gan::ops::gradient::vjp;
use gan::ops::norm::NormKind;
use gan::ops::optimiser::{ClampParameters, RunningStats};
use gan::ops::sample::Sample;
use gan::rng::Philox;

fn numbers(name: &str, n: usize) -> Vec<f64> {
    let mut rng = Philox::named(3, name);
    (0..n).map(|_| rng.normal()).collect()
}

/// Runs a graph with and without fusion, in double precision on the CPU, and compares; gives back both plans.
fn compare(
    what: &str,
    graph: &Graph,
    inputs: &[(String, Vec<f64>)],
    outputs: &[Var],
) -> Result<[Plan; 2], String> {
    let names: Vec<String> = (0..outputs.len()).map(|i| format!("y{i}")).collect();
    let named: Vec<(&str, &Var)> = names.iter().map(String::as_str).zip(outputs).collect();
    let given: Vec<(&str, &[f64])> = inputs.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
    let run = |program: &mut Program| -> Vec<Vec<f64>> {
        let mut states = States::new();
        program.run(&mut states, &given);
        names.iter().map(|n| program.output(&mut states, n)).collect()
    };
    let want = run(&mut Program::new(graph, &named).map_err(|e| e.to_string())?);
    let got = run(&mut Program::fused(graph, &named).map_err(|e| e.to_string())?);
    for ((name, got), want) in names.iter().zip(&got).zip(&want) {
        let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            if (g - w).abs() > 1e-12 * scale || g.is_nan() != w.is_nan() {
                return Err(format!("{what}: {name}[{i}] = {g}, without fusion {w}"));
            }
        }
    }
    let fuse = Passes { fuse: true, mixed: false };
    Ok([plan(graph, &named), plan_with(graph, &named, fuse)].map(|p| p.expect("it ran")))
}

/// A sample between pointwise neighbours on every side, with its gradients.
fn surrounded(sample: &Sample) -> Result<[Plan; 2], String> {
    let graph = Graph::new(DType::F64);
    let x = sample.draw();
    let inputs: Vec<(String, Vec<f64>)> =
        x.iter().enumerate().map(|(i, a)| (format!("x{i}"), a.data.clone())).collect();
    let vars: Vec<Var> = x.iter().zip(&inputs).map(|(a, (n, _))| graph.input(n, a.shape.clone())).collect();
    // (v + 1) - 1 changes nothing that matters, but is something to fuse before.
    let near: Vec<Var> = vars
        .iter()
        .enumerate()
        .map(|(i, v)| if sample.fixed.contains(&i) { v.clone() } else { v.add_scalar(1.0).add_scalar(-1.0) })
        .collect();
    let y = (sample.build)(&near);
    let after = y.mul_scalar(0.5).leaky_relu(0.2).add(&y);
    let seed = graph.constant(y.shape(), numbers("cotangent", y.shape().numel()));
    let wrt: Vec<Var> =
        (0..vars.len()).filter(|i| !sample.fixed.contains(i)).map(|i| vars[i].clone()).collect();
    let mut outputs = vec![after.clone(), after.square().mean_all()];
    outputs.extend(vjp(&[(after, seed)], &wrt).into_iter().flatten());
    graph.check().map_err(|e| e.to_string())?;
    compare(&sample.name, &graph, &inputs, &outputs)
}

#[test]
fn every_operation_among_others_keeps_its_numbers() {
    let samples = [ops::registry(), objectives::samples()].concat();
    let mut failures = Vec::new();
    let (mut before, mut after) = (0, 0);
    for sample in &samples {
        match surrounded(sample) {
            Ok([plain, fused]) => {
                before += plain.steps.len();
                after += fused.steps.len();
            }
            Err(e) => failures.push(e),
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), samples.len(), failures.join("\n"));
    println!("{before} steps, {after} when fused");
    assert!(3 * after < 2 * before, "{before} steps only become {after}");
}

fn names(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(|s| s.op.name()).collect()
}

#[test]
fn a_block_of_a_network_becomes_a_handful_of_kernels() {
    let graph = Graph::new(DType::F64);
    let inputs: Vec<(String, Vec<f64>)> =
        [("x", 2 * 6 * 6 * 4), ("w", 8 * 3 * 3 * 4), ("v", 8 * 3 * 3 * 4), ("b", 8), ("g", 8), ("h", 8)]
            .iter()
            .map(|&(n, k)| (n.to_string(), numbers(n, k)))
            .collect();
    let x = graph.input("x", [2, 6, 6, 4]);
    let w = graph.input("w", [8, 3, 3, 4]);
    let v = graph.input("v", [8, 3, 3, 4]);
    let [b, g, h] = ["b", "g", "h"].map(|n| graph.input(n, [8]));
    let spec = ConvSpec::new(2, 1, 1);
    // Convolution, bias and activation.
    let y = x.conv(&w, &spec).add(&b).leaky_relu(0.2);
    let [_, fused] = compare("conv", &graph, &inputs, std::slice::from_ref(&y)).unwrap();
    assert_eq!(names(&fused), ["conv_map"]);
    // A norm's map, its activation and the residual; a concatenation that is computed in place, activation included.
    let normed = x.conv(&v, &spec).normalize(NormKind::Instance, 1e-5, Some((&g, &h)));
    let z = concat(&[&normed.add(&y), &y.tanh()], 3).relu();
    let [plain, fused] = compare("block", &graph, &inputs, std::slice::from_ref(&z)).unwrap();
    assert_eq!(names(&fused), ["conv_map", "conv_stats", "map_concat"], "of {:?}", names(&plain));
    // A loss is one pass, its gradient another; the difference that both read is computed once.
    let target = graph.input("x", [2, 6, 6, 4]);
    let fake = graph.input("fake", [2, 6, 6, 4]);
    let loss = fake.sub(&target).abs().mean_all();
    let one = graph.full(&loss.shape(), 1.0);
    let gradient = vjp(&[(loss.clone(), one)], std::slice::from_ref(&fake)).remove(0).expect("a gradient");
    let inputs = [inputs, vec![("fake".to_string(), numbers("fake", 288))]].concat();
    let [_, fused] = compare("loss", &graph, &inputs, &[loss, gradient]).unwrap();
    fused.steps.iter().for_each(|s| println!("{:?} {:?}", s.op, s.inputs));
    assert_eq!(names(&fused), ["sub", "map_sum", "map"]);
}

/// What is read twice is computed once, and a state's old value stays what it was.
#[test]
fn nothing_is_computed_twice() {
    let graph = Graph::new(DType::F64);
    let x = graph.input("x", [7]);
    let inputs = vec![("x".to_string(), numbers("x", 7))];
    let shared = x.exp().add_scalar(1.0);
    let outputs = [shared.tanh(), shared.square(), shared.reshape(&[7, 1]).abs()];
    let [_, fused] = compare("shared", &graph, &inputs, &outputs).unwrap();
    assert_eq!(fused.steps.len(), 4, "{:?}", names(&fused));
}

/// Of two equal convolutions in a layer, only the one that was not traced as exact is stored in bf16.
#[test]
fn what_must_stay_exact_stays_exact() {
    let graph = Graph::new(DType::F32);
    let (x, w) = (graph.input("x", [1, 6, 6, 4]), graph.input("w", [8, 3, 3, 4]));
    let v = graph.input("v", [8, 3, 3, 4]);
    let layer = |w: &Var| graph.scope("layer", || x.conv(w, &ConvSpec::new(2, 1, 1)).tanh());
    let (rounded, exact) = (layer(&w).sum_all(), graph.exact(|| layer(&v)).sum_all());
    let passes = Passes { fuse: false, mixed: true };
    let plan = plan_with(&graph, &[("rounded", &rounded), ("exact", &exact)], passes).expect("a valid graph");
    let stored: Vec<(&str, DType, bool)> =
        plan.steps.iter().map(|s| (s.op.name(), s.output.dtype, s.exact)).collect();
    for (name, bf16) in [("conv", DType::Bf16), ("tanh", DType::Bf16), ("sum", DType::F32)] {
        assert!(stored.contains(&(name, bf16, false)), "{name} in {stored:?}");
        assert!(stored.contains(&(name, DType::F32, true)), "exact {name} in {stored:?}");
    }
}

/// A norm's map, dropout, activation and the way into a concatenation are one pass, before and behind the derivative; a sum
/// draws no random numbers, so dropout stays in front of it.
#[test]
fn dropout_is_one_more_function_on_the_way() {
    let graph = Graph::new(DType::F64);
    let inputs: Vec<(String, Vec<f64>)> = [("x", 2 * 5 * 5 * 3), ("y", 2 * 5 * 5 * 4), ("step", 2)]
        .iter()
        .map(|&(n, k)| (n.to_string(), if n == "step" { vec![41.0, 3.0] } else { numbers(n, k) }))
        .collect();
    let (x, y) = (graph.input("x", [2, 5, 5, 3]), graph.input("y", [2, 5, 5, 4]));
    let step = graph.input("step", [2]);
    let drop = |v: &Var| v.apply(Dropout { p: 0.4, seed: 7, stream: 2 }, &[&step]);
    let normed = drop(&x.normalize(NormKind::Instance, 1e-5, None));
    let z = concat(&[&normed, &y], 3).relu();
    let [plain, fused] = compare("forward", &graph, &inputs, std::slice::from_ref(&z)).unwrap();
    assert_eq!(names(&fused), ["norm_stats", "map_concat"], "of {:?}", names(&plain));
    let outputs = [drop(&x.tanh()).square().sum_all(), drop(&y.tanh()).sum_all()];
    let [_, fused] = compare("sums", &graph, &inputs, &outputs).unwrap();
    assert_eq!(names(&fused), ["map", "sum", "map", "sum"]);
    // Seen under another shape, an element is still the same element; in another order it would be another one.
    let outputs = [drop(&x.tanh()).reshape(&[50, 3]).exp(), drop(&y.tanh()).permute(&[0, 3, 1, 2]).exp()];
    let [_, fused] = compare("views", &graph, &inputs, &outputs).unwrap();
    assert_eq!(names(&fused), ["map", "map", "map"]);
}

/// Mixed precision copies a store of weights once for all products, anew for each of its versions, and leaves alone who
/// reads the weights exactly.
#[test]
fn weights_are_copied_once_for_each_version() {
    let graph = Graph::new(DType::F32);
    let x = graph.input("x", [1, 6, 6, 8]);
    let store = graph.state("weights", [2 * 576 + 3]);
    let weight = |i: usize| graph.read(store).stretch(576 * i, &[8, 3, 3, 8]);
    let spec = ConvSpec::new(2, 1, 1);
    let block = || x.conv(&weight(0), &spec).tanh().conv(&weight(1), &spec);
    let net = || graph.scope("net", || block().sum_all());
    // What looks at a weight is the same for both, or its gradient would be lost in one.
    let exact = graph.exact(net);
    let before = net();
    let all = graph.read(store);
    graph.write(store, &all.apply(ClampParameters { n: 1155, low: -0.1, high: 0.1 }, &[]));
    let after = net();
    let outputs = [("before", &before), ("exact", &exact), ("after", &after)];
    let plan = plan_with(&graph, &outputs, Passes { fuse: true, mixed: true }).expect("a valid graph");
    let copies = plan.steps.iter().filter(|s| s.op.name() == "map" && s.output.shape[..] == [2 * 576]);
    assert_eq!(copies.count(), 2, "{:?}", names(&plan));
    let of = |s: &gan::compile::plan::Step| (s.exact, s.inputs[1].dtype);
    let products: Vec<_> = plan.steps.iter().filter(|s| s.op.name().starts_with("conv")).map(of).collect();
    let (rounded, exact) = ((false, DType::Bf16), (true, DType::F32));
    assert_eq!(products, [exact, exact, rounded, rounded, rounded, rounded]);
}

/// A critic's last layer: convolution, bias, loss and gradient are one operation, and the prediction is there for who asks.
#[test]
fn a_critic_s_last_layer_is_one_with_its_loss() {
    for watched in [false, true] {
        let graph = Graph::new(DType::F64);
        let sizes = [("x", 2 * 6 * 6 * 4), ("w", 3 * 3 * 4), ("store", 9)];
        let inputs: Vec<(String, Vec<f64>)> =
            sizes.iter().map(|&(n, k)| (n.to_string(), numbers(n, k))).collect();
        let (x, w) = (graph.input("x", [2, 6, 6, 4]), graph.input("w", [1, 3, 3, 4]));
        let bias = graph.input("store", [9]).stretch(5, &[1]);
        let prediction = x.conv(&w, &ConvSpec::new(2, 1, 0)).add(&bias);
        let loss = prediction.add_scalar(-1.0).square().mean_all();
        let one = graph.full(&loss.shape(), 1.0);
        let wrt = [x, w, graph.input("store", [9])];
        let mut outputs = vec![loss.clone()];
        outputs.extend(vjp(&[(loss, one)], &wrt).into_iter().flatten());
        if watched {
            outputs.push(prediction.sigmoid());
        }
        let [plain, fused] = compare("critic", &graph, &inputs, &outputs).unwrap();
        let of = |name: &str| names(&fused).iter().filter(|n| **n == name).count();
        assert_eq!(
            (of("conv_loss"), of("map_sum"), of("conv"), of("conv_map")),
            (1, 0, 0, 0),
            "{:?} of {:?}",
            names(&fused),
            names(&plain)
        );
    }
}

/// The gradients of a norm's scale and shift, which lie behind one another, are computed right into the flat gradient.
#[test]
fn neighbours_are_packed_where_they_are_computed() {
    let graph = Graph::new(DType::F32);
    let (x, y) = (graph.input("x", [7]), graph.input("y", [3]));
    let both = x.exp();
    let (first, second) = (both.stretch(0, &[3]), both.stretch(3, &[4]));
    let copies = |parts: &[&Var]| {
        let flat = pack(parts);
        let plan = plan(&graph, &[("flat", &flat)]).expect("a valid graph");
        ["pack", "blend"].map(|name| names(&plan).iter().filter(|n| **n == name).count())
    };
    assert_eq!(copies(&[&y.exp(), &first, &second]), [0, 0]);
    // In another order, or only a part of them, they must be copied: several at once.
    assert_eq!(copies(&[&second, &y.exp(), &first]), [0, 1]);
    assert_eq!(copies(&[&first, &y.exp()]), [1, 0]);
}

/// A U-Net's skip: what a leaky ReLU and the ReLU behind a concatenation read is stored once, as the former gives it.
#[test]
fn a_skip_is_stored_as_its_activation() {
    let graph = Graph::new(DType::F64);
    let sizes = [("x", 2 * 6 * 6 * 4), ("w", 4 * 3 * 3 * 4), ("v", 4 * 3 * 3 * 4)];
    let inputs: Vec<(String, Vec<f64>)> =
        sizes.iter().map(|&(n, k)| (n.to_string(), numbers(n, k))).collect();
    let x = graph.input("x", [2, 6, 6, 4]);
    let [w, v] = ["w", "v"].map(|n| graph.input(n, [4, 3, 3, 4]));
    let spec = ConvSpec::new(2, 1, 1);
    let y = x.conv(&w, &spec);
    let z = concat(&[&y, &y.leaky_relu(0.2).conv(&v, &spec)], 3).relu();
    let loss = z.square().sum_all();
    let one = graph.full(&loss.shape(), 1.0);
    let gradients = vjp(&[(loss, one)], &[x, w, v]).into_iter().flatten();
    let outputs: Vec<Var> = [z].into_iter().chain(gradients).collect();
    let [plain, fused] = compare("skip", &graph, &inputs, &outputs).unwrap();
    assert!(names(&plain).contains(&"leaky_relu") && names(&plain)[0] == "conv", "{:?}", names(&plain));
    assert!(!names(&fused).contains(&"leaky_relu") && names(&fused)[0] == "conv_map", "{:?}", names(&fused));
}

/// The gradient of a norm behind a concatenation looks at its channels of the whole, and copies nothing.
#[test]
fn a_norm_s_gradient_reads_a_slice_of_channels() {
    let graph = Graph::new(DType::F64);
    let sizes = [("x", 2 * 5 * 5 * 3), ("y", 2 * 5 * 5 * 4), ("w", 2 * 9 * 7), ("g", 3), ("h", 3)];
    let inputs: Vec<(String, Vec<f64>)> =
        sizes.iter().map(|&(n, k)| (n.to_string(), numbers(n, k))).collect();
    let (x, y) = (graph.input("x", [2, 5, 5, 3]), graph.input("y", [2, 5, 5, 4]));
    let (w, [g, h]) = (graph.input("w", [2, 3, 3, 7]), ["g", "h"].map(|n| graph.input(n, [3])));
    for kind in [NormKind::Batch, NormKind::Instance] {
        let normed = x.normalize(kind, 1e-5, Some((&g, &h)));
        let z = concat(&[&y, &normed], 3).conv(&w, &ConvSpec::new(2, 1, 1));
        let loss = z.square().sum_all();
        let one = graph.full(&loss.shape(), 1.0);
        let wrt = [x.clone(), g.clone(), h.clone()];
        let outputs: Vec<Var> = vjp(&[(loss, one)], &wrt).into_iter().flatten().collect();
        let [plain, fused] = compare("slice", &graph, &inputs, &outputs).unwrap();
        assert!(names(&plain).contains(&"crop"), "{:?}", names(&plain));
        assert!(!names(&fused).contains(&"crop"), "{:?}", names(&fused));
    }
}

/// The sums of a norm's gradient are taken by the convolution that computes what they are of, behind whatever gate.
#[test]
fn a_norm_s_gradient_is_summed_where_it_is_computed() {
    let graph = Graph::new(DType::F64);
    let sizes = [("x", 2 * 6 * 6 * 4), ("w", 4 * 9 * 4), ("v", 6 * 16 * 4), ("g", 4), ("h", 4)];
    let inputs: Vec<(String, Vec<f64>)> =
        sizes.iter().map(|&(n, k)| (n.to_string(), numbers(n, k))).collect();
    let (x, w) = (graph.input("x", [2, 6, 6, 4]), graph.input("w", [4, 3, 3, 4]));
    let (v, [g, h]) = (graph.input("v", [6, 4, 4, 4]), ["g", "h"].map(|n| graph.input(n, [4])));
    for kind in [NormKind::Batch, NormKind::Instance, NormKind::Group(2), NormKind::Group(1)] {
        let normed = x.conv(&w, &ConvSpec::new(2, 1, 1)).normalize(kind, 1e-5, Some((&g, &h)));
        let loss = normed.leaky_relu(0.2).conv(&v, &ConvSpec::new(2, 2, 1)).square().sum_all();
        let one = graph.full(&loss.shape(), 1.0);
        let outputs: Vec<Var> = vjp(&[(loss, one)], &[x.clone(), w.clone(), g.clone(), h.clone()])
            .into_iter()
            .flatten()
            .collect();
        let [_, fused] = compare("sums", &graph, &inputs, &outputs).unwrap();
        let count = |name: &str| names(&fused).iter().filter(|n| **n == name).count();
        assert_eq!(count("conv_grad_sums"), 1, "{:?}", names(&fused));
        assert_eq!(count("norm_grad_sums"), 0, "{:?}", names(&fused));
    }
}

/// A norm of groups of channels takes the same ways as one of channels: one small step more, and the map joins what follows.
#[test]
fn a_group_norm_is_an_instance_norm_with_other_statistics() {
    let graph = Graph::new(DType::F64);
    let sizes = [("x", 2 * 6 * 6 * 8), ("w", 8 * 9 * 8), ("v", 8 * 9 * 8), ("g", 8), ("h", 8)];
    let inputs: Vec<(String, Vec<f64>)> =
        sizes.iter().map(|&(n, k)| (n.to_string(), numbers(n, k))).collect();
    let x = graph.input("x", [2, 6, 6, 8]);
    let ([w, v], [g, h]) =
        (["w", "v"].map(|n| graph.input(n, [8, 3, 3, 8])), ["g", "h"].map(|n| graph.input(n, [8])));
    let plan = |kind: NormKind| {
        let spec = ConvSpec::new(2, 1, 1);
        let normed = x.conv(&w, &spec).normalize(kind, 1e-5, Some((&g, &h)));
        let loss = normed.leaky_relu(0.2).conv(&v, &spec).square().sum_all();
        let one = graph.full(&loss.shape(), 1.0);
        let wrt = [x.clone(), w.clone(), v.clone(), g.clone(), h.clone()];
        let outputs: Vec<Var> = vjp(&[(loss, one)], &wrt).into_iter().flatten().collect();
        let [_, fused] = compare("group", &graph, &inputs, &outputs).unwrap();
        names(&fused).iter().map(|n| n.to_string()).collect::<Vec<_>>()
    };
    let instance = plan(NormKind::Instance);
    let of = |names: &[String], name: &str| names.iter().filter(|n| *n == name).count();
    for groups in [1, 2, 4] {
        let mut group = plan(NormKind::Group(groups));
        assert_eq!(of(&group, "join_stats"), 1, "{group:?}");
        group.retain(|n| n != "join_stats");
        assert_eq!(group, instance, "{groups} groups");
    }
}

/// Small gradients by the same parameters in two passes are added at once behind the pack, large ones within the product.
#[test]
fn gradients_of_two_passes_are_added_together() {
    let graph = Graph::new(DType::F64);
    let sizes = [
        ("x", 2 * 6 * 6 * 16),
        ("z", 2 * 6 * 6 * 16),
        ("w", 32 * 3 * 3 * 16),
        ("b", 32),
        ("g", 32),
        ("h", 32),
    ];
    let inputs: Vec<(String, Vec<f64>)> =
        sizes.iter().map(|&(n, k)| (n.to_string(), numbers(n, k))).collect();
    let [x, z] = ["x", "z"].map(|n| graph.input(n, [2, 6, 6, 16]));
    let (w, [b, g, h]) = (graph.input("w", [32, 3, 3, 16]), ["b", "g", "h"].map(|n| graph.input(n, [32])));
    let pass = |v: &Var| {
        let y = v.conv(&w, &ConvSpec::new(2, 1, 1)).add(&b).tanh();
        y.normalize(NormKind::Batch, 1e-5, Some((&g, &h))).square().mul(&y).sum_all()
    };
    let loss = pass(&x).add(&pass(&z));
    let one = graph.full(&loss.shape(), 1.0);
    let gradients: Vec<Var> = vjp(&[(loss, one)], &[w, b, g, h]).into_iter().flatten().collect();
    let flat = pack(&gradients.iter().collect::<Vec<_>>());
    let outputs = [flat.square().sum_all(), flat];
    let [plain, fused] = compare("passes", &graph, &inputs, &outputs).unwrap();
    let of = |plan: &Plan, name: &str| names(plan).iter().filter(|n| **n == name).count();
    assert!(of(&plain, "add") > 6, "{:?}", names(&plain));
    let found = ["add", "blend", "conv_grad_w", "conv_grad_w_map"].map(|name| of(&fused, name));
    assert_eq!(found, [0, 1, 1, 1], "{:?}", names(&fused));
}

/// A pair that is shown twice, detached and not, is joined once; a distance that a loss and its derivative need is worked out by
/// both where its operands stay.
#[test]
fn what_is_the_same_or_cheap_is_not_stored_again() {
    let graph = Graph::new(DType::F64);
    let inputs: Vec<(String, Vec<f64>)> = [("a", 2 * 5 * 3), ("f", 2 * 5 * 4), ("t", 2 * 5 * 4)]
        .iter()
        .map(|&(n, k)| (n.to_string(), numbers(n, k)))
        .collect();
    let (a, f) = (graph.input("a", [2, 5, 3]), graph.input("f", [2, 5, 4]));
    let (fake, target) = (f.tanh(), graph.input("t", [2, 5, 4]));
    let shown = [concat(&[&a, &fake.detach()], 2), concat(&[&a, &fake], 2)];
    let outputs = shown.map(|pair| pair.softmax(2));
    let [plain, fused] = compare("pairs", &graph, &inputs, &outputs).unwrap();
    let of = |plan: &Plan, name: &str| names(plan).iter().filter(|n| **n == name).count();
    assert_eq!((of(&plain, "concat"), of(&fused, "map_concat")), (2, 1), "{:?}", names(&fused));
    let loss = fake.sub(&target).abs().mean_all();
    let one = graph.full(&loss.shape(), 1.0);
    let gradient = vjp(&[(loss.clone(), one)], &[f]).remove(0).expect("a gradient");
    let [_, fused] = compare("distance", &graph, &inputs, &[loss, gradient, fake]).unwrap();
    assert_eq!(names(&fused), ["tanh", "map_sum", "map"]);
}

/// All updates of a network's running statistics, those of a second pass too, are one, in their order.
#[test]
fn running_statistics_are_updated_in_one_pass() {
    let graph = Graph::new(DType::F64);
    let state = graph.state("running", [14]);
    let [x, z] = ["x", "z"].map(|n| graph.input(n, [2, 6, 6, 3]));
    for (of, offset) in [(&x, 1), (&z.tanh(), 8), (&z, 1)] {
        let op = RunningStats { offset, channels: 3, momentum: 0.1, unbiased_factor: 1.25 };
        let stats = of.norm_stats(NormKind::Batch).detach();
        graph.write(state, &graph.read(state).apply(op, &[&stats]));
    }
    let fuse = Passes { fuse: true, mixed: false };
    let plan = plan_with(&graph, &[], fuse).expect("a valid graph");
    let updates: Vec<_> =
        names(&plan).into_iter().filter(|n| !n.starts_with("norm") && *n != "tanh").collect();
    assert_eq!(updates, ["blend"], "{:?}", names(&plan));
    let run = |mut program: Program| {
        let mut states = States::new();
        states.set("running", &numbers("running", 14));
        let [x, z] = ["x", "z"].map(|n| numbers(n, 216));
        program.run(&mut states, &[("x", &x[..]), ("z", &z[..])]);
        states.get::<f64>("running").to_vec()
    };
    let [plain, fused] =
        [Program::new(&graph, &[]), Program::fused(&graph, &[])].map(|p| run(p.expect("a graph")));
    // The two factors of a variance are multiplied first: the last digit may differ.
    assert!(plain.iter().zip(&fused).all(|(p, f)| (p - f).abs() < 1e-12), "{plain:?} {fused:?}");
    assert_ne!(plain, numbers("running", 14));
}
