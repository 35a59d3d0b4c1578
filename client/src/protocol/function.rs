//! The functions of WHM API 1 and UAPI that can be called by token, by the names that cPanel gave them.
//!
//! A function is also what a token can be limited to, so that both ends must know them: the daemon sees to it that a token does
//! no more than its functions take, whoever presents it.

/// Those of WHM API 1.
pub const WHM: [&str; 9] = [
    "hold_outgoing_email",
    "release_outgoing_email",
    "suspend_outgoing_email",
    "unsuspend_outgoing_email",
    "accountsummary",
    "listaccts",
    "applist",
    "create_user_session",
    "version",
];

/// Those of UAPI's module Email. No name is in both lists.
pub const EMAIL: [&str; 6] = [
    "hold_outgoing",
    "release_outgoing",
    "suspend_outgoing",
    "unsuspend_outgoing",
    "get_held_message_count",
    "delete_held_messages",
];

/// All of them, in the order of the two lists.
pub fn all() -> impl Iterator<Item = &'static str> {
    WHM.into_iter().chain(EMAIL)
}
