//! Exim's queue, read where Exim keeps it: every `-H` file below the spool directory, split directories and named queues
//! included, in the order of arrival.
//!
//! The queue changes while it is read. A message that comes in may be seen or not; one that leaves before it is opened is as if
//! it had never been there; one that Exim works on is read as it was before or is afterwards, since Exim replaces `-H` files and
//! never writes into them. Nothing is locked, and nothing is changed.
//!
//! Memory does not grow with the queue: ids are put in order a window at a time, and the directories are read once more for each
//! window. Links and what is no regular file are passed over: the directories are Exim's user's, and the reader may be root.

use super::header::{Header, HeaderError};
use super::id::MessageId;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BinaryHeap, HashSet};
use std::fs::{DirEntry, ReadDir, read_dir};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

/// Ids that are put in order at a time: some 2 MiB with what belongs to them.
const WINDOW: usize = 1 << 15;

/// No `-H` file is larger: a million recipients have room.
const LARGEST: usize = 64 << 20;

/// The directory in which messages are.
const INPUT: &str = "input";

/// The position in an id of what names the directory of a split queue (`split_spool_directory`): the last of the time.
const SPLIT_BY: usize = 5;

/// Exim's queue.
#[derive(Clone, Debug)]
pub struct Queue {
    spool: PathBuf,
}

/// The name of a named queue; none: the one without a name.
pub type QueueName = Option<Arc<str>>;

/// A message on the queue.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its id.
    pub id: MessageId,
    /// The queue on which it is.
    pub queue: QueueName,
    directory: Arc<Path>,
}

/// Why the queue, or a message, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The system said so.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A `-H` file makes no sense.
    #[error("{} is no message of Exim: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: HeaderError,
    },
    /// What has the name of a `-H` file is none.
    #[error("{} is no message of Exim: {what}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

impl Queue {
    /// The queue in this spool directory.
    #[must_use]
    pub fn new(spool: impl Into<PathBuf>) -> Queue {
        Queue { spool: spool.into() }
    }

    /// Every message, the oldest first.
    ///
    /// # Errors
    ///
    /// A directory cannot be read. The iterator has such an error as an item, too, and ends behind it.
    pub fn messages(&self) -> Result<Messages<'_>, QueueError> {
        let mut messages = Messages { queue: self, window: Vec::new().into_iter(), last: None, more: true, total: 0 };
        messages.total = messages.next_window()?;
        Ok(messages)
    }

    /// One message, wherever it is; none if it is not on the queue.
    ///
    /// # Errors
    ///
    /// A directory cannot be read.
    pub fn find(&self, id: MessageId) -> Result<Option<Place>, QueueError> {
        // Of the directories into which a queue may be split, the one for this message.
        let split = id.as_str().as_bytes()[SPLIT_BY];
        for (input, queue) in self.inputs()? {
            for directory in [input.join(char::from(split).to_string()), input] {
                let place = Place { id, queue: queue.clone(), directory: directory.into() };
                if place.is_there()? {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }

    /// The directory of each queue, and its name.
    fn inputs(&self) -> Result<Vec<(PathBuf, QueueName)>, QueueError> {
        let mut inputs = vec![(self.spool.join(INPUT), None)];
        for entry in entries(&self.spool)? {
            let entry = entry.map_err(|source| io_error(&self.spool, source))?;
            // Anything else in the spool directory has no such directory in it.
            if let Some(name) = entry.file_name().to_str().filter(|name| *name != INPUT) {
                inputs.push((entry.path().join(INPUT), Some(name.into())));
            }
        }
        Ok(inputs)
    }

    /// Every directory that may have messages in it, and the name of its queue.
    fn directories(&self) -> Result<Vec<(Arc<Path>, QueueName)>, QueueError> {
        let mut directories = Vec::new();
        for (input, queue) in self.inputs()? {
            for name in ('0'..='9').chain('A'..='Z').chain('a'..='z') {
                directories.push((input.join(name.to_string()).into(), queue.clone()));
            }
            directories.push((input.into(), queue));
        }
        Ok(directories)
    }
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> Result<impl Iterator<Item = io::Result<DirEntry>> + use<>, QueueError> {
    match read_dir(directory) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None::<ReadDir>.into_iter().flatten())
        }
        Err(source) => Err(io_error(directory, source)),
    }
}

/// The messages of a queue, in the order of their ids.
#[derive(Debug)]
pub struct Messages<'a> {
    queue: &'a Queue,
    window: vec::IntoIter<Place>,
    /// The id behind which the next window begins.
    last: Option<MessageId>,
    more: bool,
    total: u64,
}

impl Messages<'_> {
    /// How many there were when the walk began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Puts the next ids in order; says how many there are from there on.
    fn next_window(&mut self) -> Result<u64, QueueError> {
        let directories = self.queue.directories()?;
        // The largest one on top, to be thrown out by a smaller one.
        let mut smallest: BinaryHeap<(MessageId, usize)> = BinaryHeap::new();
        let mut seen = 0;
        for (number, (directory, _)) in directories.iter().enumerate() {
            for entry in entries(directory)? {
                let entry = entry.map_err(|source| io_error(directory, source))?;
                let Some(id) = id_of(&entry).filter(|id| self.last.is_none_or(|last| *id > last)) else { continue };
                seen += 1;
                if smallest.len() < WINDOW {
                    smallest.push((id, number));
                } else if let Some(mut largest) = smallest.peek_mut()
                    && id < largest.0
                {
                    *largest = (id, number);
                }
            }
        }
        self.more = seen > WINDOW as u64;
        let places = smallest.into_sorted_vec().into_iter().map(|(id, number)| {
            let (directory, queue) = &directories[number];
            Place { id, queue: queue.clone(), directory: Arc::clone(directory) }
        });
        self.window = places.collect::<Vec<_>>().into_iter();
        Ok(seen)
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<Place, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(place) = self.window.next() {
                self.last = Some(place.id);
                return Some(Ok(place));
            }
            if !self.more {
                return None;
            }
            if let Err(error) = self.next_window() {
                self.more = false;
                return Some(Err(error));
            }
        }
    }
}

fn id_of(entry: &DirEntry) -> Option<MessageId> {
    let name = entry.file_name();
    MessageId::new(name.to_str()?.strip_suffix("-H")?).ok()
}

impl Place {
    /// Whether it is still there.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn is_there(&self) -> Result<bool, QueueError> {
        match fs::lstat(self.file("-H")) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(io_error(&self.directory, error.into())),
        }
    }

    /// Reads its `-H` file, and the journal of those whom Exim has served since it wrote that; none if it has left the queue.
    /// `buffer` is only for not asking for memory again and again.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or makes no sense.
    pub fn read(&self, buffer: &mut Vec<u8>) -> Result<Option<Header>, QueueError> {
        let path = self.file("-H");
        if !read_whole(&path, buffer)? {
            return Ok(None);
        }
        let mut header = match Header::parse(buffer) {
            Ok(header) if header.id == self.id => header,
            Ok(_) => return Err(QueueError::NoFile { path, what: "it names another message" }),
            Err(source) => return Err(QueueError::Header { path, source }),
        };
        if read_whole(&self.file("-J"), buffer)? {
            let served: HashSet<&[u8]> = buffer.split(|byte| *byte == b'\n').collect();
            header.to_go.retain(|recipient| !served.contains(recipient.as_bytes()));
        }
        Ok(Some(header))
    }

    /// Bytes of its body; none if it has left the queue.
    ///
    /// # Errors
    ///
    /// The file cannot be looked at.
    pub fn body_size(&self) -> Result<Option<u64>, QueueError> {
        let path = self.file("-D");
        match fs::lstat(&path) {
            // In front of the body stands the name of the file, and the end of that line.
            Ok(file) => {
                Ok(Some(u64::try_from(file.st_size).unwrap_or(0).saturating_sub(self.id.as_str().len() as u64 + 3)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io_error(&path, error.into())),
        }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        let mut path = PathBuf::with_capacity(self.directory.as_os_str().len() + 32);
        path.push(&self.directory);
        path.push(self.id.as_str());
        path.as_mut_os_string().push(suffix);
        path
    }
}

/// Reads a regular file of a size that makes sense; false if there is none.
fn read_whole(path: &Path, buffer: &mut Vec<u8>) -> Result<bool, QueueError> {
    let no_file = |what| QueueError::NoFile { path: path.to_path_buf(), what };
    let failed = |error: Errno| io_error(path, error.into());
    buffer.clear();
    // A pipe of that name must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::LOOP) => return Err(no_file("it is a link")),
        Err(error) => return Err(failed(error)),
    };
    let status = fs::fstat(&file).map_err(failed)?;
    if !fs::FileType::from_raw_mode(status.st_mode).is_file() {
        return Err(no_file("it is no regular file"));
    }
    // One byte more than there should be, so that the end is seen without asking for more memory.
    buffer.reserve(usize::try_from(status.st_size).unwrap_or(usize::MAX).min(LARGEST) + 1);
    while buffer.len() <= LARGEST {
        if rustix::io::read(&file, rustix::buffer::spare_capacity(buffer)).map_err(failed)? == 0 {
            return Ok(true);
        }
        buffer.reserve(1);
    }
    Err(no_file("it is larger than 64 MiB"))
}

fn io_error(path: &Path, source: io::Error) -> QueueError {
    QueueError::Io { path: path.to_path_buf(), source }
}
