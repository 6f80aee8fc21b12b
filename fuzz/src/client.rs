//! Who asks, and how.

use std::net::{IpAddr, Ipv6Addr};

use portolan::dns::{ClientSubnet, Name, Reply, ReplyEdns, Request, Transport, types};

use crate::input::Input;

const SIZES: &[u16] = &[512, 1232, 4096, 65507, 1400, 8192, 513, 65535];

/// What is the client's own.
pub struct Client {
    pub id: u16,
    flags: [u8; 2],
    pub edns: Option<u16>,
    pub subnet: Option<ClientSubnet>,
    pub transport: Transport,
    pub max_udp_size: u16,
    pub address: IpAddr,
    pub rotation: usize,
    pub recursion_available: bool,
}

impl Client {
    /// Reads a client.
    pub fn read(input: &mut Input<'_>) -> Self {
        let switches = input.byte();
        let on = |bit: u8| switches & (1 << bit) != 0;
        let size = |input: &mut Input<'_>| {
            let at = input.below(16);
            SIZES.get(at).copied().unwrap_or_else(|| input.u16())
        };
        Self {
            id: input.u16(),
            flags: [input.byte() & 0x01, input.byte() & 0x10],
            edns: on(0).then(|| size(input)),
            transport: if on(1) {
                Transport::Tcp
            } else {
                Transport::Udp
            },
            max_udp_size: if on(2) { size(input) } else { 65507 },
            address: match input.u32() {
                bits if on(3) => Ipv6Addr::from(u128::from(bits) << 95 | 1).into(),
                bits => bits.to_be_bytes().into(),
            },
            rotation: match usize::from(input.byte()) {
                turn if on(4) => usize::MAX - turn,
                turn => turn,
            },
            recursion_available: on(5),
            subnet: on(6).then(|| subnet(input)),
        }
    }

    /// The query's bytes.
    pub fn request(&self, name: &Name, qtype: u16) -> Vec<u8> {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.flags);
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, self.edns.is_some().into()]);
        bytes.extend_from_slice(name.as_wire());
        bytes.extend_from_slice(&qtype.to_be_bytes());
        bytes.extend_from_slice(&types::CLASS_IN.to_be_bytes());
        if let Some(size) = self.edns {
            let mut options = Vec::new();
            if let Some(subnet) = self.subnet {
                subnet.write(false, &mut options);
            }
            bytes.extend_from_slice(&[0, 0, 41]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0, 0, 0, options.len() as u8]);
            bytes.extend_from_slice(&options);
        }
        bytes
    }

    /// What is the client's own in the reply to its query.
    pub fn reply<'a>(&self, query: &Request<'a>) -> Reply<'a> {
        Reply {
            id: query.id,
            question: query.question(),
            recursion_desired: query.recursion_desired,
            wants_authentic: query.wants_authentic(),
            checking_disabled: query.checking_disabled,
            recursion_available: self.recursion_available,
            transport: self.transport,
            max_udp_size: self.max_udp_size,
            edns: query.edns.map(|edns| ReplyEdns {
                client_size: edns.udp_size,
                own_size: 1232,
                dnssec_ok: edns.dnssec_ok,
                client_subnet: edns.client_subnet,
            }),
            client: self.address,
            rotation: self.rotation,
            elapsed: 0,
        }
    }
}

fn subnet(input: &mut Input<'_>) -> ClientSubnet {
    let bits = u128::from(input.u32());
    let is_v6 = input.flag();
    let width = if is_v6 { 128 } else { 32 };
    let prefix = input.below(width + 1);
    // The address up to the prefix, and 0 behind it.
    let bits = (bits << (width - 32)).checked_shr((width - prefix) as u32);
    let bits = bits.unwrap_or(0) << ((width - prefix) % width);
    ClientSubnet {
        address: if is_v6 {
            Ipv6Addr::from(bits).into()
        } else {
            (bits as u32).to_be_bytes().into()
        },
        prefix: prefix as u8,
    }
}
