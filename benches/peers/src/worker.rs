//! Every competitor is a process of its own, so that none can disturb the memory of another, and
//! one that dies takes only its own figures with it. The driver asks, the competitor answers:
//! one JSON object a line on standard input, one on standard output, `{"ok": ...}` or
//! `{"error": "..."}`. Any language can take part; see `python/` for one that does.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Failure;

/// How long one answer may take before the competitor counts as hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(3_600);

/// What a competitor answers to one request.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer<T> {
    Ok(T),
    Error(String),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The process ended.
    Died,
    /// It still runs.
    Hung,
}

/// A running competitor, as the driver sees it. Dropping it ends the process.
pub struct Worker {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<io::Result<String>>,
}

impl Worker {
    /// Starts `command`, which must speak the protocol of this module.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let input = child.stdin.take().ok_or("a child without standard input")?;
        let output = child.stdout.take().ok_or("a child without standard output")?;
        let (sender, lines) = crossbeam_channel::unbounded();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, input, lines })
    }

    /// Starts this very program as the competitor `name` of `bench`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn of_this_program(bench: &str, name: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", bench, name]);
        Self::start(name, command)
    }

    /// The same, with nothing that it says on standard error being seen: for one that may well fail.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn quiet(bench: &str, name: &str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", bench, name]).stderr(Stdio::null());
        Self::start(name, command)
    }

    /// Sends a request and waits so long for its answer, which may be that it was refused.
    ///
    /// # Errors
    /// There is no answer that can be understood.
    pub fn ask_within<T: DeserializeOwned>(
        &mut self,
        request: &impl Serialize,
        patience: Duration,
    ) -> Result<Result<T, String>, Silence> {
        let mut line = serde_json::to_string(request).map_err(|_| Silence::Died)?;
        line.push('\n');
        let sent = self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush());
        sent.map_err(|_| Silence::Died)?;
        let line = match self.lines.recv_timeout(patience) {
            Ok(line) => line.map_err(|_| Silence::Died)?,
            Err(RecvTimeoutError::Timeout) => return Err(Silence::Hung),
            Err(RecvTimeoutError::Disconnected) => return Err(Silence::Died),
        };
        match serde_json::from_str(&line) {
            Ok(Answer::Ok(value)) => Ok(Ok(value)),
            Ok(Answer::Error(error)) => Ok(Err(error)),
            Err(_) => Err(Silence::Died),
        }
    }

    /// The competitor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The competitor refused, died, hung, or answered something else than a `T`.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T, Failure> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let name = &self.name;
        self.input
            .write_all(line.as_bytes())
            .and_then(|()| self.input.flush())
            .map_err(|error| format!("{name} takes no requests: {error}"))?;
        let line = self
            .lines
            .recv_timeout(ANSWER_WITHIN)
            .map_err(|error| format!("{name} gave no answer: {error}"))?
            .map_err(|error| format!("the answer of {name} cannot be read: {error}"))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Error(error)) => Err(format!("{name}: {error}").into()),
            Err(error) => Err(format!("{name} answered {line:?}: {error}").into()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The competitor's side: answers requests until the driver hangs up.
///
/// # Errors
/// Standard input or output failed. What the handler refuses is answered, not returned.
pub fn serve<Q: DeserializeOwned, T: Serialize>(
    mut handle: impl FnMut(Q) -> Result<T, Failure>,
) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(|error| Failure::from(format!("not a request: {error}")))
            .and_then(&mut handle);
        let answer = match answer {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Error(error.to_string()),
        };
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}
