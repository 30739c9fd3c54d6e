//! Opening a store for a command: with a progress bar on a terminal, and never creating one by
//! accident.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::{ProgressBar, ProgressStyle};
use tala_store::{EngineOptions, OpenProgress, StorageEngine, stored_dim};

use crate::{failure::Failure, tell};

/// Opens the store in `dir` for a command that only looks, and answers at once: the search graph
/// is rebuilt in the background, and a search scans exactly what the graph does not have yet.
pub(crate) fn existing(dir: &Path) -> Result<StorageEngine, Failure> {
    existing_with(dir, |options| options.link_on_open(false))
}

/// Opens the store in `dir` with what `choose` makes of the default options.
pub(crate) fn existing_with(
    dir: &Path,
    choose: impl FnOnce(EngineOptions) -> EngineOptions,
) -> Result<StorageEngine, Failure> {
    let dim = dim_of(dir)?.ok_or_else(|| Failure::NoStore(dir.to_path_buf()))?;
    with_progress(choose(StorageEngine::options(dim)), dir)
}

/// The dimension of the store in `dir`, or `None` where there is no store or no directory.
///
/// [`Failure::Store`] is a store that cannot tell; the other failures are about `dir` itself.
pub(crate) fn dim_of(dir: &Path) -> Result<Option<usize>, Failure> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(stored_dim(dir)?),
        Ok(_) => Err(Failure::NotADirectory(dir.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("open", dir, error)),
    }
}

/// Opens `dir` with `options`, creating a store where there is none.
pub(crate) fn with_progress(options: EngineOptions, dir: &Path) -> Result<StorageEngine, Failure> {
    let bar = bar("opening");
    // The engine may go on to report after it has returned, while it links in the background.
    let opened = Arc::new(AtomicBool::new(false));
    let engine = options
        .on_open_progress({
            let (bar, opened) = (bar.clone(), Arc::clone(&opened));
            move |progress| {
                if !opened.load(Ordering::Relaxed) {
                    show(&bar, &progress);
                }
            }
        })
        .open(dir);
    opened.store(true, Ordering::Relaxed);
    bar.finish_and_clear();
    let engine = engine?;
    for warning in &engine.recovery().warnings {
        tell(&format!("warning: {warning}"));
    }
    Ok(engine)
}

/// The bytes of all files in `dir`.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64, Failure> {
    let failure = |error| Failure::file("list", dir, error);
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(failure)? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(failure)?.len();
    }
    Ok(bytes)
}

/// A progress bar on standard error; invisible where that is not a terminal.
pub(crate) fn bar(label: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>12} [{bar:40}] {percent:>3}%  {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(label.to_owned())
}

fn show(bar: &ProgressBar, progress: &OpenProgress) {
    let (label, done, total) = match *progress {
        OpenProgress::Segments { done, total } => ("segments", done, total),
        OpenProgress::Logs { done, total } => ("logs", done, total),
        OpenProgress::Index { done, total } => ("index", done, total),
        // A phase that this tool has no word for yet passes without one.
        _ => return,
    };
    bar.set_message(label);
    bar.set_length(total);
    bar.set_position(done);
}
