//! A rendered answer put into a client's reply: cut to its size, under its question and id, with
//! header and OPT around it.

use super::answer::{Cut, Subset, no_limit};
use super::opt::ReplyEdns;
use super::rendered::{AnswerPiece, HEADER, MAX_POINTER, Rendered};
use std::net::IpAddr;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The UDP payload that every client takes (RFC 1035 section 4.2.1).
const PLAIN_UDP: usize = 512;
/// How a client's query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// What is the client's own in a reply.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The query's id.
    pub id: u16,
    /// The question as asked, in the client's case.
    pub question: &'a [u8],
    /// RD, echoed.
    pub recursion_desired: bool,
    /// The client wants to know whether the answer was checked: AD may be set.
    pub wants_authentic: bool,
    /// CD, echoed.
    pub checking_disabled: bool,
    /// RA: this client could have recursion.
    pub recursion_available: bool,
    /// How the query came.
    pub transport: Transport,
    /// The largest datagram to send, in bytes, whatever the client takes.
    pub max_udp_size: u16,
    /// OPT, if the query had one.
    pub edns: Option<ReplyEdns>,
    /// Who asks: decides which subset it gets when not all fits (D6).
    pub client: IpAddr,
    /// Turns the order of addresses while they all fit (D9).
    pub rotation: usize,
    /// Seconds by which the TTLs have run down since the answer was rendered.
    pub elapsed: u32,
}

impl Reply<'_> {
    /// How many answers of a set the reply may have.
    fn at_most(&self, subset: Subset) -> usize {
        let small = self.transport == Transport::Udp && self.limit() == PLAIN_UDP;
        let in_512 = if small { subset.at_most_in_512 } else { 0 };
        no_limit(subset.at_most).min(no_limit(in_512))
    }

    /// Bytes that the reply may have.
    fn limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_UDP,
            (Transport::Udp, Some(edns)) => {
                usize::from(edns.client_size.min(self.max_udp_size)).max(PLAIN_UDP)
            }
        }
    }
}

/// How many records of each section were written.
#[derive(Debug, Clone, Copy, Default)]
struct Sections {
    answers: usize,
    authority: usize,
    additional: usize,
    truncated: bool,
}

impl Rendered {
    fn begin(&self, reply: &Reply<'_>, out: &mut Vec<u8>) -> usize {
        debug_assert_eq!(
            reply.question.len(),
            self.question,
            "not the question's answer"
        );
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(reply.question);
        start
    }

    fn finish(&self, reply: &Reply<'_>, sections: &Sections, start: usize, out: &mut Vec<u8>) {
        if reply.elapsed > 0 {
            let body = start + HEADER + reply.question.len();
            self.run_down(reply.elapsed, &mut out[body..]);
        }
        self.write_opt(reply, out);
        self.write_header(reply, sections, &mut out[start..start + HEADER]);
    }

    /// Takes off each TTL what has passed. Only answers that are never put in another order have
    /// TTLs that run down: those of upstreams.
    fn run_down(&self, elapsed: u32, body: &mut [u8]) {
        debug_assert!(
            self.cut == Cut::Prefix && !self.rotate,
            "may be in another order"
        );
        for at in self.ttls.iter().map(|at| *at as usize) {
            let Some(ttl) = body
                .get_mut(at..at + 4)
                .and_then(|ttl| ttl.first_chunk_mut())
            else {
                return;
            };
            *ttl = u32::from_be_bytes(*ttl)
                .saturating_sub(elapsed)
                .to_be_bytes();
        }
    }

    fn write_header(&self, reply: &Reply<'_>, sections: &Sections, header: &mut [u8]) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        header[..2].copy_from_slice(&reply.id.to_be_bytes());
        header[2] = 0x80
            | flag(self.authoritative, 0x04)
            | flag(sections.truncated, 0x02)
            | flag(reply.recursion_desired, 0x01);
        header[3] = flag(reply.recursion_available, 0x80)
            | flag(self.authentic && reply.wants_authentic, 0x20)
            | flag(reply.checking_disabled, 0x10)
            | (self.rcode.0 & 0x0F) as u8;
        let opt = usize::from(reply.edns.is_some());
        let sections = [
            1,
            sections.answers,
            sections.authority,
            sections.additional + opt,
        ];
        for (at, count) in sections.into_iter().enumerate() {
            // At most 65 535 bytes of records of at least 11 bytes each were written.
            let count = (count as u16).to_be_bytes();
            header[4 + 2 * at..6 + 2 * at].copy_from_slice(&count);
        }
    }
}

/// What decides which part of an answer a reply gets when it does not take all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    client: IpAddr,
    room: usize,
    at_most: usize,
}

/// The part of an answer that a reply gets when it does not take all.
#[derive(Debug, Clone)]
pub struct Excerpt {
    sections: Sections,
    body: Vec<u8>,
}

impl Excerpt {
    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.body.capacity()
    }
}

impl Rendered {
    /// Appends the reply to `out`. The question is as long as the one that was rendered for.
    pub fn write(&self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let start = self.begin(reply, out);
        let sections = if self.fits(reply) {
            self.write_all(reply, out)
        } else {
            self.write_cut(reply, out)
        };
        self.finish(reply, &sections, start, out);
    }

    /// Does a reply take all of it? Then it is quickest written anew for each.
    pub fn fits(&self, reply: &Reply<'_>) -> bool {
        let Fit { room, at_most, .. } = self.fit(reply);
        self.body.len() <= room && self.answers.len() - self.aliases <= at_most
    }

    /// What a reply gets that does not take all. Choosing it takes a while; it is the same for
    /// every reply with the same [`Fit`].
    pub fn excerpt(&self, reply: &Reply<'_>) -> Excerpt {
        let mut body = Vec::new();
        let sections = self.write_cut(reply, &mut body);
        Excerpt { sections, body }
    }

    /// Appends the reply that gets this excerpt.
    pub fn write_excerpt(&self, excerpt: &Excerpt, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let start = self.begin(reply, out);
        out.extend_from_slice(&excerpt.body);
        self.finish(reply, &excerpt.sections, start, out);
    }

    /// What decides which part a reply gets.
    pub fn fit(&self, reply: &Reply<'_>) -> Fit {
        let taken = HEADER + reply.question.len() + self.opt_length(reply);
        Fit {
            client: reply.client,
            room: reply.limit().saturating_sub(taken),
            at_most: match self.cut {
                Cut::Subset(subset) => reply.at_most(subset),
                Cut::Prefix => usize::MAX,
            },
        }
    }

    /// Writes what a reply gets that does not take all.
    fn write_cut(&self, reply: &Reply<'_>, out: &mut Vec<u8>) -> Sections {
        let Fit { room, at_most, .. } = self.fit(reply);
        let too_many = self.answers.len() - self.aliases > at_most;
        if !too_many && self.authority_end() <= room {
            return self.write_without_some_glue(reply, room, out);
        }
        match self.cut {
            // Aliases that do not fit lead nowhere: TCP will tell the rest.
            Cut::Subset(_) if self.answer_start(self.aliases) > room => {
                self.write_prefix(room, out)
            }
            Cut::Prefix => self.write_prefix(room, out),
            Cut::Subset(subset) => {
                let mut sections = self.write_subset(reply, room, at_most, out);
                // What the operator does not want is not cut off: TCP would not have it either.
                let wanted = no_limit(subset.at_most).min(self.answers.len() - self.aliases);
                sections.truncated = subset.truncated && sections.answers - self.aliases < wanted;
                sections
            }
        }
    }

    fn authority_end(&self) -> usize {
        self.authority
            .last()
            .copied()
            .unwrap_or_else(|| self.answer_start(self.answers.len()))
    }

    fn write_all(&self, reply: &Reply<'_>, out: &mut Vec<u8>) -> Sections {
        // Only addresses rotate: aliases stay in front of what they lead to, and there is no glue
        // that would have to follow them.
        let turning = self.answers.len() - self.aliases;
        if self.rotate && self.additional.is_empty() && turning > 1 {
            let first = self.answer_start(self.aliases);
            let turn = self.answer_start(self.aliases + reply.rotation % turning);
            let end = self.answer_start(self.answers.len());
            out.extend_from_slice(&self.body[..first]);
            out.extend_from_slice(&self.body[turn..end]);
            out.extend_from_slice(&self.body[first..turn]);
            out.extend_from_slice(&self.body[end..]);
        } else {
            out.extend_from_slice(&self.body);
        }
        Sections {
            answers: self.answers.len(),
            authority: self.authority.len(),
            additional: self.additional.len(),
            truncated: false,
        }
    }

    /// All answers fit, but not all their glue: the first that does, in a stable order of this
    /// client. Dropped glue alone never sets TC (D7).
    fn write_without_some_glue(
        &self,
        reply: &Reply<'_>,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Sections {
        let end = self.authority_end();
        out.extend_from_slice(&self.body[..end]);
        let kept = self.fitting_glue(&self.ranked(reply.client), room - end);
        let mut sections = Sections {
            answers: self.answers.len(),
            authority: self.authority.len(),
            ..Sections::default()
        };
        for ((glue, from), kept) in self.glue().zip(kept) {
            if kept {
                out.extend_from_slice(&self.body[from..glue.end]);
                sections.additional += 1;
            }
        }
        sections
    }

    /// Which records of the Additional section fit into `room`, the best ranked answer's first.
    fn fitting_glue(&self, ranked: &[usize], room: usize) -> Vec<bool> {
        let mut rank = vec![usize::MAX; self.answers.len()];
        for (place, at) in ranked.iter().enumerate() {
            rank[*at] = place;
        }
        let sizes: Vec<(usize, usize)> = self
            .glue()
            .map(|(glue, from)| (glue.of, glue.end - from))
            .collect();
        let rank_of = |at: usize| rank.get(sizes[at].0).copied().unwrap_or(usize::MAX);
        let is_wanted = |at: &usize| ranked.is_empty() || rank_of(*at) != usize::MAX;
        let mut order: Vec<usize> = (0..sizes.len()).filter(is_wanted).collect();
        order.sort_unstable_by_key(|&at| (rank_of(at), at));
        let mut left = room;
        let mut kept = vec![false; sizes.len()];
        for at in order {
            let Some(rest) = left.checked_sub(sizes[at].1) else {
                break;
            };
            left = rest;
            kept[at] = true;
        }
        kept
    }

    /// The first answers that fit, with TC.
    fn write_prefix(&self, room: usize, out: &mut Vec<u8>) -> Sections {
        let answers = self.answers.partition_point(|piece| piece.end <= room);
        let end = self.answer_start(answers);
        out.extend_from_slice(&self.body[..end]);
        Sections {
            answers,
            truncated: true,
            ..Sections::default()
        }
    }

    /// This client's own answers, each with its glue, in the order that all clients see.
    fn write_subset(
        &self,
        reply: &Reply<'_>,
        room: usize,
        at_most: usize,
        out: &mut Vec<u8>,
    ) -> Sections {
        let ranked = self.ranked(reply.client);
        let glue_sizes = self.glue_sizes();
        let size = |at: usize| self.answers[at].end - self.answer_start(at);
        let mut kept = vec![false; self.answers.len()];
        // Without the aliases in front of them the others answer nothing.
        kept[..self.aliases].fill(true);
        let mut left = room.saturating_sub(self.answer_start(self.aliases));
        let mut chosen = Vec::new();
        for at in ranked.into_iter().take(at_most) {
            let whole = size(at) + glue_sizes[at];
            // One answer is better than none, if need be without all its addresses.
            let needed = if chosen.is_empty() {
                whole.min(left).max(size(at))
            } else {
                whole
            };
            let Some(rest) = left.checked_sub(needed) else {
                break;
            };
            left = rest;
            kept[at] = true;
            chosen.push(at);
        }
        let answers: usize = (0..kept.len()).filter(|at| kept[*at]).map(size).sum();
        let kept_glue = self.fitting_glue(&chosen, room.saturating_sub(answers));
        let before = HEADER + reply.question.len();
        let body_at = out.len();
        let mut sections = Sections::default();
        // Where each kept answer's target now stands in the message.
        let mut targets = vec![0; self.answers.len()];
        for (at, piece) in self.answers.iter().enumerate() {
            if kept[at] {
                let start = self.answer_start(at);
                targets[at] = before + (out.len() - body_at) + (piece.target - start);
                out.extend_from_slice(&self.body[start..piece.end]);
                sections.answers += 1;
            }
        }
        for ((glue, from), kept) in self.glue().zip(kept_glue) {
            if !kept {
                continue;
            }
            sections.additional += 1;
            if !glue.is_of_target {
                // Nothing in it points at a record.
                out.extend_from_slice(&self.body[from..glue.end]);
                continue;
            }
            let target = targets[glue.of];
            if target <= MAX_POINTER {
                out.extend_from_slice(&(0xC000 | target as u16).to_be_bytes());
            } else {
                let AnswerPiece { target, end, .. } = self.answers[glue.of];
                out.extend_from_slice(&self.body[target..end]);
            }
            out.extend_from_slice(&self.body[glue.owner_end..glue.end]);
        }
        sections
    }

    fn answer_start(&self, at: usize) -> usize {
        at.checked_sub(1)
            .map_or(0, |before| self.answers[before].end)
    }

    /// The records of the Additional section with their starts.
    fn glue(&self) -> impl Iterator<Item = (&super::rendered::GluePiece, usize)> {
        let mut from = self.authority_end();
        self.additional
            .iter()
            .map(move |glue| (glue, std::mem::replace(&mut from, glue.end)))
    }

    /// Bytes of glue of each answer, at the most that they can take wherever they stand.
    fn glue_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.answers.len()];
        for (glue, from) in self.glue() {
            if let Some(size) = sizes.get_mut(glue.of) {
                *size += glue.end - from;
            }
        }
        sizes
    }

    /// Answers in the order in which this client keeps them: rendezvous hashing, so that it is
    /// the same on every replica and moves by one record when one instance comes or goes.
    fn ranked(&self, client: IpAddr) -> Vec<usize> {
        let seed = match client.to_canonical() {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => xxh3_64_with_seed(&ip.octets(), 0),
        };
        let mut order: Vec<usize> = (self.aliases..self.answers.len()).collect();
        if !matches!(self.cut, Cut::Subset(subset) if subset.by_client) {
            return order;
        }
        order.sort_by_cached_key(|&at| {
            let weight = xxh3_64_with_seed(&self.answers[at].identity.to_be_bytes(), seed);
            (std::cmp::Reverse(weight), at)
        });
        order
    }
}
