//! How much of the processor this process got, and how long it had to wait for others.

/// Processor time of all threads so far, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessorTime {
    /// They ran.
    pub ran: f64,
    /// They could have run, but another process did.
    pub waited: f64,
}

impl ProcessorTime {
    /// As of now, where the system keeps count (Linux, `/proc/self/task/*/schedstat`). A running thread's time is
    /// some milliseconds old; that of threads that have ended is not in it.
    pub fn now() -> Option<Self> {
        let mut all = ProcessorTime::default();
        for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
            // A thread may end just now.
            let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else { return None };
            all.ran += ran as f64 / 1e9;
            all.waited += waited as f64 / 1e9;
        }
        (all.ran > 0.0).then_some(all)
    }

    /// What came to it since an earlier time.
    pub fn since(&self, earlier: &ProcessorTime) -> Self {
        ProcessorTime {
            ran: (self.ran - earlier.ran).max(0.0),
            waited: (self.waited - earlier.waited).max(0.0),
        }
    }
}

impl std::ops::AddAssign for ProcessorTime {
    fn add_assign(&mut self, more: Self) {
        self.ran += more.ran;
        self.waited += more.waited;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let Some(before) = ProcessorTime::now() else { return };
        let start = std::time::Instant::now();
        let mut x = 1u64;
        // Until it has run for a while, however busy the machine is.
        let spent = loop {
            for _ in 0..100_000 {
                x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
            let spent = ProcessorTime::now().expect("still there").since(&before);
            if spent.ran > 0.05 || start.elapsed().as_secs() > 60 {
                break spent;
            }
        };
        assert!(spent.ran > 0.05, "{spent:?}");
    }
}
