//! Client of outgoingd, the daemon that holds and suspends the outgoing mail of single senders on an Exim server.
//!
//! [`Client`] is blocking, keeps one connection to the daemon's Unix socket and has one method for each command of
//! `outgoingctl`. [`protocol`] is the language that both ends speak; the daemon imports it from here and nothing else. [`exim`]
//! reads Exim's queue and has Exim deliver and remove messages; [`held`] is that queue, seen with the daemon's verdicts.
//!
//! ```
//! use outgoingd_client::{Client, Terms};
//!
//! # use std::{io::{Read, Write}, os::unix::net::UnixListener, thread};
//! # use outgoingd_client::protocol::{codec, frame::{self, Header}, message::{Changed, Reply}};
//! # let directory = std::env::temp_dir().join(format!("outgoingd-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let socket = directory.join("s");
//! # let _ = std::fs::remove_file(&socket);
//! # let listener = UnixListener::bind(&socket)?;
//! # let daemon = thread::spawn(move || {
//! #     let (mut stream, _) = listener.accept().unwrap();
//! #     let mut header = [0; frame::HEADER_LEN];
//! #     stream.read_exact(&mut header).unwrap();
//! #     let mut payload = vec![0; Header::decode(&header).unwrap().length as usize];
//! #     stream.read_exact(&mut payload).unwrap();
//! #     let done = Reply::Changed(Changed { subject: "alice".into(), changed: true, warning: None });
//! #     stream.write_all(&frame::seal(&codec::encode(&done).unwrap()).unwrap()).unwrap();
//! # });
//! let mut client = Client::new(&socket);
//! let terms = Terms { reason: Some("phished".into()), ..Terms::default() };
//! let outcome = client.hold("alice", &terms)?;
//! assert!(outcome.changed, "alice was not held before");
//! # daemon.join().unwrap();
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod protocol;

pub mod exim;

pub mod held;

#[doc(hidden)]
pub mod fuzzing;

mod client;

pub use client::{Client, Error, TIMEOUT, Terms, connect_within};
