//! TensorBoard event files.
//!
//! Of the crate `tensorboard-rs` this uses what is right: the record framing (`RecordWriter`: length, masked CRC-32C,
//! payload) and the summaries of scalars and histograms, over the messages of `tensorboard-proto`. The rest is ours,
//! because there its writer thread panics when a disk is full, two writers in one folder share a file when they start
//! within a second, `add_image` scrambles pictures that are not square and refuses grey, and text, hyper-parameters
//! and the restart mark do not exist.
//!
//! A run's folder holds one event file per start. TensorBoard reads them in the order of their names, so a new file's
//! name always sorts behind those that are there. Every file opens with the mark `SessionLog START` at the first step
//! it may hold, at which TensorBoard drops the points that an interrupted run wrote beyond its checkpoint; without it
//! curves would zig-zag. (TensorBoard's web reader takes a folder's first mark as the run's beginning and acts on the
//! later ones only, so a run that was never resumed has its mark too.)

use crate::error::{Error, Result};
use crate::fsio;
use crate::metrics::thresholds::{THRESHOLDS, Thresholds};
use crate::watch::panels::Image;
use protobuf::well_known_types::Value as ProtoValue;
use protobuf::{Message, RepeatedField};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tensorboard_proto::api::Status;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::graph::GraphDef;
use tensorboard_proto::plugin_hparams::{HParamsPluginData, SessionEndInfo, SessionStartInfo};
use tensorboard_proto::plugin_pr_curve::PrCurvePluginData;
use tensorboard_proto::summary::{
    Summary, Summary_Image, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData,
};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary;

/// How long written events may wait in memory while more are being written.
const FLUSH_AFTER: Duration = Duration::from_secs(5);

/// A hyper-parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum HParam {
    /// A number; a learning rate.
    Number(f64),
    /// A word; a generator's name.
    Text(String),
    /// A switch.
    Flag(bool),
}

impl From<f64> for HParam {
    fn from(v: f64) -> Self {
        HParam::Number(v)
    }
}

impl From<&str> for HParam {
    fn from(v: &str) -> Self {
        HParam::Text(v.to_string())
    }
}

impl From<String> for HParam {
    fn from(v: String) -> Self {
        HParam::Text(v)
    }
}

impl From<bool> for HParam {
    fn from(v: bool) -> Self {
        HParam::Flag(v)
    }
}

/// A writer of one event file. Every method fails with [`Error::Io`] when the disk does.
pub struct Events {
    path: PathBuf,
    writer: RecordWriter<BufWriter<File>>,
    started: f64,
    flushed: Instant,
}

impl Events {
    /// Opens a new event file in a run's folder, which is created if need be. When the run continues from a
    /// checkpoint, `resume_step` is the checkpoint's step: TensorBoard drops what lies beyond it. A run that starts
    /// anew (`None`) in the folder of another drops all of that one's points.
    pub fn create(dir: &Path, resume_step: Option<u64>) -> Result<Self> {
        fsio::create_dir(dir)?;
        let (path, file) = create_unique(dir)?;
        let writer = RecordWriter::new(BufWriter::new(file));
        let mut events = Events { path, writer, started: wall_time(), flushed: Instant::now() };
        let mut version = Event::new();
        version.set_file_version("brain.Event:2".to_string());
        events.write(version, 0)?;
        let mut log = SessionLog::new();
        log.set_status(SessionLog_SessionStatus::START);
        let mut start = Event::new();
        start.set_session_log(log);
        // TensorBoard drops steps from the mark's own step on.
        events.write(start, resume_step.map_or(0, |step| step.saturating_add(1)))?;
        events.flush()?;
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A point of a curve: `loss/G_GAN`, `lr/G`, `val/ssim`.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<()> {
        self.summary(summary::scalar(tag, value), step)
    }

    /// A picture, stored as PNG: `images/fake_B`.
    pub fn image(&mut self, tag: &str, step: u64, image: &Image) -> Result<()> {
        let mut picture = Summary_Image::new();
        // PNG's own limit is below that of an i32.
        picture.set_encoded_image_string(image.png()?);
        picture.set_width(image.width() as i32);
        picture.set_height(image.height() as i32);
        picture.set_colorspace(image.channels() as i32);
        let mut value = tagged(tag);
        value.set_image(picture);
        self.value(value, step)
    }

    /// The distribution of some numbers: weights, gradients. Numbers that are not finite are left out; if none is
    /// finite nothing is written.
    pub fn histogram(&mut self, tag: &str, step: u64, values: &[f32]) -> Result<()> {
        let finite = || values.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v));
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for v in finite() {
            (min, max) = (min.min(v), max.max(v));
            (count, sum, squares) = (count + 1.0, sum + v, squares + v * v);
        }
        if count == 0.0 {
            return Ok(());
        }
        let (limits, counts) = buckets(finite());
        self.summary(summary::histogram_raw(tag, min, max, count, sum, squares, &limits, &counts), step)
    }

    /// Precision and recall of a mask at every threshold: `pr/TC`.
    pub fn pr_curve(&mut self, tag: &str, step: u64, curve: &Thresholds) -> Result<()> {
        let counts = curve.counts();
        let rows: [Vec<f32>; 6] = [
            counts.iter().map(|c| c.true_positives as f32).collect(),
            counts.iter().map(|c| c.false_positives as f32).collect(),
            counts.iter().map(|c| c.true_negatives as f32).collect(),
            counts.iter().map(|c| c.false_negatives as f32).collect(),
            counts.iter().map(|c| c.precision() as f32).collect(),
            counts.iter().map(|c| c.recall() as f32).collect(),
        ];
        let mut about = PrCurvePluginData::new();
        about.set_num_thresholds(THRESHOLDS as u32);
        let content = about.write_to_bytes().map_err(|e| Error::io("write", &self.path)(e.into()))?;
        let mut tensor = tensor(DataType::DT_FLOAT, &[rows.len(), THRESHOLDS]);
        tensor.set_float_val(rows.concat());
        let mut value = tagged(tag);
        value.set_metadata(plugin("pr_curves", content));
        value.set_tensor(tensor);
        self.value(value, step)
    }

    /// The graph of the model.
    pub fn graph(&mut self, graph: &GraphDef) -> Result<()> {
        let bytes = graph.write_to_bytes().map_err(|e| Error::io("write", &self.path)(e.into()))?;
        let mut event = Event::new();
        event.set_graph_def(bytes);
        self.write(event, 0)
    }

    /// A text in Markdown: the recipe, the environment.
    pub fn text(&mut self, tag: &str, step: u64, markdown: &str) -> Result<()> {
        let mut tensor = tensor(DataType::DT_STRING, &[1]);
        tensor.set_string_val(RepeatedField::from_vec(vec![markdown.as_bytes().to_vec()]));
        let mut value = tagged(tag);
        value.set_metadata(plugin("text", Vec::new()));
        value.set_tensor(tensor);
        self.value(value, step)
    }

    /// The run's row in the HPARAMS table: its hyper-parameters, written when it begins. Its metrics are the last values
    /// of the scalars in the same folder. No `Experiment` message is written: TensorBoard would take its columns from
    /// whichever run it reads first; without one it takes them from all runs.
    pub fn hparams_begin(&mut self, params: &[(String, HParam)]) -> Result<()> {
        let mut start = SessionStartInfo::new();
        start.set_start_time_secs(self.started);
        start.set_hparams(params.iter().map(|(name, v)| (name.clone(), proto_value(v))).collect());
        let mut data = HParamsPluginData::new();
        data.set_session_start_info(start);
        self.hparams_record("_hparams_/session_start_info", &data)
    }

    /// The end of that row: final metrics, as scalars at `step`, and that the run is done.
    pub fn hparams_end(&mut self, step: u64, metrics: &[(String, f32)]) -> Result<()> {
        for (name, value) in metrics {
            self.scalar(name, step, *value)?;
        }
        let mut end = SessionEndInfo::new();
        end.set_status(Status::STATUS_SUCCESS);
        end.set_end_time_secs(wall_time());
        let mut data = HParamsPluginData::new();
        data.set_session_end_info(end);
        self.hparams_record("_hparams_/session_end_info", &data)
    }

    /// Hands everything written so far to the operating system, so that a live TensorBoard sees it. Happens by itself
    /// when events are written more than five seconds after the last time, and when the writer is dropped (then
    /// without a report of errors).
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.writer.flush().map_err(Error::io("write", &self.path))
    }

    fn hparams_record(&mut self, tag: &str, data: &HParamsPluginData) -> Result<()> {
        let content = data.write_to_bytes().map_err(|e| Error::io("write", &self.path)(e.into()))?;
        let mut value = tagged(tag);
        value.set_metadata(plugin("hparams", content));
        value.set_tensor(tensor(DataType::DT_FLOAT, &[0]));
        self.value(value, 0)
    }

    fn value(&mut self, value: Summary_Value, step: u64) -> Result<()> {
        let mut summary = Summary::new();
        summary.set_value(RepeatedField::from_vec(vec![value]));
        self.summary(summary, step)
    }

    fn summary(&mut self, summary: Summary, step: u64) -> Result<()> {
        let mut event = Event::new();
        event.set_summary(summary);
        self.write(event, step)
    }

    fn write(&mut self, mut event: Event, step: u64) -> Result<()> {
        event.set_wall_time(wall_time());
        event.set_step(i64::try_from(step).unwrap_or(i64::MAX));
        let bytes = event.write_to_bytes().map_err(|e| Error::io("write", &self.path)(e.into()))?;
        self.writer.write(&bytes).map_err(Error::io("write", &self.path))?;
        if self.flushed.elapsed() > FLUSH_AFTER { self.flush() } else { Ok(()) }
    }
}

/// A new file `events.out.tfevents.<seconds>.gan.<process>`, its seconds behind those of every file that is there.
fn create_unique(dir: &Path) -> Result<(PathBuf, File)> {
    loop {
        let mut seconds = wall_time() as u64;
        for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let name = entry.map_err(Error::io("read", dir))?.file_name();
            if let Some(taken) = seconds_of(&name.to_string_lossy()) {
                seconds = seconds.max(taken.saturating_add(1));
            }
        }
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.gan.{}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            // Another writer of this process was faster; its file is in the next listing.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &path)(e)),
        }
    }
}

fn seconds_of(name: &str) -> Option<u64> {
    name.strip_prefix("events.out.tfevents.")?.split('.').next()?.parse().ok()
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn tagged(tag: &str) -> Summary_Value {
    let mut value = Summary_Value::new();
    value.set_tag(tag.to_string());
    value
}

fn plugin(name: &str, content: Vec<u8>) -> SummaryMetadata {
    let mut data = SummaryMetadata_PluginData::new();
    data.set_plugin_name(name.to_string());
    data.set_content(content);
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(data);
    metadata
}

/// A tensor without its values.
fn tensor(element: DataType, extents: &[usize]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.set_dtype(element);
    tensor.set_tensor_shape(shape(extents));
    tensor
}

pub(super) fn shape(extents: &[usize]) -> TensorShapeProto {
    let axis = |n: &usize| {
        let mut axis = TensorShapeProto_Dim::new();
        axis.set_size(*n as i64);
        axis
    };
    let mut shape = TensorShapeProto::new();
    shape.set_dim(extents.iter().map(axis).collect());
    shape
}

fn proto_value(v: &HParam) -> ProtoValue {
    let mut value = ProtoValue::new();
    match v {
        HParam::Number(v) => value.set_number_value(*v),
        HParam::Text(v) => value.set_string_value(v.clone()),
        HParam::Flag(v) => value.set_bool_value(*v),
    }
    value
}

/// TensorFlow's limits of buckets: they grow by a tenth from 1e-12 to 1e20 on both sides of zero.
static LIMITS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let positive: Vec<f64> =
        std::iter::successors(Some(1e-12f64), |v| Some(v * 1.1)).take_while(|v| *v < 1e20).collect();
    let mut limits: Vec<f64> = positive.iter().rev().map(|v| -v).collect();
    limits.push(0.0);
    limits.extend(&positive);
    limits.push(f64::MAX);
    limits
});

/// The bucket of a number: the first whose limit lies above it. Guessed by the logarithm and mended by comparison, which is
/// several times as fast as a search: networks have tens of millions of weights.
fn bucket(v: f64, limits: &[f64]) -> usize {
    let zero = limits.len() / 2 - 1;
    let size = v.abs();
    let steps = if size < 1e-12 { 0.0 } else { (size * 1e12).ln() * (1.0 / 1.1f64.ln()) };
    let guess = if v < 0.0 { zero as f64 - steps } else { zero as f64 + 1.0 + steps };
    let mut at = (guess as usize).min(limits.len() - 1);
    while at > 0 && limits[at - 1] > v {
        at -= 1;
    }
    while at + 1 < limits.len() && limits[at] <= v {
        at += 1;
    }
    at
}

/// TensorFlow's buckets: each holds the values from the limit before it up to, not including, its own. Only the part that
/// is used is kept.
fn buckets(finite: impl Iterator<Item = f64>) -> (Vec<f64>, Vec<f64>) {
    let limits = &*LIMITS;
    let mut counts = vec![0.0; limits.len()];
    for v in finite {
        counts[bucket(v, limits)] += 1.0;
    }
    let first = counts.iter().position(|c| *c > 0.0).unwrap_or(0);
    let last = counts.iter().rposition(|c| *c > 0.0).unwrap_or(0);
    // Readers take the smallest value for the first bucket's lower end.
    (limits[first..=last].to_vec(), counts[first..=last].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sort_by_start() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> =
            (0..4).map(|_| Events::create(folder.path(), None).unwrap().path().to_path_buf()).collect();
        assert!(names.windows(2).all(|w| w[0] < w[1]), "{names:?}");
        // A file from a clock that runs ahead does not sort behind the next one.
        File::create(folder.path().join("events.out.tfevents.9000000000.other.1")).unwrap();
        let next = Events::create(folder.path(), Some(5)).unwrap();
        assert!(next.path().to_string_lossy().contains("tfevents.9000000001."));
    }

    #[test]
    fn buckets_hold_every_value_once() {
        let values = [-3.0, -1e-13, 0.0, 0.0, 1e-13, 0.5, 0.51, 2e25];
        let (limits, counts) = buckets(values.into_iter());
        assert_eq!(limits.len(), counts.len());
        assert_eq!((counts[0], counts.iter().sum::<f64>()), (1.0, 8.0));
        assert!(-3.0 < limits[0] && limits[0] < -3.0 / 1.1 && *limits.last().unwrap() == f64::MAX);
        // A value on a limit belongs to the bucket above it: 0 and 1e-13 share [0, 1e-12).
        let from_zero = limits.iter().position(|l| *l == 1e-12).unwrap();
        assert_eq!((limits[from_zero - 1], counts[from_zero]), (0.0, 3.0));
        assert!(limits.windows(2).all(|w| w[0] < w[1]));
    }

    /// The guess must never matter: at every limit, just below, just above, and between.
    #[test]
    fn a_number_s_bucket_is_the_one_that_a_search_finds() {
        let limits = &*LIMITS;
        let near = |v: &f64| [*v, v.next_up(), v.next_down(), v * 1.05];
        let all = limits.iter().filter(|v| v.abs() < f64::MAX).flat_map(near);
        let mut checked = 0;
        for v in all.chain([f64::from(f32::MAX), f64::from(f32::MIN), -0.0, 5e-324]) {
            assert_eq!(bucket(v, limits), limits.partition_point(|limit| *limit <= v), "{v:e}");
            checked += 1;
        }
        assert!(checked > 6000);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let message = Events::create(&file.join("run"), None).err().unwrap().to_string();
        assert!(message.contains("create the folder"), "{message}");
    }
    /// `/dev/full` refuses every write, as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let writer = RecordWriter::new(BufWriter::new(file));
        let mut events = Events { path, writer, started: 0.0, flushed: Instant::now() };
        events.scalar("loss/D", 1, 0.5).unwrap();
        let message = events.flush().unwrap_err().to_string();
        assert!(message.contains("/dev/full") && message.contains("free some space"), "{message}");
        // A picture does not fit the buffer and meets the disk at once.
        let noise = (0..65_536u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert!(events.image("images/x", 1, &Image::new(256, 256, 1, noise).unwrap()).is_err());
    }
}
