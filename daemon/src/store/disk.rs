//! Where the store's writes and syncs go: to the system, or, in a test, to a disk that fails.
//!
//! Both files go through redb's own trait for storage. Opening, renaming and the reading of a file that may be damaged are the
//! system's always.

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use std::fmt::Debug;
use std::fs::File;
use std::io;

/// What writes and syncs the store's files.
pub trait Disk: Debug + Send + Sync {
    /// Opens the database in `file`, or makes one if that is empty.
    ///
    /// # Errors
    ///
    /// redb's, or the disk's.
    fn database(&self, builder: &Builder, file: File) -> Result<Database, DatabaseError>;

    /// Takes the journal in `file`.
    ///
    /// # Errors
    ///
    /// The disk's.
    fn journal(&self, file: File) -> io::Result<Box<dyn StorageBackend>>;
}

/// The disk as the system has it.
#[derive(Clone, Copy, Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn database(&self, builder: &Builder, file: File) -> Result<Database, DatabaseError> {
        builder.create_file(file)
    }

    fn journal(&self, file: File) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }
}
