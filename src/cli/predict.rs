use super::{Which, say};
use crate::data::formats::{self, Format};
use crate::data::nifti_io::inspect;
use crate::data::splits::Splits;
use crate::data::{Answers, Case, names};
use crate::error::{Error, Result};
use crate::evaluate::generation;
use crate::exec::choice::Choice;
use crate::fsio;
use crate::methods::Task;
use crate::metrics::classification::likeliest;
use crate::run::folder::RunDir;
use crate::run::predictor::Predictor;
use crate::run::splits;
use crate::train::reporter;
use crate::watch::panels::{Image, grid};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Predict images, label maps or classes with a trained run
///
/// NIfTI in, NIfTI out, with the input's shape, affine, qform and sform: float32 in the target's units, or a label map of
/// whole numbers. Of NRRD and MetaImage files (.mha) the same in their format; of PNG, JPEG and TIFF pictures PNG, of 8 bits
/// where the values fit and else of 16, rounded and cut off at their ends. A run with several input modalities takes the files of one subject in the recipe's order; more files are
/// further subjects. A run that says what an image shows (a class, findings, numbers) writes a table, `predictions.csv`. A run
/// that makes images from noise takes no files: it writes samples as PNG, and a sheet of them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan predict runs/mr2pet data/phantom/sub-0013/anat/sub-0013_T1w.nii.gz --out predicted
  gan predict runs/mr2pet *_T1w.nii.gz --out predicted
  gan predict runs/dcgan-mr --count 64 --seed 7 --out samples")]
pub struct Args {
    /// The run folder
    run: PathBuf,
    /// Input images; none for a run that makes images from noise
    #[arg(value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// How many images to make from noise
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    count: u16,
    /// Seed of that noise
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder for the predicted images
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Overwrite predictions that exist
    #[arg(long)]
    force: bool,
    /// Which checkpoint [default: best, or last where there is no best]
    #[arg(long, value_enum)]
    checkpoint: Option<Which>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = super::open_device(args.device, args.threads)?;
    let run = RunDir::new(&args.run);
    let mut predictor = Predictor::open(&run, args.checkpoint.map(Which::name), &device)?;
    if predictor.method().task() == Task::Generate {
        return sample(args, &mut predictor);
    }
    if args.inputs.is_empty() {
        return Err(Error::usage("name the images to predict from, behind the run folder"));
    }
    let data = predictor.recipe().data.clone();
    let per_case = data.input.len();
    if !args.inputs.len().is_multiple_of(per_case) {
        // Not the command line's form is wrong, but a modality is missing (or one too many is there).
        return Err(Error::input(format!(
            "{} takes {per_case} images a subject ({}), {} given; name all images of each subject, in this order",
            args.run.display(),
            data.input.join(", "),
            args.inputs.len()
        )));
    }
    // Everything that can be refused is refused before the first file is written.
    for file in &args.inputs {
        inspect(file)?;
    }
    if let Some(answers) = data.answers() {
        return said(args, &mut predictor, answers, per_case);
    }
    let cases = plan_outputs(args, per_case, &data.target)?;
    for path in cases.iter().flat_map(|(_, names)| names) {
        super::may_write(path, args.force)?;
    }
    let splits = splits::read(&run)?;
    for (files, names) in cases {
        let case = Case::open(files, &data, predictor.fit())?.uncropped(predictor.multiple());
        tell(&case, files, splits.as_ref())?;
        let volumes = predictor.volumes(&case)?;
        let existed = args.out.exists();
        fsio::create_dir(&args.out)?;
        for (path, (volume, stored)) in names.iter().zip(volumes) {
            volume.save_as(path, stored).inspect_err(|_| {
                if !existed {
                    // Only if it is empty.
                    let _ = std::fs::remove_dir(&args.out);
                }
            })?;
            say(path.display());
        }
    }
    Ok(())
}

/// Says what was done to a case's images, and which of them the run has seen.
fn tell(case: &Case, files: &[PathBuf], splits: Option<&Splits>) -> Result<()> {
    case.notes().lines().iter().for_each(|text| reporter::line(&format!("note: {text}")));
    if case.is_cropped() {
        let [_, h, w, _] = case.input_shape;
        reporter::line(&format!(
            "note: the slices of {} are larger than the {h} x {w} that the network sees (data.canvas): what lies outside plays no part",
            case.id
        ));
    }
    for file in files {
        if let Some(subject) = splits.map_or(Ok(None), |s| s.trained_on(file))? {
            reporter::line(&format!(
                "note: {} is an image of {subject}, whom the run was trained on: its prediction says nothing about new patients",
                file.display()
            ));
        }
    }
    Ok(())
}

/// The table of predictions that are no images.
const TABLE: &str = "predictions.csv";

/// Writes what is said of each case: a row with its images, and the class with the probabilities of all, the findings with
/// theirs, or the numbers.
fn said(args: &Args, predictor: &mut Predictor, answers: Answers, per_case: usize) -> Result<()> {
    let path = args.out.join(TABLE);
    super::may_write(&path, args.force)?;
    let splits = splits::read(&RunDir::new(&args.run))?;
    let data = predictor.recipe().data.clone();
    let names = answers.names();
    let decided = match answers {
        Answers::Class(_) => Some(data.target[0].clone()),
        Answers::Findings(_) => Some("findings".to_string()),
        Answers::Numbers(_) => None,
    };
    let probability = |n: &String| if decided.is_some() { format!("p_{n}") } else { n.clone() };
    let header = data.input.iter().cloned().chain(decided.clone()).chain(names.iter().map(probability));
    let mut table = csv::Writer::from_writer(Vec::new());
    let broken = |e: csv::Error| Error::input(format!("{} can't be written ({e})", path.display()));
    table.write_record(header).map_err(broken)?;
    for files in args.inputs.chunks(per_case) {
        let case = Case::open(files, &data, predictor.fit())?;
        tell(&case, files, splits.as_ref())?;
        let p = predictor.answers(&case)?;
        let decision = match answers {
            Answers::Class(_) => Some(names[likeliest(&p)].clone()),
            Answers::Findings(_) => {
                let there = names.iter().zip(&p).filter(|(_, p)| **p > 0.5).map(|(n, _)| n.as_str());
                Some(there.collect::<Vec<_>>().join("|"))
            }
            Answers::Numbers(_) => None,
        };
        let files = files.iter().map(|f| f.to_string_lossy().into_owned());
        table
            .write_record(files.chain(decision).chain(p.iter().map(|v| format!("{v:.6}"))))
            .map_err(broken)?;
    }
    let bytes = table.into_inner().map_err(|e| Error::io("write", &path)(e.into_error()))?;
    fsio::create_dir(&args.out)?;
    fsio::write_bytes(&path, &bytes)?;
    say(path.display());
    Ok(())
}

/// Writes images made from noise, each by itself and all on one sheet.
fn sample(args: &Args, predictor: &mut Predictor) -> Result<()> {
    if !args.inputs.is_empty() {
        return Err(Error::usage(format!(
            "{} makes images from noise and takes no input; leave the files out, and say how many images with --count",
            args.run.display()
        )));
    }
    let n = usize::from(args.count);
    let images = predictor.images(n, args.seed)?;
    let [h, w] = predictor.fit().canvas;
    let c = images.len() / (n * h * w);
    let tiles: Vec<Image> =
        images.chunks(h * w * c).map(|i| generation::tile(i, [h, w, c])).collect::<Result<_>>()?;
    let columns = (n as f64).sqrt().ceil() as usize;
    let sheet = grid(&tiles.chunks(columns).map(<[Image]>::to_vec).collect::<Vec<_>>(), 2)?;
    fsio::create_dir(&args.out)?;
    let single = images.chunks(h * w * c).enumerate();
    let files =
        single.map(|(i, image)| (format!("sample-{:04}.png", i + 1), generation::pixels(image, [h, w, c])));
    for (name, image) in files.chain([("sheet.png".to_string(), Ok(sheet))]) {
        let path = args.out.join(name);
        super::may_write(&path, args.force)?;
        image?.save(&path)?;
    }
    say(format!("{}  {n} samples and sheet.png", args.out.display()));
    Ok(())
}

/// The input files of each case and the names of its outputs, one per target; no two are the same, and none is an input.
fn plan_outputs<'a>(
    args: &'a Args,
    per_case: usize,
    targets: &[String],
) -> Result<Vec<(&'a [PathBuf], Vec<PathBuf>)>> {
    let mut made: HashMap<PathBuf, &Path> = HashMap::new();
    let mut cases = Vec::new();
    for files in args.inputs.chunks(per_case) {
        let names: Vec<PathBuf> = targets.iter().map(|t| args.out.join(output_name(&files[0], t))).collect();
        for path in &names {
            if let Some(other) = made.insert(path.clone(), &files[0]) {
                return Err(Error::input(format!(
                    "{} and {} would both become {}; predict them into different folders with --out",
                    other.display(),
                    files[0].display(),
                    path.display()
                )));
            }
            if let Some(input) = args.inputs.iter().find(|f| same_file(f, path)) {
                return Err(Error::input(format!(
                    "the prediction would overwrite the input {}; choose another folder with --out",
                    input.display()
                )));
            }
        }
        cases.push((files, names));
    }
    Ok(cases)
}

/// `sub-01_T1w.nii.gz` and target `pet` give `sub-01_desc-synth_pet.nii.gz`: the input's BIDS entities, marked as made up.
fn output_name(input: &Path, target: &str) -> OsString {
    // Of a file that can't be read yet the error comes later.
    let extension = formats::recognise(input).map_or("nii.gz", Format::extension);
    let stem = names::image(input).map(|n| n.stem).or(input.file_name().map(Into::into)).unwrap_or_default();
    // The last part of a BIDS name is the modality; a name without parts keeps all of itself, and so does one that is
    // no UTF-8.
    let entities = stem.to_str().filter(|s| s.starts_with("sub-")).and_then(|s| s.rsplit_once('_'));
    let mut name = entities.map_or(stem.clone(), |(entities, _)| entities.into());
    name.push(format!("_desc-synth_{target}.{extension}"));
    name
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_bids() {
        assert_eq!(
            output_name(Path::new("x/sub-01_ses-2_T1w.nii.gz"), "pet"),
            "sub-01_ses-2_desc-synth_pet.nii.gz"
        );
        assert_eq!(output_name(Path::new("a/X.NII.GZ"), "pet"), "X_desc-synth_pet.nii.gz");
        assert_eq!(output_name(Path::new("case.01.nii"), "pet"), "case.01_desc-synth_pet.nii.gz");
        assert_eq!(output_name(Path::new("my_brain.nii.gz"), "t2"), "my_brain_desc-synth_t2.nii.gz");
    }
}
