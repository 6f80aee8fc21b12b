//! A rendered answer put into a client's reply: cut to its size, under its question and id.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::answer::{Cut, Subset};
use super::message::Counts;
use super::render::{AnswerPiece, HEADER, MAX_POINTER, Rendered};
use super::reply::Reply;

/// What decides which part of an answer a reply gets when it does not take all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    client: IpAddr,
    room: usize,
    at_most: usize,
}

/// The part of an answer that a reply gets when it does not take all.
#[derive(Debug, Clone)]
pub struct Part {
    counts: Counts,
    body: Vec<u8>,
}

impl Part {
    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.body.capacity()
    }
}

impl Rendered {
    /// Appends the reply to `out`. The question is as long as the one that was rendered for.
    pub fn write(&self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let start = self.begin(reply, out);
        let counts = if self.fits(reply) {
            self.write_all(reply, out)
        } else {
            self.write_cut(reply, out)
        };
        self.finish(reply, &counts, start, out);
    }

    /// Does a reply take all of it? Then it is quickest written anew for each.
    pub fn fits(&self, reply: &Reply<'_>) -> bool {
        let Place { room, at_most, .. } = self.place(reply);
        self.body.len() <= room && self.answers.len() - self.aliases <= at_most
    }

    /// What a reply gets that does not take all. Choosing it takes a while; it is the same for
    /// every reply with the same [`Place`].
    pub fn part(&self, reply: &Reply<'_>) -> Part {
        let mut body = Vec::new();
        let counts = self.write_cut(reply, &mut body);
        Part { counts, body }
    }

    /// Appends the reply that gets this part.
    pub fn write_part(&self, part: &Part, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let start = self.begin(reply, out);
        out.extend_from_slice(&part.body);
        self.finish(reply, &part.counts, start, out);
    }

    /// What decides which part a reply gets.
    pub fn place(&self, reply: &Reply<'_>) -> Place {
        let taken = HEADER + reply.question.len() + self.opt_length(reply);
        Place {
            client: reply.client,
            room: reply.limit().saturating_sub(taken),
            at_most: match self.cut {
                Cut::Subset(subset) => reply.at_most(subset),
                Cut::Prefix => usize::MAX,
            },
        }
    }

    /// Writes what a reply gets that does not take all.
    fn write_cut(&self, reply: &Reply<'_>, out: &mut Vec<u8>) -> Counts {
        let Place { room, at_most, .. } = self.place(reply);
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
            Cut::Subset(Subset { truncated, .. }) => Counts {
                truncated,
                ..self.write_subset(reply, room, at_most, out)
            },
        }
    }

    fn answers_end(&self) -> usize {
        self.answers.last().map_or(0, |piece| piece.end)
    }

    fn authority_end(&self) -> usize {
        self.authority
            .last()
            .copied()
            .unwrap_or_else(|| self.answers_end())
    }

    fn write_all(&self, reply: &Reply<'_>, out: &mut Vec<u8>) -> Counts {
        // Only addresses rotate: aliases stay in front of what they lead to, and there is no glue
        // that would have to follow them.
        let turning = self.answers.len() - self.aliases;
        if self.rotate && self.additional.is_empty() && turning > 1 {
            let first = self.answer_start(self.aliases);
            let turn = self.answer_start(self.aliases + reply.rotation % turning);
            let end = self.answers_end();
            out.extend_from_slice(&self.body[..first]);
            out.extend_from_slice(&self.body[turn..end]);
            out.extend_from_slice(&self.body[first..turn]);
            out.extend_from_slice(&self.body[end..]);
        } else {
            out.extend_from_slice(&self.body);
        }
        Counts {
            answers: self.answers.len(),
            authority: self.authority.len(),
            additional: self.additional.len(),
            truncated: false,
        }
    }

    /// All answers fit, but not all their glue: the first that does, in a stable order of this
    /// client. Dropped glue alone never sets TC (D7).
    fn write_without_some_glue(&self, reply: &Reply<'_>, room: usize, out: &mut Vec<u8>) -> Counts {
        let end = self.authority_end();
        out.extend_from_slice(&self.body[..end]);
        let kept = self.fitting_glue(&self.ranked(reply.client), room - end);
        let mut counts = Counts {
            answers: self.answers.len(),
            authority: self.authority.len(),
            ..Counts::default()
        };
        for ((glue, from), kept) in self.glue().zip(kept) {
            if kept {
                out.extend_from_slice(&self.body[from..glue.end]);
                counts.additional += 1;
            }
        }
        counts
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
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        let rank_of = |at: usize| rank.get(sizes[at].0).copied().unwrap_or(usize::MAX);
        order.sort_by_key(|&at| (rank_of(at), at));
        let mut left = room;
        let mut kept = vec![false; sizes.len()];
        for at in order {
            if rank_of(at) == usize::MAX && !ranked.is_empty() {
                break;
            }
            let Some(rest) = left.checked_sub(sizes[at].1) else {
                break;
            };
            left = rest;
            kept[at] = true;
        }
        kept
    }

    /// The first answers that fit, with TC.
    fn write_prefix(&self, room: usize, out: &mut Vec<u8>) -> Counts {
        let answers = self.answers.partition_point(|piece| piece.end <= room);
        let end = answers
            .checked_sub(1)
            .map_or(0, |last| self.answers[last].end);
        out.extend_from_slice(&self.body[..end]);
        Counts {
            answers,
            truncated: true,
            ..Counts::default()
        }
    }

    /// This client's own answers, each with its glue, in the order that all clients see.
    fn write_subset(
        &self,
        reply: &Reply<'_>,
        room: usize,
        at_most: usize,
        out: &mut Vec<u8>,
    ) -> Counts {
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
        let mut counts = Counts::default();
        // Where each kept answer's target now stands in the message.
        let mut targets = vec![0; self.answers.len()];
        for (at, piece) in self.answers.iter().enumerate() {
            if kept[at] {
                let start = self.answer_start(at);
                targets[at] = before + (out.len() - body_at) + (piece.target - start);
                out.extend_from_slice(&self.body[start..piece.end]);
                counts.answers += 1;
            }
        }
        for ((glue, _), kept) in self.glue().zip(kept_glue) {
            if !kept {
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
            counts.additional += 1;
        }
        counts
    }

    fn answer_start(&self, at: usize) -> usize {
        at.checked_sub(1)
            .map_or(0, |before| self.answers[before].end)
    }

    /// The records of the Additional section with their starts.
    fn glue(&self) -> impl Iterator<Item = (&super::render::GluePiece, usize)> {
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
