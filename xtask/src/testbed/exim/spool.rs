//! Messages put straight into the spool, thousands a second, in files such as Exim itself writes.
//!
//! Nothing is logged and no log of the message is begun, which Exim does not miss. The data file comes first and the header file
//! last, as Exim does it: a message that is listed is whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};

use super::Exim;
use super::queued::{Queued, message_id, split_directory};

/// In the place of a process's number in the names of messages: more than any process has.
static NEXT: AtomicU64 = AtomicU64::new(62 * 62 * 62 * 62);

/// Threads that fill a queue: what takes time is making the files.
const THREADS: usize = 4;

/// Exim's spool, as its configuration has it.
struct Spool {
    directory: PathBuf,
    split: bool,
    /// Exim's user and its group.
    owner: (u32, u32),
    now: u64,
}

impl Exim {
    /// Puts a message on the queue; returns its name.
    pub fn enqueue(&self, message: &Queued) -> Result<String> {
        self.open_spool()?.put(message)
    }

    /// Puts so many messages on the queue, each made from its number; returns their names in that order.
    pub fn fill_queue(&self, count: usize, message: impl Fn(usize) -> Queued + Sync) -> Result<Vec<String>> {
        let (spool, numbers) = (self.open_spool()?, (0..count).collect::<Vec<_>>());
        let share = count.div_ceil(THREADS).max(1);
        let put = |numbers: &[usize]| numbers.iter().map(|number| spool.put(&message(*number))).collect();
        thread::scope(|scope| {
            let threads: Vec<_> = numbers.chunks(share).map(|numbers| scope.spawn(|| put(numbers))).collect();
            let shares: Vec<Result<Vec<String>>> = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread that fills the queue panicked"))?)
                .collect();
            Ok(shares.into_iter().collect::<Result<Vec<_>>>()?.concat())
        })
    }

    fn open_spool(&self) -> Result<Spool> {
        let directory = self.spool();
        let metadata = fs::metadata(&directory)?;
        let option = self.exim(&["-bP", "split_spool_directory"])?;
        ensure!(option.status.success(), "Exim does not say whether its spool is split: {option:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_secs();
        let split = option.stdout.trim() == "split_spool_directory";
        Ok(Spool { directory, split, owner: (metadata.uid(), metadata.gid()), now })
    }
}

impl Spool {
    fn put(&self, message: &Queued) -> Result<String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let arrival = message.arrival(self.now, number % 1_000 * 1_000);
        let id = message_id(arrival, number);
        let directory = self.input(message.queue(), &id);
        if !directory.exists() {
            self.make(&directory)?;
        }
        self.write(&directory.join(format!("{id}-D")), &message.data_file(&id))?;
        if let Some(journal) = message.journal_file() {
            self.write(&directory.join(format!("{id}-J")), &journal)?;
        }
        self.write(&directory.join(format!("{id}-H")), &message.header_file(&id, arrival, self.now))?;
        Ok(id)
    }

    fn input(&self, queue: &str, id: &str) -> PathBuf {
        // Joined with nothing, a path ends with a slash, which does no harm.
        let input = self.directory.join(queue).join("input");
        if self.split { input.join(split_directory(id)) } else { input }
    }

    fn make(&self, directory: &Path) -> Result<()> {
        let Ok(below) = directory.strip_prefix(&self.directory) else { return Ok(()) };
        let mut path = self.directory.clone();
        for part in below {
            path.push(part);
            match DirBuilder::new().mode(0o750).create(&path) {
                Ok(()) => chown(&path, Some(self.owner.0), Some(self.owner.1))?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("could not make {}", path.display())),
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
        let mut file = file.with_context(|| format!("could not make {}", path.display()))?;
        file.write_all(text.as_bytes())?;
        Ok(fchown(&file, Some(self.owner.0), Some(self.owner.1))?)
    }
}
