//! outgoingd: holds and suspends the outgoing mail of single senders on an Exim server.
//!
//! This library is the daemon's inside, laid open for its tests and benchmarks; it promises nothing to other programs,
//! which use `outgoingd-client`. The modules stand in the order in which one would read them: the words, the pure core,
//! the way of a lookup, the way of a change, and what is around them. ARCHITECTURE.md walks through.

// The words.
pub mod flag;
pub mod name;

// The pure core, and the state that lookups see.
pub mod answer;
pub mod audit;
pub mod authorise;
pub mod change;
pub mod table;
pub mod token;

// The way of a lookup.
pub mod connections;
pub mod lookup;
pub mod slow;

// The way of a change.
pub mod fallback;
pub mod follow;
pub mod held;
pub mod keeper;
pub mod requests;
pub mod session;
pub mod store;
pub mod tokens;
pub mod wire;
pub mod writer;

// Around them.
pub mod arguments;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod directory;
pub mod lock;
pub mod reload;
pub mod safe;
pub mod socket;
pub mod stats;
pub mod stop;
pub mod watch;
pub mod watchdog;

// For tests alone.
#[doc(hidden)]
pub mod fuzzing;
