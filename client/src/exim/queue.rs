//! Exim's queue, read where Exim keeps it: every `-H` file below the spool directory, split directories and named queues
//! included, in the order of arrival.
//!
//! The queue changes while it is read. A message that comes in may be seen or not; one that leaves before it is opened is as if
//! it had never been there; one that Exim works on is read as it was before or is afterwards, since Exim replaces `-H` files and
//! never writes into them. Nothing is locked, and nothing is changed.
//!
//! Memory does not grow with the queue: ids are put in order a window at a time, and the directories are read once more for each
//! window. Links in the place of files, links to directories that root has not made, and what is no regular file are passed over: the
//! directories are Exim's user's, and the reader may be root.

use super::header::{Header, HeaderError};
use super::id::MessageId;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::fs::{DirEntry, File, ReadDir, read_dir};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

/// Ids that are put in order at a time: some 2 MiB with what belongs to them.
const WINDOW: usize = 1 << 15;

/// No `-H` file is larger: half a million recipients have room.
const LARGEST: usize = 32 << 20;

/// How a file is opened: not through a link, and a pipe of that name must not make us wait.
const READING: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The directory in which messages are.
const INPUT: &str = "input";

/// What a file system of its own has in its root, for root alone.
const LOST: &str = "lost+found";

/// The directory in which the logs of messages are, beside that.
const LOGS: &str = "msglog";

/// So many of the addresses to which a message's recipients have led are told: enough to see that it waits, and for whom.
const MOST_LED_TO: usize = 100;

/// So much of a message's log is read.
const LONGEST_LOG: u64 = 1 << 20;

/// The position in an id of what names the directory of a split queue (`split_spool_directory`): the last of the time.
const SPLIT_BY: usize = 5;

/// Exim's queue.
#[derive(Clone, Debug)]
pub struct Queue {
    spool: PathBuf,
}

/// The name of a named queue; none: the one without a name.
pub type QueueName = Option<Arc<str>>;

/// An address to which a recipient has led, by an alias or a list, and that Exim has put off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// It.
    pub address: String,
    /// The recipient, its domain in lower case.
    pub of: String,
}

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

    /// The spool directory.
    #[must_use]
    pub fn spool(&self) -> &Path {
        &self.spool
    }

    /// Whether whoever runs us can read what is on it: every directory, and one message.
    ///
    /// # Errors
    ///
    /// Something cannot be read.
    pub fn must_be_readable(&self) -> Result<(), QueueError> {
        let mut read = false;
        for (directory, queue) in self.directories()? {
            let mut entries = entries(&directory)?;
            if read {
                continue;
            }
            if let Some(id) = entries.find_map(|entry| id_of(&entry.ok()?)) {
                read = true;
                let place = Place { id, queue, directory };
                // One that is no message, or makes no sense, is another matter.
                match place.read(&mut Vec::new()) {
                    Err(QueueError::Io { path, source }) if source.kind() == ErrorKind::PermissionDenied => {
                        return Err(QueueError::Io { path, source });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Every message, the oldest first.
    ///
    /// # Errors
    ///
    /// A directory cannot be read. The iterator has such an error as an item, too, and ends behind it.
    pub fn messages(&self) -> Result<Messages<'_>, QueueError> {
        self.messages_by(WINDOW)
    }

    fn messages_by(&self, size: usize) -> Result<Messages<'_>, QueueError> {
        let window = Vec::new().into_iter();
        let mut messages = Messages { queue: self, size, window, last: None, more: true, total: 0 };
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
                if !is_directory(&directory) {
                    continue;
                }
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
        // A spool directory that is not there is not an empty queue.
        for entry in read_dir(&self.spool).map_err(|source| io_error(&self.spool, source))? {
            let entry = entry.map_err(|source| io_error(&self.spool, source))?;
            // Anything else that is a directory has no such directory in it.
            if !is_directory(&entry.path()) {
                continue;
            }
            if let Some(name) = entry.file_name().to_str().filter(|name| ![INPUT, LOST].contains(name)) {
                inputs.push((entry.path().join(INPUT), Some(name.into())));
            }
        }
        // What is below one that is a link would not look like it.
        inputs.retain(|(input, _)| is_directory(input));
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

/// Whether it is a directory, or a link to one that root has made: others' links could lead anywhere.
fn is_directory(path: &Path) -> bool {
    let Ok(status) = fs::lstat(path) else { return false };
    match fs::FileType::from_raw_mode(status.st_mode) {
        fs::FileType::Directory => true,
        fs::FileType::Symlink => status.st_uid == 0,
        _ => false,
    }
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> Result<impl Iterator<Item = io::Result<DirEntry>> + use<>, QueueError> {
    if !is_directory(directory) {
        return Ok(None::<ReadDir>.into_iter().flatten());
    }
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
    /// Ids in a window.
    size: usize,
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
                if smallest.len() < self.size {
                    smallest.push((id, number));
                } else if let Some(mut largest) = smallest.peek_mut()
                    && id < largest.0
                {
                    *largest = (id, number);
                }
            }
        }
        self.more = seen > self.size as u64;
        let mut smallest = smallest.into_sorted_vec();
        // One that moves while the directories are read is seen in two of them.
        smallest.dedup_by_key(|(id, _)| *id);
        let places = smallest.into_iter().map(|(id, number)| {
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
            header.to_go.retain(|recipient| {
                !served.contains(recipient.as_bytes()) && !served.contains(as_routed(recipient).as_bytes())
            });
        }
        Ok(Some(header))
    }

    /// The addresses to which its recipients have led, by aliases and lists, and that Exim has put off: they stand in the message's
    /// log, and nowhere else. None where Exim keeps no such logs (`message_logs`), or this one cannot be read.
    #[must_use]
    pub fn put_off(&self) -> Vec<PutOff> {
        put_off_in(&self.log())
    }

    /// Whether Exim has kept all of these addresses back since they are held, and has said so in the message's log. It says what
    /// root sees, whoever asks now. No where there is no such log, or nothing was tried yet.
    #[must_use]
    pub fn has_kept_back(&self, addresses: &[String]) -> bool {
        let log = self.log();
        let kept_back = kept_back_in(&log);
        addresses.iter().all(|address| kept_back.contains(&*as_routed(address)))
    }

    /// What could be read of the message's log.
    fn log(&self) -> String {
        let split = self.directory.file_name().filter(|name| *name != INPUT);
        let input = if split.is_some() { self.directory.parent().unwrap_or(&self.directory) } else { &self.directory };
        // Beside the directory of the messages, and split as that is.
        let mut directory = input.with_file_name(LOGS);
        directory.extend(split);
        let mut text = Vec::new();
        if let Some(log) = open_log(&directory, self.id) {
            // What could be read of it counts.
            let _ = log.take(LONGEST_LOG).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
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

/// A message's log, if there is one that is a file.
fn open_log(directory: &Path, id: MessageId) -> Option<File> {
    let path = Some(directory).filter(|directory| is_directory(directory))?.join(id.as_str());
    let file = File::from(fs::open(&path, READING, Mode::empty()).ok()?);
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

/// What a message's log says of addresses: each with what came of it, and why. Its lines have no marks, unlike those of the main log:
/// date, time, address, the one of which it came in angle brackets, and what came of it.
fn fates(log: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    log.lines().filter_map(|line| {
        let (_, entry) = line.split_once(' ').and_then(|(_, line)| line.split_once(' '))?;
        // A site may have the time zone behind the time (`log_timezone`).
        let entry = match entry.split_once(' ') {
            Some((zone, entry)) if zone.len() == 5 && zone.starts_with(['+', '-']) => entry,
            _ => entry,
        };
        let (about, why) = entry.split_once(": ").unwrap_or((entry, ""));
        let (address, outcome) = about.split_once(' ')?;
        Some((address, outcome, why))
    })
}

/// A number stands behind the word, up to Exim 4.99.
fn is_put_off(outcome: &str) -> bool {
    outcome.split(' ').any(|word| word == "defer")
}

/// The addresses that were held, by `hold_domains` or by the router of that name.
fn kept_back_in(log: &str) -> BTreeSet<&str> {
    let is_held = |outcome: &str, why| why == "domain is held" || outcome.split(' ').any(|word| word == "R=outgoingd");
    let held = fates(log).filter(|(_, outcome, why)| is_put_off(outcome) && is_held(outcome, *why));
    held.map(|(address, ..)| address).collect()
}

/// The addresses to which others have led, and that wait.
fn put_off_in(log: &str) -> Vec<PutOff> {
    let (mut put_off, mut done) = (BTreeMap::new(), BTreeSet::new());
    for (address, outcome, _) in fates(log) {
        // Not a pipe, a file or an automatic answer.
        let sent = address.contains('@') && !address.starts_with(['|', '/', '>']);
        // With `+all_parents`, those in between stand in front of it.
        if !sent || !outcome.starts_with(['<', '(']) {
            continue;
        }
        // Exim says so again of one that it has served already.
        if is_put_off(outcome) {
            // With `+all_parents`, the one that the message is for stands last.
            let of = outcome.split(['<', '>']).nth(1).unwrap_or_default();
            put_off.insert(address, of);
        } else {
            done.insert(address);
        }
    }
    let waiting = put_off.into_iter().filter(|(address, _)| !done.contains(address)).take(MOST_LED_TO);
    waiting.map(|(address, of)| PutOff { address: address.to_owned(), of: as_routed(of) }).collect()
}

/// The recipient as Exim names it once it has routed it, and in the journal only so: its domain in lower case.
pub(crate) fn as_routed(recipient: &str) -> String {
    match recipient.rsplit_once('@') {
        Some((local_part, domain)) => format!("{local_part}@{}", domain.to_ascii_lowercase()),
        None => recipient.to_owned(),
    }
}

/// Reads a regular file of a size that makes sense; false if there is none.
fn read_whole(path: &Path, buffer: &mut Vec<u8>) -> Result<bool, QueueError> {
    let no_file = |what| QueueError::NoFile { path: path.to_path_buf(), what };
    let failed = |error: Errno| io_error(path, error.into());
    buffer.clear();
    let file = match fs::open(path, READING, Mode::empty()) {
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
    Err(no_file("it is larger than 32 MiB"))
}

fn io_error(path: &Path, source: io::Error) -> QueueError {
    QueueError::Io { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, remove_file, rename, write};
    use tempfile::TempDir;

    /// A spool in which a message is no more than a file's name.
    struct Spool {
        home: TempDir,
        queue: Queue,
    }

    impl Spool {
        fn new() -> Spool {
            let home = tempfile::tempdir().unwrap();
            let queue = Queue::new(home.path());
            Spool { home, queue }
        }

        /// With so many messages, of which every directory that there can be has some.
        fn with(count: usize) -> Spool {
            let spool = Spool::new();
            for number in 0..count {
                spool.put(number, directory(number));
            }
            spool
        }

        fn path(&self, number: usize, directory: &str) -> PathBuf {
            self.home.path().join(directory).join(id(number) + "-H")
        }

        fn put(&self, number: usize, directory: &str) {
            let path = self.path(number, directory);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, "").unwrap();
        }

        fn remove(&self, number: usize) {
            remove_file(self.path(number, directory(number))).unwrap();
        }

        /// What a walk sees, with something done behind each message.
        fn seen(&self, window: usize, mut behind: impl FnMut(&str)) -> Vec<String> {
            let messages = self.queue.messages_by(window).unwrap();
            let ids = messages.map(|place| place.unwrap().id.to_string());
            ids.inspect(|id| behind(id)).collect()
        }
    }

    fn id(number: usize) -> String {
        format!("1rABC{}-{number:06}-XY", number % 10)
    }

    fn directory(number: usize) -> &'static str {
        ["input", "input/0", "input/z", "slow/input", "slow/input/a", "Fast/input/7"][number * 7 % 6]
    }

    /// In the order of arrival.
    fn ids(numbers: impl Iterator<Item = usize>) -> Vec<String> {
        let mut ids: Vec<String> = numbers.map(id).collect();
        ids.sort();
        ids
    }

    #[test]
    fn every_message_comes_once_in_the_order_of_arrival_however_many_windows_it_takes() {
        let spool = Spool::with(100);
        for window in [1, 2, 7, 25, 50, 99, 100, 101] {
            assert_eq!(spool.seen(window, |_| {}), ids(0..100), "{window}");
        }
        assert_eq!(spool.queue.messages_by(7).unwrap().total(), 100);
        assert_eq!(Spool::new().seen(7, |_| {}), [""; 0], "no queue at all");
    }

    #[test]
    fn a_message_says_on_which_queue_it_is_and_is_found_there() {
        let spool = Spool::with(6);
        for place in spool.queue.messages().unwrap() {
            let place = place.unwrap();
            let number: usize = place.id.as_str()[7..13].parse().unwrap();
            let queue = directory(number).split('/').next().filter(|name| *name != INPUT);
            assert_eq!(place.queue.as_deref(), queue, "{number}");
            assert!(place.is_there().unwrap());
        }
        // As Exim splits a queue: by the last digit of the time.
        for (number, directory, queue) in [(11, "input/1", None), (12, "slow/input/2", Some("slow"))] {
            spool.put(number, directory);
            let found = spool.queue.find(MessageId::new(&id(number)).unwrap()).unwrap().unwrap();
            assert_eq!((found.queue.as_deref(), found.is_there().unwrap()), (queue, true));
        }
        assert!(spool.queue.find(MessageId::new(&id(99)).unwrap()).unwrap().is_none());
    }

    #[test]
    fn what_has_no_name_of_a_message_is_none() {
        let spool = Spool::with(3);
        for name in ["1rABC0-000000-XY-D", "1rABC0-000000-XY-J", "hdr.1rABC0-000000-XY", "-H", "1rABC0-0000-XY-H", "x"]
        {
            write(spool.home.path().join("input").join(name), "").unwrap();
        }
        write(spool.home.path().join("exim-process.info"), "").unwrap();
        assert_eq!(spool.seen(2, |_| {}), ids(0..3));
    }

    #[test]
    fn of_a_message_s_log_what_came_of_an_address_in_the_end_counts() {
        let log = "2026-11-21 14:07:10 Received from alice@local.test U=root P=local S=326\n\
            2026-11-21 14:07:10 a@out.test <list@local.test> defer (-23): domain is held\n\
            2026-11-21 14:07:10 b@out.test <list@local.test> R=r T=smtp defer (-44) H=out.test [::1]: 450 not now\n\
            2026-11-21 14:07:10.123 +0000 c@out.test <list@local.test> defer (-23): domain is held\n\
            2026-11-21 14:07:10 d@out.test <list@local.test> defer (-23): domain is held\n\
            2026-11-21 14:07:10 e@out.test <list@local.test> defer: domain is held\n\
            2026-11-21 14:07:10 f@out.test <list@local.test> R=r T=smtp defer H=out.test [::1]: 450 not now\n\
            2026-11-21 14:07:10 bob@local.test defer (-1): not now\n\
            2026-11-21 14:07:10 |/bin/x@y <bob@local.test> T=pipe defer (0): Child process returned 75\n\
            2026-11-21 14:07:11 a@out.test <list@local.test>: smtp transport succeeded\n\
            2026-11-21 14:07:11 d@out.test <list@local.test> R=r T=smtp: 550 no one here < defer (1): x\n\
            2026-11-21 14:07:11 g@out.test <list@local.test> R=defer T=smtp: no: defer: x\n\
            2026-11-21 14:07:11 list@local.test: children all complete\n\ncut o";
        let put_off = put_off_in(log);
        assert!(put_off.iter().map(|put_off| &*put_off.address).eq([
            "b@out.test",
            "c@out.test",
            "e@out.test",
            "f@out.test"
        ]));
        assert!(put_off.iter().all(|put_off| put_off.of == "list@local.test"));
        let parents = "2026-11-21 14:07:10 a@out.test (b@local.test) <List@Local.test> defer (-23): domain is held\n";
        assert_eq!(put_off_in(parents)[0].of, "List@local.test");
        assert!(kept_back_in(log).into_iter().eq(["a@out.test", "c@out.test", "d@out.test", "e@out.test"]));
    }

    #[test]
    fn what_was_held_in_an_ordinary_attempt_and_in_a_forced_one_was_kept_back_and_nothing_else() {
        let log = "2026-11-21 14:07:10 Received from alice@local.test U=root P=local S=326\n\
            2026-11-21 14:07:10 a@out.test defer (-23): domain is held\n\
            2026-11-21 14:07:10 b@out.test R=outgoingd defer (-1): outgoing mail of this sender is held\n\
            2026-11-21 14:07:10 c@out.test R=outgoingd defer: failed to expand\n\
            2026-11-21 14:07:10 d@out.test defer (-35): hold_domains lookup deferred\n\
            2026-11-21 14:07:10 e@out.test R=local T=box defer (-22): domain is held up\n\
            2026-11-21 14:07:10 f@out.test R=outgoingd: 550 no\n\
            2026-11-21 14:07:10 g@out.test def";
        assert!(kept_back_in(log).into_iter().eq(["a@out.test", "b@out.test", "c@out.test"]));
    }

    #[test]
    fn plain_files_in_the_spool_directory_are_no_queues() {
        let spool = Spool::with(6);
        let queues = spool.queue.inputs().unwrap().len();
        for number in 0..3_000 {
            write(spool.home.path().join(format!("file{number}")), "").unwrap();
        }
        assert_eq!(spool.queue.inputs().unwrap().len(), queues);
        assert_eq!(spool.seen(2, |_| {}), ids(0..6));
    }

    #[test]
    fn messages_that_leave_while_the_walk_goes_on_neither_break_nor_hide_the_others() {
        let order = ids(0..60);
        for window in [1, 7, 59, 60] {
            let spool = Spool::with(60);
            let number = |id: &str| id[7..13].parse::<usize>().unwrap();
            // Every second one goes: the one just seen, and another one far behind it.
            let mut gone = Vec::new();
            let seen = spool.seen(window, |id| {
                let at = order.iter().position(|other| other == id).unwrap();
                for leaving in [at, at + 31] {
                    if leaving % 2 == 1 && leaving < 60 && !gone.contains(&leaving) {
                        spool.remove(number(&order[leaving]));
                        gone.push(leaving);
                    }
                }
            });
            assert!(seen.is_sorted_by(|one, next| one < next), "{window}: {seen:?}");
            for id in order.iter().step_by(2) {
                assert!(seen.contains(id), "{window}: {id} in {seen:?}");
            }
        }
    }

    #[test]
    fn messages_that_come_in_while_the_walk_goes_on_neither_break_nor_hide_the_others() {
        for window in [1, 7, 59, 60] {
            let spool = Spool::with(60);
            let mut next = 60;
            let seen = spool.seen(window, |_| {
                if next < 120 {
                    spool.put(next, directory(next));
                    next += 1;
                }
            });
            assert!(seen.is_sorted_by(|one, next| one < next), "{window}: {seen:?}");
            for id in ids(0..60) {
                assert!(seen.contains(&id), "{window}: {id} in {seen:?}");
            }
        }
    }

    #[test]
    fn a_message_that_changes_its_directory_while_the_walk_goes_on_comes_once() {
        for window in [1, 7, 59, 60] {
            let spool = Spool::with(60);
            // A directory that is read behind or before the one in which it was.
            let mut moved = 0;
            let seen = spool.seen(window, |_| {
                for number in [moved, 59 - moved] {
                    let to = ["input", "input/k"][moved % 2];
                    create_dir_all(spool.home.path().join(to)).unwrap();
                    let _ = rename(spool.path(number, directory(number)), spool.path(number, to));
                }
                moved += 1;
            });
            assert_eq!(seen, ids(0..60), "{window}");
        }
    }

    /// As between the two halves of a move, or when the directories are read while it happens.
    #[test]
    fn a_message_that_is_in_two_directories_comes_once() {
        for window in [1, 2, 7, 59, 60, 100] {
            let spool = Spool::with(60);
            for number in (0..60).step_by(3) {
                spool.put(number, "other/input");
            }
            assert_eq!(spool.seen(window, |_| {}), ids(0..60), "{window}");
        }
    }
}
