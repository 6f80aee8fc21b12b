//! What stands around the records in a reply: header, question, OPT.

use crate::names::types;

use super::answer::Cut;
use super::render::{HEADER, Rendered};
use super::reply::Reply;

/// An OPT record without options.
const OPT: usize = 11;
/// An Extended DNS Error option without text (RFC 8914).
const EXTENDED_ERROR: usize = 6;

/// How many records of each section were written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) answers: usize,
    pub(super) authority: usize,
    pub(super) additional: usize,
    pub(super) truncated: bool,
}

impl Rendered {
    pub(super) fn begin(&self, reply: &Reply<'_>, out: &mut Vec<u8>) -> usize {
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

    pub(super) fn finish(
        &self,
        reply: &Reply<'_>,
        counts: &Counts,
        start: usize,
        out: &mut Vec<u8>,
    ) {
        if reply.elapsed > 0 {
            let body = start + HEADER + reply.question.len();
            self.run_down(reply.elapsed, &mut out[body..]);
        }
        self.write_opt(reply, out);
        self.write_header(reply, counts, &mut out[start..start + HEADER]);
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

    pub(super) fn opt_length(&self, reply: &Reply<'_>) -> usize {
        let error = self.extended_error.map_or(0, |_| EXTENDED_ERROR);
        reply.edns.map_or(0, |edns| {
            let subnet = edns
                .client_subnet
                .map_or(0, |subnet| subnet.option_length());
            OPT + error + subnet
        })
    }

    /// OPT goes last: HAProxy loses what follows it.
    fn write_opt(&self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let Some(edns) = reply.edns else { return };
        let extended_rcode = (self.rcode.0 >> 4) as u8;
        out.push(0);
        out.extend_from_slice(&types::OPT.to_be_bytes());
        out.extend_from_slice(&edns.own_size.to_be_bytes());
        out.extend_from_slice(&[extended_rcode, 0, 0, 0]);
        let options = (self.opt_length(reply) - OPT) as u16;
        out.extend_from_slice(&options.to_be_bytes());
        if let Some(subnet) = edns.client_subnet {
            subnet.write(self.for_client, out);
        }
        if let Some(code) = self.extended_error {
            out.extend_from_slice(&[0, 15, 0, 2]);
            out.extend_from_slice(&code.to_be_bytes());
        }
    }

    fn write_header(&self, reply: &Reply<'_>, counts: &Counts, header: &mut [u8]) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        header[..2].copy_from_slice(&reply.id.to_be_bytes());
        header[2] = 0x80
            | flag(self.authoritative, 0x04)
            | flag(counts.truncated, 0x02)
            | flag(reply.recursion_desired, 0x01);
        header[3] = flag(reply.recursion_available, 0x80)
            | flag(reply.checking_disabled, 0x10)
            | (self.rcode.0 & 0x0F) as u8;
        let opt = usize::from(reply.edns.is_some());
        let sections = [1, counts.answers, counts.authority, counts.additional + opt];
        for (at, count) in sections.into_iter().enumerate() {
            // At most 65 535 bytes of records of at least 11 bytes each were written.
            let count = (count as u16).to_be_bytes();
            header[4 + 2 * at..6 + 2 * at].copy_from_slice(&count);
        }
    }
}
