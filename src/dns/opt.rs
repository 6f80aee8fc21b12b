//! The OPT record at the end of a reply (RFC 6891): what we take, and the options that a client gets.

use super::answer::ExtendedError;
use super::rendered::Rendered;
use super::{ClientSubnet, Reply, types};

/// The OPT record of a reply (RFC 6891); a reply has one if its query had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyEdns {
    /// What the client said it can take in a datagram, in bytes.
    pub client_size: u16,
    /// What we can take, in bytes.
    pub own_size: u16,
    /// DO, echoed (RFC 3225 section 3).
    pub dnssec_ok: bool,
    /// The client's network, echoed (RFC 7871).
    pub client_subnet: Option<ClientSubnet>,
}

/// An OPT record without options.
const OPT: usize = 11;

impl Rendered {
    pub(super) fn opt_length(&self, reply: &Reply<'_>) -> usize {
        let errors = self.errors.iter().map(ExtendedError::option_length);
        let errors: usize = errors.sum();
        reply.edns.map_or(0, |edns| {
            let subnet = edns
                .client_subnet
                .map_or(0, |subnet| subnet.option_length());
            OPT + errors + subnet
        })
    }

    /// OPT goes last: HAProxy loses what follows it.
    pub(super) fn write_opt(&self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let Some(edns) = reply.edns else { return };
        let extended_rcode = (self.rcode.0 >> 4) as u8;
        out.push(0);
        out.extend_from_slice(&types::OPT.to_be_bytes());
        out.extend_from_slice(&edns.own_size.to_be_bytes());
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        out.extend_from_slice(&[extended_rcode, 0, dnssec_ok, 0]);
        let options = (self.opt_length(reply) - OPT) as u16;
        out.extend_from_slice(&options.to_be_bytes());
        if let Some(subnet) = edns.client_subnet {
            subnet.write(self.for_client, out);
        }
        for error in &self.errors {
            let length = (error.option_length() - 4) as u16;
            out.extend_from_slice(&[0, 15]);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&error.code.to_be_bytes());
            out.extend_from_slice(&error.text);
        }
    }
}
