//! Who may do what on the administrators' side. The decision is pure; asking NSS for names and groups stands apart from it.

use crate::config::Access;
use nix::errno::Errno;
use nix::unistd::{Gid, Group, User, getgrouplist};
use outgoingd_client::protocol::message::Request;
use std::collections::HashSet;
use std::ffi::CString;

/// A peer, as the kernel's credentials (`SO_PEERCRED`) and NSS know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id.
    pub pid: u32,
    /// Login, or `uid 1234` where NSS knows none.
    pub name: String,
    /// Its group and the groups that NSS has it in.
    pub groups: HashSet<u32>,
}

/// The ids of those whom the configuration gives rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// User ids and group ids that may change and look.
    pub admins: (HashSet<u32>, HashSet<u32>),
    /// User ids and group ids that may look.
    pub readers: (HashSet<u32>, HashSet<u32>),
    /// Group ids that may look, record removals and forget passes.
    pub sweepers: HashSet<u32>,
    /// User ids that may present tokens.
    pub presenters: HashSet<u32>,
}

/// What a peer may do; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing on this side of the socket.
    Nothing,
    /// Present a token, and then do what that is good for.
    Present,
    /// Read what there is.
    Look,
    /// Record what was removed from Exim's queue, and forget passes.
    Sweep,
    /// Change it.
    Change,
}

/// What `peer` may do.
#[must_use]
pub fn right(peer: &Peer, rules: &Rules) -> Right {
    let among =
        |(users, groups): &(HashSet<u32>, HashSet<u32>)| users.contains(&peer.uid) || !groups.is_disjoint(&peer.groups);
    if peer.uid == 0 || among(&rules.admins) {
        Right::Change
    } else if !rules.sweepers.is_disjoint(&peer.groups) {
        Right::Sweep
    } else if among(&rules.readers) {
        Right::Look
    } else if rules.presenters.contains(&peer.uid) {
        Right::Present
    } else {
        Right::Nothing
    }
}

/// What `request` takes.
#[must_use]
pub fn needed(request: &Request) -> Right {
    match request {
        Request::Set { .. }
        | Request::Rehearse { .. }
        | Request::Clear { .. }
        | Request::Pass { .. }
        | Request::Import { .. }
        | Request::CreateToken { .. }
        | Request::RevokeToken { .. } => Right::Change,
        Request::Drop { .. } | Request::Forget { .. } => Right::Sweep,
        Request::Status { .. }
        | Request::List { .. }
        | Request::Log { .. }
        | Request::Stats
        | Request::Latencies
        | Request::Condition
        | Request::Settle
        | Request::Judge { .. }
        | Request::Passes { .. }
        | Request::Retention
        | Request::Watch { .. }
        | Request::Accounts { .. }
        | Request::Tokens => Right::Look,
        Request::Present { .. } => Right::Present,
    }
}

impl Peer {
    /// Asks NSS who has these ids. May wait for it.
    ///
    /// # Errors
    ///
    /// NSS failed.
    pub fn identify(uid: u32, gid: u32, pid: u32) -> nix::Result<Peer> {
        let Some(user) = User::from_uid(uid.into())? else {
            return Ok(Peer { uid, pid, name: format!("uid {uid}"), groups: [gid].into() });
        };
        let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
        let groups = getgrouplist(&name, gid.into())?.into_iter().map(Gid::as_raw).chain([gid]).collect();
        Ok(Peer { uid, pid, name: user.name, groups })
    }
}

impl Rules {
    /// Asks NSS for the ids behind the configured names. May wait for it. Says which names it does not know; they give
    /// nobody a right.
    ///
    /// # Errors
    ///
    /// NSS failed.
    pub fn resolve(access: &Access) -> nix::Result<(Rules, Vec<String>)> {
        let mut unknown = Vec::new();
        let user = |name: &str| Ok(User::from_name(name)?.map(|user| user.uid.as_raw()));
        let group = |name: &str| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()));
        let admins = (ids(&access.admin_users, &mut unknown, user)?, ids(&access.admin_groups, &mut unknown, group)?);
        let readers =
            (ids(&access.reader_users, &mut unknown, user)?, ids(&access.reader_groups, &mut unknown, group)?);
        // The packages make the one that is the default, and nobody has named that who has no packages.
        let by_default = access.sweep_groups == Access::default().sweep_groups;
        let to_tell = if by_default { &mut Vec::new() } else { &mut unknown };
        let sweepers = ids(&access.sweep_groups, to_tell, group)?;
        let presenters = ids(&access.token_users, &mut unknown, user)?;
        Ok((Rules { admins, readers, sweepers, presenters }, unknown))
    }
}

fn ids(
    names: &[String],
    unknown: &mut Vec<String>,
    id_of: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> nix::Result<HashSet<u32>> {
    let mut ids = HashSet::new();
    for name in names {
        match id_of(name)? {
            Some(id) => drop(ids.insert(id)),
            None => unknown.push(name.clone()),
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outgoingd_client::protocol::message::Kind;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer { uid, pid: 1, name: String::new(), groups: groups.iter().copied().collect() }
    }

    fn rules() -> Rules {
        let (admins, readers) = (([10].into(), [100].into()), ([20].into(), [200].into()));
        Rules { admins, readers, sweepers: [300].into(), presenters: [40].into() }
    }

    #[test]
    fn root_may_change_without_being_configured() {
        assert_eq!(right(&peer(0, &[]), &Rules::default()), Right::Change);
    }

    #[test]
    fn configured_users_and_groups_have_their_rights_and_others_have_none() {
        assert_eq!(right(&peer(10, &[]), &rules()), Right::Change);
        assert_eq!(right(&peer(11, &[7, 100]), &rules()), Right::Change);
        assert_eq!(right(&peer(20, &[]), &rules()), Right::Look);
        assert_eq!(right(&peer(21, &[200]), &rules()), Right::Look);
        assert_eq!(right(&peer(20, &[300]), &rules()), Right::Sweep);
        assert_eq!(right(&peer(30, &[400]), &rules()), Right::Nothing);
        assert_eq!(right(&peer(40, &[400]), &rules()), Right::Present);
        // A user id is no group id.
        assert_eq!(right(&peer(100, &[10]), &rules()), Right::Nothing);
        assert_eq!(right(&peer(300, &[]), &rules()), Right::Nothing);
    }

    #[test]
    fn whatever_changes_something_takes_the_right_to_change() {
        let subject = || "alice".to_owned();
        let set = Request::Set { kind: Kind::Hold, subject: subject(), until: None, reason: None, notice: None };
        let changes = [
            set,
            Request::Clear { kind: Kind::Hold, subject: subject() },
            Request::Pass { message_id: subject() },
            Request::Import { flags: vec![] },
            Request::CreateToken { name: subject(), functions: vec![], until: None },
            Request::RevokeToken { name: subject() },
        ];
        assert!(changes.iter().all(|request| needed(request) == Right::Change));
        let removals = [Request::Drop { dropped: vec![] }, Request::Forget { message_ids: vec![] }];
        assert!(removals.iter().all(|request| needed(request) == Right::Sweep));
        let looks = [
            Request::Status { subject: subject() },
            Request::List { kind: None, after: None },
            Request::Log { subject: None, before: None, limit: 1 },
            Request::Stats,
            Request::Latencies,
            Request::Condition,
            Request::Settle,
            Request::Judge { subjects: vec![], messages: vec![] },
            Request::Passes { after: None },
            Request::Retention,
            Request::Watch { subject: None, after: None },
            Request::Accounts { after: None },
            Request::Tokens,
        ];
        assert!(looks.iter().all(|request| needed(request) == Right::Look));
    }

    #[test]
    fn names_become_ids_and_unknown_ones_are_told() {
        let access = Access {
            admin_users: vec!["root".into(), "no-such-user".into()],
            reader_groups: vec!["root".into()],
            sweep_groups: vec!["root".into(), "no-such-group".into()],
            token_users: vec!["root".into(), "no-such-service".into()],
            ..Access::default()
        };
        let (rules, unknown) = Rules::resolve(&access).unwrap();
        let (admins, readers) = (([0].into(), [].into()), ([].into(), [0].into()));
        assert_eq!(rules, Rules { admins, readers, sweepers: [0].into(), presenters: [0].into() });
        assert_eq!(unknown, ["no-such-user", "no-such-group", "no-such-service"]);
        assert!(Peer::identify(0, 0, 1).unwrap().groups.contains(&0));
        assert_eq!(Peer::identify(0, 0, 1).unwrap().name, "root");
    }
}
