//! Every operation of the registry: forward against its double-precision oracle, first and second derivatives against
//! finite differences, independence from memory sharing and from the number of threads.

use gan::dtype::DType;
use gan::exec::evaluate;
use gan::graph::Var;
use gan::objectives;
use gan::ops;
use gan::ops::gradient::vjp;
use gan::ops::sample::{Array, Domain, Sample};
use gan::rng::Philox;
use gan::shape::Shape;

type Tensor = (Shape, Vec<f64>);

fn tensors(arrays: &[Array]) -> Vec<Tensor> {
    arrays.iter().map(|a| (a.shape.clone(), a.data.clone())).collect()
}

fn run(dtype: DType, inputs: &[Tensor], build: impl FnOnce(&[Var]) -> Vec<Var>) -> Vec<Tensor> {
    evaluate(dtype, inputs, build).expect("a sample runs")
}

/// The samples of all operations and losses.
fn registry() -> Vec<Sample> {
    [ops::registry(), objectives::samples()].concat()
}

/// Collects the samples that fail, so that one run shows them all.
fn for_all(check: impl Fn(&Sample) -> Result<(), String>) {
    let samples = registry();
    assert!(samples.len() > 200, "the registry has only {} samples", samples.len());
    let failures: Vec<String> =
        samples.iter().filter_map(|s| check(s).err().map(|e| format!("{}: {e}", s.name))).collect();
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), samples.len(), failures.join("\n"));
}

fn compare(what: &str, got: &[f64], want: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements instead of {}", got.len(), want.len()));
    }
    let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        if (g - w).abs() > tolerance * scale || g.is_nan() != w.is_nan() {
            return Err(format!("{what}[{i}] = {g}, expected {w} (largest {scale:.3e})"));
        }
    }
    Ok(())
}

#[test]
fn forward_agrees_with_the_oracle() {
    for_all(|s| {
        let x = s.draw();
        let want = (s.oracle)(&x);
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 3e-6)] {
            // A large common offset costs single precision its digits, whatever the algorithm.
            let offset = s.inputs.iter().any(|(_, d)| *d == Domain::Offset);
            let tolerance = if offset && dtype == DType::F64 { 1e-10 } else { tolerance };
            let got = run(dtype, &tensors(&x), |v| vec![(s.build)(v)]).remove(0);
            if got.0 != want.shape {
                return Err(format!("shape {} instead of {}", got.0, want.shape));
            }
            compare(dtype.name(), &got.1, &want.data, tolerance)?;
        }
        Ok(())
    });
}

fn normal(n: usize, name: &str) -> Vec<f64> {
    let mut rng = Philox::named(99, name);
    (0..n).map(|_| rng.normal()).collect()
}

/// `<build(x), weight>` as a graph.
fn project(y: &Var, name: &str) -> Var {
    let n = y.shape().numel();
    y.reshape(&[n]).mul(&y.graph().constant([n], normal(n, name))).sum_all()
}

/// Checks the gradient of a scalar function of several tensors against central differences along random directions,
/// one tensor at a time.
fn check_gradient(what: &str, x: &[Tensor], wrt: &[usize], f: &dyn Fn(&[Var]) -> Var) -> Result<(), String> {
    let gradients = run(DType::F64, x, |v| {
        let targets: Vec<Var> = wrt.iter().map(|&i| v[i].clone()).collect();
        let loss = f(v);
        let seed = loss.graph().full(&Shape::scalar(), 1.0);
        let zero = |i: usize| loss.graph().full(&targets[i].shape(), 0.0);
        vjp(&[(loss.clone(), seed)], &targets)
            .into_iter()
            .enumerate()
            .map(|(i, g)| g.unwrap_or_else(|| zero(i)))
            .collect()
    });
    let value = |x: &[Tensor]| run(DType::F64, x, |v| vec![f(v)])[0].1[0];
    let h = 1e-5;
    for (&i, gradient) in wrt.iter().zip(&gradients) {
        if gradient.0 != x[i].0 {
            return Err(format!("{what} by input {i} has shape {}", gradient.0));
        }
        for direction in 0..2 {
            let d = normal(x[i].1.len(), &format!("{what} {i} {direction}"));
            let along = |sign: f64| {
                let mut moved = x.to_vec();
                moved[i].1.iter_mut().zip(&d).for_each(|(v, d)| *v += sign * h * d);
                value(&moved)
            };
            let numeric = (along(1.0) - along(-1.0)) / (2.0 * h);
            let analytic: f64 = gradient.1.iter().zip(&d).map(|(g, d)| g * d).sum();
            let scale = gradient.1.iter().zip(&d).map(|(g, d)| (g * d).abs()).sum::<f64>().max(1e-2);
            if (numeric - analytic).abs() > 2e-6 * scale {
                return Err(format!(
                    "{what} by input {i}: {analytic}, by differences {numeric} (scale {scale:.2e})"
                ));
            }
        }
    }
    Ok(())
}

fn differentiable(s: &Sample) -> Vec<usize> {
    (0..s.inputs.len()).filter(|i| !s.fixed.contains(i)).collect()
}

#[test]
fn gradient_agrees_with_finite_differences() {
    for_all(|s| {
        let loss = |v: &[Var]| project(&(s.build)(v), "cotangent");
        check_gradient("gradient", &tensors(&s.draw()), &differentiable(s), &loss)
    });
}

#[test]
fn second_derivative_agrees_with_finite_differences() {
    for_all(|s| {
        let wrt = differentiable(s);
        let twice = |v: &[Var]| {
            let targets: Vec<Var> = wrt.iter().map(|&i| v[i].clone()).collect();
            let y = project(&(s.build)(v), "cotangent");
            // A curved loss, so that even a linear operation has a second derivative.
            let loss = y.add(&y.square().mul_scalar(0.05));
            let seed = loss.graph().full(&Shape::scalar(), 1.0);
            let parts: Vec<Var> = vjp(&[(loss.clone(), seed)], &targets)
                .into_iter()
                .enumerate()
                .filter_map(|(i, g)| g.map(|g| project(&g, &format!("second {i}"))))
                .collect();
            parts
                .iter()
                .skip(1)
                .fold(parts.first().cloned().unwrap_or_else(|| y.mul_scalar(0.0)), |a, b| a.add(b))
        };
        check_gradient("second derivative", &tensors(&s.draw()), &wrt, &twice)
    });
}

#[test]
fn result_does_not_depend_on_the_number_of_threads() {
    let results = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            registry()
                .iter()
                .map(|s| {
                    let out = run(DType::F32, &tensors(&s.draw()), |v| {
                        let y = (s.build)(v);
                        let targets: Vec<Var> = differentiable(s).iter().map(|&i| v[i].clone()).collect();
                        let loss = project(&y, "cotangent");
                        let seed = loss.graph().full(&Shape::scalar(), 1.0);
                        let mut all: Vec<Var> =
                            vjp(&[(loss, seed)], &targets).into_iter().flatten().collect();
                        all.push(y);
                        all
                    });
                    (s.name.clone(), out)
                })
                .collect::<Vec<_>>()
        })
    };
    let one = results(1);
    for threads in [2, 3] {
        for ((name, a), (_, b)) in one.iter().zip(&results(threads)) {
            let bits =
                |t: &[Tensor]| t.iter().flat_map(|(_, v)| v.iter().map(|x| x.to_bits())).collect::<Vec<_>>();
            assert!(bits(a) == bits(b), "{name} differs between 1 and {threads} threads");
        }
    }
}
