//! The second domain: current Consul, as Portolan, keeps to the domain that was asked, and 1.8.7 tells
//! everything in the first. So that nothing else hides behind that, replies to names of the second are
//! moved to the first before they are compared.

use crate::{
    support::wire::{
        Reply,
        rtype::{CNAME, SRV},
    },
    world::ALT_DOMAIN,
};

fn is_second(name: &str) -> bool {
    name.trim_end_matches('.')
        .to_lowercase()
        .ends_with(ALT_DOMAIN)
}

/// The names of a text that are in the second domain, in the first.
pub(crate) fn text_in_the_first(text: &str) -> String {
    let domain = format!("{ALT_DOMAIN}.");
    let moved = |word: &str| {
        let at = word.len().checked_sub(domain.len());
        match at.and_then(|at| word.get(..at)) {
            Some(front) if is_second(word) => format!("{front}consul."),
            _ => word.to_owned(),
        }
    };
    text.split(' ').map(moved).collect::<Vec<_>>().join(" ")
}

/// The reply to `asked` as it would be in the first domain.
pub(crate) fn in_the_first(asked: &str, mut reply: Reply) -> Reply {
    if is_second(asked) {
        let sections = [
            &mut reply.answers,
            &mut reply.authority,
            &mut reply.additional,
        ];
        for record in sections.into_iter().flatten() {
            record.name = text_in_the_first(&record.name);
            // What an alias leads to is as it was registered.
            if record.rtype != CNAME {
                record.data = text_in_the_first(&record.data);
            }
        }
    }
    reply
}

/// Where our reply to a name of the second domain tells of the first.
pub(crate) fn strays(asked: &str, ours: &Reply) -> Option<String> {
    let of_first = |name: &str| name.to_lowercase().ends_with("consul.");
    let targets = ours.answers.iter().filter(|record| record.rtype == SRV);
    let mut made = targets.map(|srv| srv.word(3)).filter(|target| {
        [".node.", ".addr."]
            .iter()
            .any(|form| target.contains(form))
    });
    let mut zones = ours.authority.iter().map(|record| record.name.as_str());
    let strays = is_second(asked) && (made.any(of_first) || zones.any(of_first));
    strays.then(|| "a name of the second domain tells of the first".to_owned())
}
