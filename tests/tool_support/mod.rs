//! Runs the built tool in a directory of its own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A directory with a store in it, once something has been ingested.
pub struct Scene {
    dir: TempDir,
}

/// What a run of the tool left behind.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

#[allow(dead_code, reason = "each test program uses some of these")]
impl Scene {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs `tala-store COMMAND STORE ARGS...` with nothing on standard input.
    pub fn run(&self, command: &str, args: &[&str]) -> Ran {
        self.run_with(command, args, b"")
    }

    /// The same with `input` on standard input.
    pub fn run_with(&self, command: &str, args: &[&str], input: &[u8]) -> Ran {
        let mut all = vec![command.to_owned(), self.store().to_str().unwrap().to_owned()];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        tool(&all, input)
    }

    /// Ingests the bytes as a file.
    pub fn ingest(&self, bytes: impl AsRef<[u8]>, args: &[&str]) -> Ran {
        let path = self.file("input", bytes);
        let mut all = vec![path.to_str().unwrap()];
        all.extend(args);
        self.run("ingest", &all)
    }

    /// All intents of the store as JSON, oldest first.
    pub fn all(&self) -> Vec<Value> {
        let ran = self.run("range", &["--json", "--embedding"]);
        assert_eq!(ran.status, 0, "{ran:?}");
        json_lines(&ran.stdout)
    }

    /// The commands of the store, oldest first.
    pub fn commands(&self) -> Vec<String> {
        self.all().iter().map(|intent| intent["raw_command"].as_str().unwrap().to_owned()).collect()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Runs the tool.
pub fn tool(args: &[String], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tala-store"))
        .args(args)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The inputs of these tests are far below the size of a pipe, or the tool reads them as it
    // goes; a tool that ends before it has read everything is no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        status: status.code().expect("the tool was not killed"),
        stdout: String::from_utf8(stdout).expect("standard output is UTF-8"),
        stderr: String::from_utf8(stderr).expect("standard error is UTF-8"),
    }
}

/// Parses one JSON value per line.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}
