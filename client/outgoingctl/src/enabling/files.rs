//! Our four files below Debian's `conf.d`: which of them are to be written or removed, doing so, and putting back what was there.
//!
//! A file is there whole or not at all, and what it replaces is kept beside it until all is well. The names that are used for that
//! begin with a dot, which `update-exim4.conf` passes over. After each single step, in the order of [`FILES`] for writing and in
//! the other one for removing, Exim's configuration is sound, and either as before or complete, so that a power failure leaves
//! nothing worse than files that are not in use.

use crate::Failure;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The files, by their place in `conf.d`. The last one switches the others on.
pub(super) const FILES: [&str; 4] =
    ["acl/10_outgoingd", "retry/10_outgoingd", "router/050_outgoingd", "main/00_outgoingd"];

/// The parts that they take in.
const PARTS: [&str; 7] = ["macros", "main", "acl-mail", "acl-rcpt", "acl-not-smtp", "routers", "retry"];

/// Where Debian keeps its small files.
pub(super) const CONF_D: &str = "/etc/exim4/conf.d";

/// A file that is not as it shall be.
pub(super) struct Change {
    /// Its place in `conf.d`.
    pub(super) name: &'static str,
    /// What it shall be; none if it shall not be there.
    pub(super) text: Option<Vec<u8>>,
}

impl Change {
    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(CONF_D).join(self.name)
    }

    fn make(&self) -> io::Result<()> {
        match &self.text {
            Some(text) => write(&self.path(), text),
            None => fs::remove_file(self.path()),
        }
    }
}

/// What is to be done so that the files are those below `snippets`.
pub(super) fn to_enable(snippets: &Path) -> Result<Vec<Change>, Failure> {
    for part in PARTS {
        must_be_for_everybody(&snippets.join(part))?;
    }
    let mut changes = Vec::new();
    for name in FILES {
        let source = snippets.join("debian/conf.d").join(name);
        let text = fs::read(&source).map_err(|source_error| cannot("read", &source, source_error))?;
        if read(name)?.as_ref() != Some(&text) {
            changes.push(Change { name, text: Some(text) });
        }
    }
    Ok(changes)
}

/// What is to be done so that none of the files is there.
pub(super) fn to_disable() -> Result<Vec<Change>, Failure> {
    let there = FILES.into_iter().rev().filter_map(|name| match read(name) {
        Ok(None) => None,
        Ok(Some(_)) => Some(Ok(Change { name, text: None })),
        Err(error) => Some(Err(error)),
    });
    there.collect()
}

fn read(name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let path = Path::new(CONF_D).join(name);
    match fs::read(&path) {
        Ok(text) => Ok(Some(text)),
        // A link to nowhere is none to Debian's program either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(cannot("read", &path, error)),
    }
}

/// Exim reads its configuration again as its own user.
fn must_be_for_everybody(part: &Path) -> Result<(), Failure> {
    let metadata = fs::metadata(part).map_err(|error| cannot("find", part, error))?;
    let closed = part.ancestors().skip(1).find(|directory| {
        !directory.as_os_str().is_empty() && fs::metadata(directory).is_ok_and(|found| found.mode() & 0o001 == 0)
    });
    let (what, mode) = match closed {
        Some(directory) => (directory, "go+x"),
        None if metadata.mode() & 0o004 == 0 => (part, "go+r"),
        None => return Ok(()),
    };
    let what = what.display();
    Err(Failure::Some(format!("Exim's user cannot read {}: chmod {mode} {what}; nothing was changed", part.display())))
}

/// Files that are being changed, with what they were.
pub(super) struct Swap {
    kept: Vec<Kept>,
}

/// What a file was.
struct Kept {
    path: PathBuf,
    /// It, under another name, if it was there.
    aside: Option<PathBuf>,
    /// Whose it was.
    metadata: Option<Metadata>,
}

impl Swap {
    /// Nothing yet.
    pub(super) fn new() -> Swap {
        Swap { kept: Vec::new() }
    }

    /// Makes a change that can be undone.
    pub(super) fn make(&mut self, change: &Change) -> Result<(), Failure> {
        let path = change.path();
        self.keep(&path)?;
        change.make().map_err(|error| cannot(if change.text.is_some() { "write" } else { "remove" }, &path, error))
    }

    /// Keeps a file that somebody else is about to replace by another.
    pub(super) fn keep(&mut self, path: &Path) -> Result<(), Failure> {
        let aside = beside(path, "old");
        let kept = match fs::remove_file(&aside).or_else(absent).and_then(|()| fs::hard_link(path, &aside)) {
            Ok(()) => {
                let metadata = fs::symlink_metadata(path).map_err(|error| cannot("look at", path, error))?;
                Kept { path: path.to_path_buf(), aside: Some(aside), metadata: Some(metadata) }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Kept { path: path.to_path_buf(), aside: None, metadata: None }
            }
            Err(error) => return Err(cannot("keep", path, error)),
        };
        self.kept.push(kept);
        Ok(())
    }

    /// Puts everything back, the last first; what that fails for is told.
    pub(super) fn put_back(self) -> Result<(), String> {
        let failed = self.kept.into_iter().rev().filter_map(|kept| {
            let path = kept.path.clone();
            kept.put_back().err().map(|error| format!("cannot put back {}: {error}", path.display()))
        });
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// Forgets what was.
    pub(super) fn finish(self) -> io::Result<()> {
        self.kept.iter().filter_map(|kept| kept.aside.as_ref()).try_for_each(fs::remove_file)
    }
}

impl Kept {
    fn put_back(self) -> io::Result<()> {
        let (Some(aside), Some(metadata)) = (&self.aside, &self.metadata) else {
            fs::remove_file(&self.path).or_else(absent)?;
            return sync_directory(&self.path);
        };
        // Debian's program changes owner and mode of what it is about to replace.
        if metadata.is_file() {
            chown(aside, Some(metadata.uid()), Some(metadata.gid()))?;
            fs::set_permissions(aside, metadata.permissions())?;
        }
        // Where the file is still the same one, renaming leaves both names.
        fs::rename(aside, &self.path)?;
        fs::remove_file(aside).or_else(absent)?;
        sync_directory(&self.path)
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    let written = (|| {
        let mut file = File::create(&new)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.and_then(|()| sync_directory(path))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// A name in the same directory that nobody else uses and Debian's program passes over.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.outgoingctl-{what}"))
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

pub(super) fn cannot(what: &str, path: &Path, source: io::Error) -> Failure {
    Failure::Io { what: format!("cannot {what} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_is_put_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let [old, new, link] = ["old", "new", "link"].map(|name| directory.path().join(name));
        fs::write(&old, "as it was").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("old", &link).unwrap();
        let mut swap = Swap::new();
        for path in [&old, &new, &link] {
            swap.keep(path).unwrap();
        }
        fs::set_permissions(&old, Permissions::from_mode(0o600)).unwrap();
        for path in [&old, &new, &link] {
            write(path, b"other").unwrap();
        }
        swap.put_back().unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"as it was");
        assert_eq!(fs::metadata(&old).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("old"));
        assert_eq!(names(directory.path()), ["link", "old"]);
    }

    #[test]
    fn what_nobody_came_to_replace_stays_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        fs::write(beside(&file, "old"), "of one that was killed").unwrap();
        for end in [Swap::put_back, |swap: Swap| swap.finish().map_err(|error| error.to_string())] {
            let mut swap = Swap::new();
            swap.keep(&file).unwrap();
            end(swap).unwrap();
            assert_eq!((fs::read(&file).unwrap(), names(directory.path())), (b"x".to_vec(), vec!["file".to_owned()]));
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }
}
