//! The configuration of the test bed's Exim, and the builder that varies it.
//!
//! It is the smallest one that has every place in which the project's snippets are included, in the order in which an
//! administrator includes them. What a test adds goes after the snippet of the same place, and before the bed's own lines.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{EXIM_USER, Exim};
use crate::testbed::LOCAL_DOMAIN;
use crate::testbed::outside::Outside;

/// Retry rules of seconds: what takes days on a server shows in half a minute.
pub const RETRY_FOR_SECONDS: &str = "* * F,20s,2s";

/// Retry rules that every message has outlived, even one that is a moment old.
pub const RETRY_NEVER: &str = "* * F,1s,1s";

/// The retry rules that Debian ships.
pub const RETRY_AS_ON_DEBIAN: &str = "* * F,2h,15m; G,16h,1h,1.5; F,4d,6h";

/// The project's snippets, and the values of the macros that a site sets for them.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The directory of the snippets.
    pub snippets: PathBuf,
    /// `OUTGOINGD_SOCKET`
    pub socket: PathBuf,
    /// `OUTGOINGD_FALLBACK`
    pub fallback: PathBuf,
    /// `OUTGOINGD_TIMEOUT`
    pub timeout: String,
}

impl Policy {
    /// The snippets of this source tree.
    #[must_use]
    pub fn new(socket: &Path, fallback: &Path) -> Self {
        Self {
            snippets: Path::new(env!("CARGO_MANIFEST_DIR")).join("../exim-snippets"),
            socket: socket.to_owned(),
            fallback: fallback.to_owned(),
            timeout: "2s".to_owned(),
        }
    }

    /// The same with another time-out, such as `1s`; Exim counts whole seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: &str) -> Self {
        timeout.clone_into(&mut self.timeout);
        self
    }
}

/// What a test wants of its Exim; see [`Exim::builder`].
#[derive(Clone, Debug, Default)]
pub struct EximBuilder {
    policy: Option<Policy>,
    outside: Option<SocketAddr>,
    reuse_connections: bool,
    starttls: bool,
    macros: String,
    main: String,
    routers: String,
    retry: Option<String>,
}

impl EximBuilder {
    /// Includes the project's snippets. Without this, Exim holds and suspends nobody.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sends all mail for other domains to this server. Without this, they refuse connections.
    #[must_use]
    pub fn outside(mut self, outside: &Outside) -> Self {
        self.outside = Some(outside.address());
        self
    }

    /// Lets one connection carry several messages, as servers do.
    ///
    /// The following ones are delivered by processes of their own, for which queue runs wait, and other deliveries do not.
    #[must_use]
    pub fn reuse_connections(mut self) -> Self {
        self.reuse_connections = true;
        self
    }

    /// Offers STARTTLS, with a certificate that Exim makes itself.
    #[must_use]
    pub fn starttls(mut self) -> Self {
        self.starttls = true;
        self
    }

    /// Macros of the snippets that a site sets, before they are included.
    #[must_use]
    pub fn macros(mut self, lines: &str) -> Self {
        add(&mut self.macros, lines);
        self
    }

    /// More main options.
    #[must_use]
    pub fn main(mut self, lines: &str) -> Self {
        add(&mut self.main, lines);
        self
    }

    /// More routers, before the bed's own.
    #[must_use]
    pub fn routers(mut self, lines: &str) -> Self {
        add(&mut self.routers, lines);
        self
    }

    /// Other retry rules than [`RETRY_FOR_SECONDS`].
    #[must_use]
    pub fn retry(mut self, rules: &str) -> Self {
        self.retry = Some(rules.to_owned());
        self
    }

    /// Starts the Exim.
    pub fn start(&self) -> Result<Exim> {
        Exim::start(self)
    }

    /// The text of the configuration for an Exim that lives in `home`.
    #[must_use]
    pub(super) fn text(&self, home: &Path) -> String {
        let mut text = self.macro_section();
        text += &self.main_section(home);
        text += &self.acl_section();
        text += &self.router_section();
        text += &self.transport_section(home);
        text += &self.retry_section();
        text += "begin authenticators\n\
                 plain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n  \
                 server_condition = yes\n  server_set_id = $auth2\n";
        text
    }

    fn macro_section(&self) -> String {
        let mut text = String::new();
        if let Some(policy) = &self.policy {
            text = format!(
                "OUTGOINGD_SOCKET = {}\nOUTGOINGD_FALLBACK = {}\nOUTGOINGD_TIMEOUT = {}\n",
                policy.socket.display(),
                policy.fallback.display(),
                policy.timeout
            );
        }
        text + &self.macros + &self.snippet("macros")
    }

    fn main_section(&self, home: &Path) -> String {
        let home = home.display();
        let tls_hosts = if self.starttls { "*" } else { "" };
        let text = format!(
            "primary_hostname = bed.test\n\
             qualify_domain = {LOCAL_DOMAIN}\n\
             domainlist local_domains = {LOCAL_DOMAIN}\n\
             spool_directory = {home}/spool\n\
             log_file_path = {home}/log/%slog\n\
             acl_smtp_mail = acl_check_mail\n\
             acl_smtp_rcpt = acl_check_rcpt\n\
             acl_not_smtp = acl_check_not_smtp\n\
             keep_environment =\n\
             tls_advertise_hosts = {tls_hosts}\n\
             untrusted_set_sender = *\n\
             local_from_check = false\n\
             queue_only\n"
        );
        text + &self.snippet("main") + &self.main
    }

    fn acl_section(&self) -> String {
        format!(
            "begin acl\n\
             acl_check_mail:\n{}  accept\n\
             acl_check_rcpt:\n{}  accept authenticated = *\n  accept hosts = :\n  accept domains = +local_domains\n  \
             deny message = relay not permitted\n\
             acl_check_not_smtp:\n{}  accept\n",
            self.snippet("acl-mail"),
            self.snippet("acl-rcpt"),
            self.snippet("acl-not-smtp"),
        )
    }

    fn router_section(&self) -> String {
        let refusing = SocketAddr::from(([127, 0, 0, 1], 1));
        let outside = self.outside.unwrap_or(refusing);
        format!(
            "begin routers\n{}{}\
             outside:\n  driver = manualroute\n  domains = !+local_domains\n  \
             route_list = * {}::{} byname\n  self = send\n  transport = smtp\n  no_more\n\
             local:\n  driver = accept\n  transport = mailbox\n",
            self.snippet("routers"),
            self.routers,
            outside.ip(),
            outside.port(),
        )
    }

    fn transport_section(&self, home: &Path) -> String {
        let home = home.display();
        let messages = if self.reuse_connections { 100 } else { 1 };
        format!(
            "begin transports\n\
             smtp:\n  driver = smtp\n  allow_localhost\n  connection_max_messages = {messages}\n\
             mailbox:\n  driver = appendfile\n  directory = {home}/mail\n  maildir_format\n  \
             envelope_to_add\n  return_path_add\n  user = {EXIM_USER}\n"
        )
    }

    fn retry_section(&self) -> String {
        let rules = self.retry.as_deref().unwrap_or(RETRY_FOR_SECONDS);
        format!("begin retry\n{}{rules}\n", self.snippet("retry"))
    }

    fn snippet(&self, name: &str) -> String {
        let file = self.policy.as_ref().map(|policy| policy.snippets.join(name));
        file.map_or_else(String::new, |file| format!(".include {}\n", file.display()))
    }
}

fn add(text: &mut String, lines: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{lines}");
}
