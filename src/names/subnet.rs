//! The client subnet option of EDNS (RFC 7871).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The option's code.
const CODE: u16 = 8;

/// The network that a resolver asks for, on behalf of a client in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSubnet {
    /// The network's address; the bits behind the prefix are 0.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl ClientSubnet {
    /// Looks for the option in the data of an OPT record: `Ok(None)` if it is not there.
    pub(super) fn find(mut options: &[u8]) -> Result<Option<Self>, ()> {
        while !options.is_empty() {
            let head = options.first_chunk::<4>().ok_or(())?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let data = options.get(4..4 + length).ok_or(())?;
            if u16::from_be_bytes([head[0], head[1]]) == CODE {
                return Self::parse(data).map(Some);
            }
            options = &options[4 + length..];
        }
        Ok(None)
    }

    fn parse(data: &[u8]) -> Result<Self, ()> {
        let (head, octets) = data.split_first_chunk::<4>().ok_or(())?;
        let prefix = head[2];
        // Section 6: as many octets as the prefix needs, and SCOPE 0 in a query.
        if octets.len() != usize::from(prefix).div_ceil(8) || head[3] != 0 {
            return Err(());
        }
        let mut all = [0; 16];
        all.get_mut(..octets.len())
            .ok_or(())?
            .copy_from_slice(octets);
        let address = match (u16::from_be_bytes([head[0], head[1]]), prefix) {
            (1, 0..=32) => Ipv4Addr::new(all[0], all[1], all[2], all[3]).into(),
            (2, 0..=128) => Ipv6Addr::from(all).into(),
            _ => return Err(()),
        };
        let behind = prefix % 8;
        if behind != 0 && octets.last().is_some_and(|last| last << behind != 0) {
            return Err(());
        }
        Ok(Self { address, prefix })
    }

    /// The length of the option in a reply, with its head.
    pub fn option_length(&self) -> usize {
        8 + usize::from(self.prefix).div_ceil(8)
    }

    /// Appends the option to a reply: echoed, with the prefix as SCOPE if the answer is for this
    /// network and 0 if it is for everybody (section 7.2.1).
    pub fn write(&self, for_network: bool, out: &mut Vec<u8>) {
        let octets = usize::from(self.prefix).div_ceil(8);
        let scope = if for_network { self.prefix } else { 0 };
        out.extend_from_slice(&CODE.to_be_bytes());
        out.extend_from_slice(&((4 + octets) as u16).to_be_bytes());
        match self.address {
            IpAddr::V4(ip) => {
                out.extend_from_slice(&[0, 1, self.prefix, scope]);
                out.extend_from_slice(&ip.octets()[..octets]);
            }
            IpAddr::V6(ip) => {
                out.extend_from_slice(&[0, 2, self.prefix, scope]);
                out.extend_from_slice(&ip.octets()[..octets]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_found_among_others_and_comes_back() {
        let options = [0, 10, 0, 2, 1, 2, 0, 8, 0, 7, 0, 1, 24, 0, 10, 1, 2];
        let subnet = ClientSubnet::find(&options)
            .expect("well-formed")
            .expect("there");
        assert_eq!(
            (subnet.address, subnet.prefix),
            (IpAddr::from([10, 1, 2, 0]), 24)
        );
        let mut out = Vec::new();
        subnet.write(true, &mut out);
        assert_eq!(out, [0, 8, 0, 7, 0, 1, 24, 24, 10, 1, 2]);
        assert_eq!(out.len(), subnet.option_length());
        assert_eq!(ClientSubnet::find(&options[..6]), Ok(None));
    }

    #[test]
    fn what_is_malformed() {
        for option in [
            vec![0, 8, 0, 9],
            vec![0, 8, 0, 3, 0, 1, 24],
            vec![0, 8, 0, 6, 0, 1, 24, 0, 10, 1],
            vec![0, 8, 0, 7, 0, 1, 24, 1, 10, 1, 2],
            vec![0, 8, 0, 9, 0, 1, 33, 0, 1, 2, 3, 4, 5],
            vec![0, 8, 0, 4, 0, 3, 0, 0],
            vec![0],
        ] {
            assert_eq!(ClientSubnet::find(&option), Err(()), "{option:?}");
        }
    }
}
