//! Pointwise functions of one value: arithmetic and transcendental. (Activations: [`super::activation`].)

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise as launch};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// `y = f(x)`, element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// x + c
    AddScalar(f64),
    /// c x
    MulScalar(f64),
    /// |x|; derivative 0 at 0
    Abs,
    /// -1, 0 or 1; derivative 0
    Sign,
    /// e^x
    Exp,
    /// ln x
    Log,
    /// x^(1/2)
    Sqrt,
    /// x^2
    Square,
    /// 1 / x
    Recip,
    /// x^p for x > 0
    Pow(f64),
    /// tanh x
    Tanh,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// ln(1 + e^x), without overflow
    Softplus,
    /// The error function
    Erf,
    /// max(x, 0) for x > 0, else `slope` x; derivative `slope` at 0
    LeakyRelu(f64),
    /// min(max(x, low), high); derivative 0 outside and on the bounds
    Clamp(f64, f64),
    /// 1 where low < x < high, else 0; derivative 0
    Inside(f64, f64),
}

use Unary::*;

impl Unary {
    #[inline(always)]
    pub(crate) fn eval<T: Real>(self, x: T) -> T {
        let of = T::of;
        match self {
            AddScalar(c) => x + of(c),
            MulScalar(c) => x * of(c),
            Abs => x.abs(),
            Sign => {
                if x > T::zero() {
                    T::one()
                } else if x < T::zero() {
                    -T::one()
                } else {
                    x
                }
            }
            Exp => x.exp(),
            Log => x.ln(),
            Sqrt => x.sqrt(),
            Square => x * x,
            Recip => x.recip(),
            Pow(p) => x.powf(of(p)),
            Tanh => x.tanh(),
            Sigmoid => sigmoid(x),
            // max(x, 0) + ln(1 + e^-|x|)
            Softplus => x.max(T::zero()) + (-x.abs()).exp().ln_1p(),
            Erf => erf(x),
            LeakyRelu(slope) => {
                if x > T::zero() {
                    x
                } else {
                    x * of(slope)
                }
            }
            Clamp(low, high) => {
                // written so that NaN stays NaN
                if x < of(low) {
                    of(low)
                } else if x > of(high) {
                    of(high)
                } else {
                    x
                }
            }
            Inside(low, high) => {
                if x > of(low) && x < of(high) {
                    T::one()
                } else {
                    T::zero()
                }
            }
        }
    }

    /// The same for the GPU, of `a`, with its numbers as `p` and `q`.
    pub(crate) fn expression(self) -> (&'static str, [f64; 2]) {
        match self {
            AddScalar(c) => ("a + p", [c, 0.0]),
            MulScalar(c) => ("a * p", [c, 0.0]),
            Abs => ("fabsf(a)", [0.0; 2]),
            Sign => ("sign(a)", [0.0; 2]),
            Exp => ("expf(a)", [0.0; 2]),
            Log => ("logf(a)", [0.0; 2]),
            Sqrt => ("sqrtf(a)", [0.0; 2]),
            Square => ("square(a)", [0.0; 2]),
            Recip => ("1.0f / a", [0.0; 2]),
            Pow(exponent) => ("powf(a, p)", [exponent, 0.0]),
            Tanh => ("tanhf(a)", [0.0; 2]),
            Sigmoid => ("sigmoid(a)", [0.0; 2]),
            Softplus => ("softplus(a)", [0.0; 2]),
            Erf => ("erff(a)", [0.0; 2]),
            LeakyRelu(slope) => ("leaky_relu(a, p)", [slope, 0.0]),
            Clamp(low, high) => ("clamp(a, p, q)", [low, high]),
            Inside(low, high) => ("inside(a, p, q)", [low, high]),
        }
    }

    fn run<T: Real>(self, io: &mut Io) {
        // One monomorphic loop per function, so that the cheap ones vectorise.
        macro_rules! each {
            ($($pattern:pat => $f:expr),* $(,)?) => {
                match self { $($pattern => pointwise::<T>(io, $f)),* }
            };
        }
        each! {
            AddScalar(c) => move |x| AddScalar(c).eval(x),
            MulScalar(c) => move |x| MulScalar(c).eval(x),
            Abs => |x| Abs.eval(x),
            Sign => |x| Sign.eval(x),
            Exp => |x| Exp.eval(x),
            Log => |x| Log.eval(x),
            Sqrt => |x| Sqrt.eval(x),
            Square => |x| Square.eval(x),
            Recip => |x| Recip.eval(x),
            Pow(p) => move |x| Pow(p).eval(x),
            Tanh => |x| Tanh.eval(x),
            Sigmoid => |x| Sigmoid.eval(x),
            Softplus => |x| Softplus.eval(x),
            Erf => |x| Erf.eval(x),
            LeakyRelu(s) => move |x| LeakyRelu(s).eval(x),
            Clamp(a, b) => move |x| Clamp(a, b).eval(x),
            Inside(a, b) => move |x| Inside(a, b).eval(x),
        }
    }
}

/// 1 / (1 + e^-x), exact at both ends.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let e = (-x.abs()).exp();
    if x >= T::zero() { T::one() / (T::one() + e) } else { e / (T::one() + e) }
}

/// The error function to double precision: the Taylor series near zero, the continued fraction of erfc beyond
/// (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn erf<T: Real>(x: T) -> T {
    let v = x.f64();
    let a = v.abs();
    let y = if a.is_nan() {
        f64::NAN
    } else if a < 2.5 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 && n < 200.0 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        sum * (-a * a).exp() * std::f64::consts::FRAC_2_SQRT_PI
    } else if a < 6.0 {
        let mut f = 0.0;
        for k in (1..=60).rev() {
            f = f64::from(k) / 2.0 / (a + f);
        }
        1.0 - (-a * a).exp() / (a + f) / std::f64::consts::PI.sqrt()
    } else {
        1.0
    };
    T::of(y.copysign(v))
}

/// Applies `f` to every element, in place when the output took over the input.
fn pointwise<T: Real>(io: &mut Io, f: impl Fn(T) -> T + Sync) {
    let out = io.output::<T>();
    if io.reused() == Some(0) {
        parallel::for_chunks(out, parallel::CHUNK, |_, piece| piece.iter_mut().for_each(|v| *v = f(*v)));
    } else {
        let x = io.input::<T>(0);
        parallel::for_chunks(out, parallel::CHUNK, |start, piece| {
            piece.iter_mut().zip(&x[start..]).for_each(|(o, &v)| *o = f(v));
        });
    }
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        match self {
            AddScalar(_) => "add_scalar",
            MulScalar(_) => "mul_scalar",
            Abs => "abs",
            Sign => "sign",
            Exp => "exp",
            Log => "log",
            Sqrt => "sqrt",
            Square => "square",
            Recip => "recip",
            Pow(_) => "pow",
            Tanh => "tanh",
            Sigmoid => "sigmoid",
            Softplus => "softplus",
            Erf => "erf",
            LeakyRelu(_) => "leaky_relu",
            Clamp(..) => "clamp",
            Inside(..) => "inside",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, y, dy) = (&a.inputs[0], a.output, a.dy);
        vec![match *self {
            AddScalar(_) => Some(dy.clone()),
            MulScalar(c) => Some(dy.mul_scalar(c)),
            Abs => Some(dy.mul(&x.sign())),
            Sign | Inside(..) => None,
            Exp => Some(dy.mul(y)),
            Log => Some(dy.div(x)),
            Sqrt => Some(dy.mul_scalar(0.5).div(y)),
            Square => Some(dy.mul(x).mul_scalar(2.0)),
            Recip => Some(dy.mul(&y.square()).neg()),
            Pow(p) => Some(dy.mul(&x.pow(p - 1.0)).mul_scalar(p)),
            Tanh => Some(dy.mul(&y.square().rsub_scalar(1.0))),
            Sigmoid => Some(dy.mul(&y.sub(&y.square()))),
            Softplus => Some(dy.mul(&x.sigmoid())),
            Erf => Some(dy.mul(&x.square().neg().exp()).mul_scalar(std::f64::consts::FRAC_2_SQRT_PI)),
            // The output's sign is the input's, and who reads the output lets the input's memory go.
            LeakyRelu(slope) if slope >= 0.0 => Some(dy.gate(y, slope)),
            LeakyRelu(slope) => Some(dy.gate(x, slope)),
            Clamp(low, high) => Some(dy.mul(&x.inside(low, high))),
        }]
    }

    fn flops(&self, _: &[&Shape], output: &Shape) -> u64 {
        output.numel() as u64
    }

    fn memory(&self) -> Memory {
        Memory::Reuse(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (expression, numbers) = self.expression();
        let (out, a) = (Strided::output(io), Strided::input(io, 0));
        Ok(LaunchList::of(launch(gpu, expression, numbers, io.out(), out, &[a])))
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident => $op:expr;)*) => {
        impl Var {
            $($(#[$doc])* #[track_caller] pub fn $name(&self) -> Var { self.apply($op, &[]) })*
        }
    };
}

methods! {
    /// |x|
    abs => Abs;
    /// -1, 0 or 1
    sign => Sign;
    /// e^x
    exp => Exp;
    /// ln x
    log => Log;
    /// Square root
    sqrt => Sqrt;
    /// x^2
    square => Square;
    /// 1 / x
    recip => Recip;
    /// Hyperbolic tangent
    tanh => Tanh;
    /// 1 / (1 + e^-x)
    sigmoid => Sigmoid;
    /// ln(1 + e^x)
    softplus => Softplus;
    /// The error function
    erf => Erf;
    /// max(x, 0)
    relu => LeakyRelu(0.0);
    /// -x
    neg => MulScalar(-1.0);
}

impl Var {
    /// x + c
    #[track_caller]
    pub fn add_scalar(&self, c: f64) -> Var {
        if c == 0.0 { self.clone() } else { self.apply(AddScalar(c), &[]) }
    }

    /// c x
    #[track_caller]
    pub fn mul_scalar(&self, c: f64) -> Var {
        if c == 1.0 { self.clone() } else { self.apply(MulScalar(c), &[]) }
    }

    /// c - x
    #[track_caller]
    pub fn rsub_scalar(&self, c: f64) -> Var {
        self.neg().add_scalar(c)
    }

    /// x^p for x > 0
    #[track_caller]
    pub fn pow(&self, p: f64) -> Var {
        self.apply(Pow(p), &[])
    }

    /// x where positive, else `slope` x
    #[track_caller]
    pub fn leaky_relu(&self, slope: f64) -> Var {
        self.apply(LeakyRelu(slope), &[])
    }

    /// min(max(x, low), high)
    #[track_caller]
    pub fn clamp(&self, low: f64, high: f64) -> Var {
        self.apply(Clamp(low, high), &[])
    }

    /// 1 where low < x < high, else 0
    #[track_caller]
    pub fn inside(&self, low: f64, high: f64) -> Var {
        self.apply(Inside(low, high), &[])
    }
}

/// Samples of every function, on the part of the line where it is smooth.
pub fn samples() -> Vec<Sample> {
    type F = fn(f64) -> f64;
    let table: Vec<(Unary, Domain, F)> = vec![
        (AddScalar(1.5), Domain::Normal, |x| x + 1.5),
        (MulScalar(-0.7), Domain::Normal, |x| -0.7 * x),
        (Abs, Domain::Distinct, f64::abs),
        (Sign, Domain::Distinct, f64::signum),
        (Exp, Domain::Normal, f64::exp),
        (Log, Domain::Positive, f64::ln),
        (Sqrt, Domain::Positive, f64::sqrt),
        (Square, Domain::Normal, |x| x * x),
        (Recip, Domain::Positive, |x| 1.0 / x),
        (Pow(1.7), Domain::Positive, |x| (1.7 * x.ln()).exp()),
        (Tanh, Domain::Normal, |x| 1.0 - 2.0 / ((2.0 * x).exp() + 1.0)),
        (Sigmoid, Domain::Normal, |x| 0.5 + 0.5 * (x / 2.0).tanh()),
        (Softplus, Domain::Normal, |x| (1.0 + x.exp()).ln()),
        (Erf, Domain::Wide, erf_by_quadrature),
        (LeakyRelu(0.2), Domain::Distinct, |x| x.max(0.2 * x)),
        (LeakyRelu(0.0), Domain::Distinct, |x| (x + x.abs()) / 2.0),
        (Clamp(-0.5, 0.8), Domain::Distinct, |x| x.clamp(-0.5, 0.8)),
        (Inside(-0.5, 0.8), Domain::Distinct, |x| f64::from(u8::from(x > -0.5 && x < 0.8))),
    ];
    let sizes: [&[usize]; 3] = [&[3, 5], &[1], &[2, 1, 7, 3]];
    table
        .into_iter()
        .flat_map(|(op, domain, f)| {
            sizes.iter().map(move |size| {
                sample::op(op.name(), op, &[(*size, domain)], move |x| {
                    sample::array(x[0].shape.clone(), x[0].data.iter().map(|&v| f(v)).collect())
                })
            })
        })
        .collect()
}

/// 2/sqrt(pi) times the integral of e^(-t^2) by Gauss-Legendre in 40 panels: independent of the series above.
fn erf_by_quadrature(x: f64) -> f64 {
    let (nodes, weights) =
        ([-0.774_596_669_241_483_4, 0.0, 0.774_596_669_241_483_4], [5.0 / 9.0, 8.0 / 9.0, 5.0 / 9.0]);
    let panels = 400;
    let h = x / f64::from(panels);
    let sum: f64 = (0..panels)
        .map(|p| {
            let middle = (f64::from(p) + 0.5) * h;
            (0..3).map(|i| weights[i] * (-(middle + nodes[i] * h / 2.0).powi(2)).exp()).sum::<f64>()
        })
        .sum();
    sum * h / 2.0 * std::f64::consts::FRAC_2_SQRT_PI
}
