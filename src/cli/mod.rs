//! The command line: one file per subcommand, each thin.

mod bench;
mod data;
mod doctor;
mod evaluate;
mod export;
mod import;
mod info;
mod kernels;
mod phantom;
mod predict;
mod profile;
mod recipes;
mod report;
mod size;
mod sweep;
mod train;
mod tune;

use crate::device::cuda::workers;
use crate::device::launch::Math;
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::exec::device::Device;
use crate::train::reporter::show_compilation;
use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

/// Train GANs, U-Nets and classifiers on medical images: image to image, images from noise, segmentation, super-resolution,
/// classification.
///
/// A run is described by a recipe, a commented TOML file; `gan recipes` lists those that there are. The shortest way from nothing to a trained network:
///
///   gan train recipes/mr2pet.toml        trains pix2pix on a made-up data set (made on the spot)
///   tensorboard --logdir runs            shows how it goes
///   gan evaluate runs/mr2pet             measures it on subjects that it has not seen
///   gan report runs/mr2pet               puts all of it on one page
///   gan predict runs/mr2pet sub-01_T1w.nii.gz --out predicted
///
/// Exit codes: 0 done, 1 an error that the message explains, 2 a wrong command line, 130 stopped by Ctrl-C.
#[derive(Parser)]
#[command(name = "gan", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Args),
    Sweep(sweep::Args),
    Predict(predict::Args),
    Evaluate(evaluate::Args),
    Data(data::Args),
    Recipes(recipes::Args),
    Info(info::Args),
    Report(report::Args),
    Export(export::Args),
    Import(import::Args),
    Phantom(phantom::Args),
    Profile(profile::Args),
    Bench(bench::Args),
    Kernels(kernels::Args),
    Doctor(doctor::Args),
}

impl Command {
    /// Whether nothing is to be said while it works.
    fn is_quiet(&self) -> bool {
        match self {
            Command::Train(a) => a.quiet,
            Command::Sweep(a) => a.quiet,
            _ => false,
        }
    }
}

/// Opens the chosen device and limits the CPU's threads. Says so where `auto` uses a GPU, and where it does not use one that is
/// there.
fn open_device(choice: Choice, threads: Option<usize>) -> Result<Device> {
    let device = open_device_in(choice, Math::Fma, threads)?;
    if choice == Choice::Auto && !matches!(device, Device::Cpu) {
        crate::train::reporter::line(&format!("computing on {}", device.describe()));
    }
    Ok(device)
}

/// As [`open_device`], in the given precision, for commands that say themselves on what they compute.
fn open_device_in(choice: Choice, precision: Math, threads: Option<usize>) -> Result<Device> {
    set_threads(threads)?;
    let (device, note) = choice.open(precision)?;
    if let Some(note) = note {
        crate::train::reporter::line(&format!("computing on the CPU: {note}"));
    }
    Ok(device)
}

/// A run's checkpoint.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    /// The one with the best validation score.
    Best,
    /// The last one.
    Last,
}

impl Which {
    /// As in the file's name.
    pub fn name(self) -> &'static str {
        match self {
            Which::Best => "best",
            Which::Last => "last",
        }
    }
}

/// Limits the CPU device's threads. The results do not depend on it.
fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(n) = threads else { return Ok(()) };
    if n == 0 {
        return Err(Error::usage("--threads 0: at least one thread is needed"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(n)
        .build_global()
        .map_err(|e| Error::input(format!("cannot start {n} threads ({e}); lower --threads")))
}

/// Parses the command line, runs the subcommand and turns errors into one line and an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(program) = workers::this_program() {
        workers::enable(program);
    }
    if !cli.command.is_quiet() {
        show_compilation();
    }
    let done = match cli.command {
        Command::Train(a) => train::run(a),
        Command::Sweep(a) => sweep::run(&a),
        Command::Predict(a) => predict::run(&a),
        Command::Evaluate(a) => evaluate::run(&a),
        Command::Data(a) => data::run(&a),
        Command::Recipes(a) => recipes::run(&a),
        Command::Info(a) => info::run(&a),
        Command::Report(a) => report::run(&a),
        Command::Export(a) => export::run(&a),
        Command::Import(a) => import::run(&a),
        Command::Phantom(a) => phantom::run(&a),
        Command::Profile(a) => profile::run(&a),
        Command::Bench(a) => bench::run(&a),
        Command::Kernels(a) => kernels::run(&a),
        Command::Doctor(a) => doctor::run(&a),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => ExitCode::from(Error::Interrupted.exit_code()),
        Err(e) => {
            crate::train::reporter::line(&format!("gan: {e}"));
            ExitCode::from(e.exit_code())
        }
    }
}

/// The command as it was typed, for records; bytes that are not UTF-8 are escaped.
fn command_line() -> String {
    std::env::args_os().map(crate::fsio::text).collect::<Vec<_>>().join(" ")
}

/// That a result may be written there: nothing that exists is overwritten without `--force`.
fn may_write(path: &std::path::Path, force: bool) -> Result<()> {
    // A link that leads nowhere is there too.
    if !force && path.symlink_metadata().is_ok() {
        return Err(Error::input(format!(
            "{} exists already; choose another name, or overwrite it with --force",
            path.display()
        )));
    }
    Ok(())
}

/// Prints a line of results; a closed pipe (`gan info x | head -1`) ends the program quietly.
fn say(text: impl std::fmt::Display) {
    use std::io::Write;
    if let Err(e) = writeln!(std::io::stdout(), "{text}") {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        crate::train::reporter::line(&format!(
            "gan: cannot write to the standard output: {e}; send it elsewhere"
        ));
        std::process::exit(1);
    }
}
