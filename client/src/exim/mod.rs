//! Exim, as an administrator's program meets it: where it keeps its queue, what is on it, and having it deliver or remove a
//! message.
//!
//! Exim is asked and told by its own command, never by writing into its files. Who may do that is Exim's to say: root, its own
//! user, and its admin groups (Exim's specification, "Privileged users").

mod command;
mod configuration;
mod domains;
mod header;
mod id;
mod queue;
mod trial;

pub use command::{Exim, EximError, Manner, Outcome, Removed};
pub use configuration::Configuration;
pub use domains::Domains;
pub use header::{Header, HeaderError};
pub use id::{MessageId, NoMessageId};
pub(crate) use queue::as_routed;
pub use queue::{Messages, Place, PutOff, Queue, QueueError, QueueName};
pub use trial::{Caller, Session, Trial, statements};
