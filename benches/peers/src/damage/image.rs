//! Copies of a store's files, and what is done to them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{Failure, data::Random};

/// Zeros in blocks of this size are not written, so that room reserved ahead costs nothing.
const BLOCK: usize = 4_096;
/// How much zeros and garbage reach beyond the end of a write that made its file longer.
const BEYOND: usize = 700;

/// All files of a directory.
#[derive(Clone, Default)]
pub struct Image {
    files: BTreeMap<PathBuf, Vec<u8>>,
    dirs: Vec<PathBuf>,
}

impl Image {
    /// Reads what is in `dir`, and below it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(dir: &Path) -> Result<Self, Failure> {
        let mut image = Self::default();
        image.add(dir, Path::new(""))?;
        Ok(image)
    }

    fn add(&mut self, root: &Path, below: &Path) -> Result<(), Failure> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.dirs.push(path.clone());
                self.add(root, &path)?;
            } else {
                self.files.insert(path, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// Makes it the content of the directory `dir`, which is made anew.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), Failure> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(dir)?,
        }
        for below in &self.dirs {
            fs::create_dir(dir.join(below))?;
        }
        for (path, bytes) in &self.files {
            let file = fs::File::create(dir.join(path))?;
            file.set_len(bytes.len() as u64)?;
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, (index * BLOCK) as u64)?;
                }
            }
        }
        Ok(())
    }

    /// One of its files.
    pub fn file(&self, path: &Path) -> &[u8] {
        self.files.get(path).map_or(&[], Vec::as_slice)
    }

    /// Cuts one of its files to this length.
    pub fn cut(&mut self, path: &Path, len: usize) {
        if let Some(bytes) = self.files.get_mut(path) {
            bytes.truncate(len);
        }
    }

    /// The offsets at which a file differs from what it is in `before`, missing bytes included.
    pub fn changed(&self, before: &Self, path: &Path) -> Vec<usize> {
        let (new, old) = (self.file(path), before.file(path));
        (0..new.len()).filter(|&at| old.get(at) != Some(&new[at])).collect()
    }

    /// The file that changed most since `before`. Zeros behind its old end do not count: they are room
    /// for later, often more of it than what was written.
    pub fn most_changed(&self, before: &Self) -> Option<PathBuf> {
        let changed = |path: &&PathBuf| {
            let old = before.file(path);
            let new = self.file(path).iter().enumerate();
            new.filter(|(at, byte)| **byte != old.get(*at).copied().unwrap_or(0)).count()
        };
        self.files.keys().max_by_key(changed).cloned()
    }

    /// A copy in which `path` is what `tamper` makes of it. `before` is what it was without the last
    /// write, which wrote to the offsets `last`.
    pub fn tampered(&self, before: &Self, path: &Path, tamper: &Tamper, last: &[usize]) -> Self {
        let (whole, old) = (self.file(path), before.file(path));
        let (mut image, bytes) = match tamper {
            Tamper::Flip { at, bit } => {
                let mut bytes = whole.to_vec();
                bytes[*at] ^= 1 << bit;
                (self.clone(), bytes)
            }
            Tamper::Hole { from, to } => {
                let mut bytes = whole.to_vec();
                for &offset in last.iter().filter(|offset| (*from..*to).contains(*offset)) {
                    bytes[offset] = old.get(offset).copied().unwrap_or(0);
                }
                (before.clone(), bytes)
            }
            Tamper::Tear { at, behind } => (before.clone(), tear(whole, old, *at, *behind, last)),
        };
        image.files.insert(path.to_owned(), bytes);
        image
    }
}

/// `old` with those bytes of the last write that are before `at`. Where its others were to be is what
/// was there before, or zeros, or garbage; and where the file grew by it, the same beyond its end.
fn tear(whole: &[u8], old: &[u8], at: usize, behind: Behind, last: &[usize]) -> Vec<u8> {
    let grew = whole.len() > old.len();
    let mut bytes = old.to_vec();
    let mut random = Random::new(if let Behind::Garbage(seed) = behind { seed } else { 0 });
    bytes.resize(whole.len(), 0);
    for &offset in last {
        let torn = match behind {
            _ if offset < at => whole[offset],
            Behind::Nothing => old.get(offset).copied().unwrap_or(0),
            Behind::Zeros => 0,
            Behind::Garbage(_) => random.next() as u8,
        };
        bytes[offset] = torn;
    }
    match behind {
        Behind::Nothing if grew => bytes.truncate(at.max(old.len())),
        Behind::Nothing => {}
        Behind::Zeros if grew => bytes.resize(whole.len() + BEYOND, 0),
        Behind::Garbage(_) if grew => {
            bytes.resize_with(whole.len() + BEYOND, || random.next() as u8);
        }
        Behind::Zeros | Behind::Garbage(_) => {}
    }
    bytes
}

/// What stands behind the part of a write that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The file ends there, or has what it had before the write.
    Nothing,
    /// Blocks that were given to the file and never written.
    Zeros,
    /// Whatever was on the disk there, drawn from a seed.
    Garbage(u64),
}

/// What is done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// This bit of the byte at this offset is the other way round.
    Flip {
        /// Offset in the file.
        at: usize,
        /// 0 to 7.
        bit: u8,
    },
    /// Of the last write, these bytes did not arrive: what was there before is there, or zeros.
    Hole {
        /// The first offset in the file.
        from: usize,
        /// One past the last.
        to: usize,
    },
    /// Of the last write, the bytes from this offset on did not arrive.
    Tear {
        /// Offset in the file.
        at: usize,
        /// What is there instead.
        behind: Behind,
    },
}

impl fmt::Display for Tamper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { at, bit } => write!(f, "bit {bit} at {at}"),
            Self::Hole { from, to } => write!(f, "without {from} to {to}"),
            Self::Tear { at, .. } => write!(f, "torn at {at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(bytes: &[u8]) -> Image {
        let files = BTreeMap::from([("log".into(), bytes.to_vec()), ("other".into(), vec![1])]);
        Image { files, dirs: vec!["below".into()] }
    }

    #[test]
    fn files_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut whole = image(&[0; 3 * BLOCK + 5]);
        whole.files.insert("below/deep".into(), [vec![0; BLOCK], vec![7; 3]].concat());
        let path = dir.path().join("store");
        for _ in 0..2 {
            whole.write(&path).unwrap();
            fs::write(path.join("left over"), b"x").unwrap();
        }
        whole.write(&path).unwrap();
        let again = Image::read(&path).unwrap();
        assert!(again.files == whole.files && again.dirs == whole.dirs);
    }

    #[test]
    fn what_a_write_wrote_is_found() {
        let (before, after) = (image(b"ab\0\0"), image(b"abcd"));
        assert_eq!(after.most_changed(&before), Some("log".into()));
        assert_eq!(after.changed(&before, Path::new("log")), [2, 3]);
        assert_eq!(image(b"abcd").changed(&image(b"ab"), Path::new("log")), [2, 3]);
    }

    #[test]
    fn damage_is_where_it_should_be() {
        let log = Path::new("log");
        let (grown, filled) = (image(b"ab"), image(b"ab\0\0\0\0"));
        let (after, after_filled) = (image(b"abcd"), image(b"abcd\0\0"));
        let flip = Tamper::Flip { at: 1, bit: 0 };
        assert_eq!(after.tampered(&grown, log, &flip, &[2, 3]).file(log), b"accd");
        let torn = |after: &Image, before: &Image, behind| {
            let tear = Tamper::Tear { at: 3, behind };
            after.tampered(before, log, &tear, &[2, 3]).file(log).to_vec()
        };
        assert_eq!(torn(&after, &grown, Behind::Nothing), b"abc");
        assert_eq!(torn(&after_filled, &filled, Behind::Nothing), b"abc\0\0\0");
        let zeros = torn(&after, &grown, Behind::Zeros);
        assert_eq!(zeros, [&b"abc"[..], &[0; 1 + BEYOND]].concat());
        let garbage = torn(&after, &grown, Behind::Garbage(1));
        assert_eq!((&garbage[..3], garbage.len()), (&b"abc"[..], 4 + BEYOND));
        assert!(garbage[3..].iter().any(|byte| *byte != 0));
        let garbage = torn(&after_filled, &filled, Behind::Garbage(1));
        assert_eq!((&garbage[..3], &garbage[4..]), (&b"abc"[..], &b"\0\0"[..]));
        let hole = Tamper::Hole { from: 0, to: 3 };
        assert_eq!(after.tampered(&grown, log, &hole, &[2, 3]).file(log), b"ab\0d");
        // What was acknowledged between two places of the write stays.
        let (before, after) = (image(b"abcdef"), image(b"aBcdEF"));
        let tear = Tamper::Tear { at: 4, behind: Behind::Zeros };
        assert_eq!(after.tampered(&before, log, &tear, &[1, 4, 5]).file(log), b"aBcd\0\0");
    }
}
