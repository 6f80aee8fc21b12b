//! Consul was never there: nothing may be said of its names, whoever leads there (D5).

use crate::{
    support::{free_ports, own_loopback},
    table::{none_wrong, texts, wrong},
    world::{house, leaked, upstream},
};

const TABLE: &str = r#"
# NXDOMAIN would be remembered, and empties a load balancer.
all       | www.corp.example. A       | SERVFAIL | *
all       | www.corp.example. SRV     | SERVFAIL | *
all       | deep.corp.example. AAAA   | SERVFAIL | *
all       | x.w.corp.example. A       | SERVFAIL | *
all       | gone.corp.example. A      | SERVFAIL | *
all       | node.corp.example. A      | SERVFAIL | *
all       | query.corp.example. SRV   | SERVFAIL | *
all       | back.corp.example. A      | SERVFAIL | *
all       | web.service.consul. A     | SERVFAIL | *
all       | nothing.service.consul. A | SERVFAIL | *
recursing | www.example.net. A        | SERVFAIL | *
recursing | hop.example.net. A        | SERVFAIL | *
recursing | out.corp.example. A       | SERVFAIL | *
recursing | gone.example.net. A       | SERVFAIL | *

# The zone's own records are all there.
all       | host.corp.example. A      | NOERROR  | A 10.9.9.9
all       | host.corp.example. AAAA   | NOERROR  | AAAA 2001:db8::9
all       | host.corp.example. TXT    | NOERROR  | TXT "a host"
all       | nx.corp.example. A        | NXDOMAIN | CNAME missing.corp.example. | | corp.example.
all       | loop1.corp.example. A     | NOERROR  | CNAME loop2.corp.example., CNAME loop1.corp.example.
all       | www.corp.example. CNAME   | NOERROR  | CNAME web.service.consul.
all       | www.corp.example. ANY     | NOERROR  | CNAME web.service.consul.
all       | mx.corp.example. MX       | NOERROR  | MX 10 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9
# Unsure: the record is the zone's, and its host's addresses are only an extra.
all       | s.corp.example. SRV       | NOERROR  | SRV 0 0 80 web.service.consul.
all       | mxc.corp.example. MX      | NOERROR  | MX 5 web.service.consul.

# And so is what upstreams know.
recursing | cdn.example.net. A        | NOERROR  | CNAME host.corp.example., A 10.9.9.9
recursing | plain.corp.example. A     | NOERROR  | CNAME plain.example.net., A 198.51.100.1
recursing | plain.example.net. A      | NOERROR  | A 198.51.100.1
others    | plain.corp.example. A     | NOERROR  | CNAME plain.example.net.
others    | plain.example.net. A      | REFUSED
"#;

#[test]
fn without_data_nothing_is_said_of_consuls_names() {
    let upstream = upstream();
    // Nobody listens there.
    let ip = own_loopback();
    let [port] = free_ports(ip);
    let house = house(&format!("http://{ip}:{port}"), Some(&upstream), false);
    let mut all = texts(&wrong(house.dns(), TABLE, |_| true));
    all.extend(leaked(&upstream));
    none_wrong(&all);
}
