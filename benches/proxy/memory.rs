//! What many large uploads at once take of the machine's memory, and what of it stays.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;

use super::load::{Load, Sample, measure};
use super::proxies::{Kind, Target};

/// The uploads.
pub(crate) const UPLOADS: Load = Load::uploads(100 << 20, 16, 16);

/// How long a proxy has to give back what it took.
const SETTLING: Duration = Duration::from_secs(10);

/// The resident memory of a proxy that was started for this, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) kind: Kind,
    /// After the start.
    pub(crate) idle: u64,
    /// The most, from the start until the last upload was answered; and what the uploads took.
    pub(crate) uploads: Sample,
    /// A while after the last upload.
    pub(crate) settled: u64,
}

impl Memory {
    pub(crate) fn peak(&self) -> u64 {
        self.uploads.peak.unwrap_or(0).max(self.idle)
    }
}

/// Measures each proxy by itself.
pub(crate) fn measure_all(binary: &Path) -> anyhow::Result<Vec<Memory>> {
    let one = |kind| {
        let target = Target::start(kind, binary, true)?;
        let idle = target.idle().context("it has a process")?;
        let uploads = measure(&target, UPLOADS)?;
        thread::sleep(SETTLING);
        let settled = target.resident()?.context("it has a process")?;
        Ok(Memory {
            kind,
            idle,
            uploads,
            settled,
        })
    };
    Kind::PROXIES.into_iter().map(one).collect()
}
