//! The same order for every name, whoever asks: with fresh and with stale data, with upstreams and
//! without.

use crate::{
    support::{dns::Query, ensure, eventually, wire::rtype::A},
    table::{none_wrong, texts, wrong},
    world::{House, consul, house, leaked, upstream},
};
use std::time::Duration;

/// From the zone into Consul, from Consul into the zone, from the zone into itself: everybody gets
/// all of it, and nothing of it leaves the house.
const IN_THE_HOUSE: &str = r#"
# Aliases of the zone that lead into Consul.
all | www.corp.example. A          | NOERROR  | CNAME web.service.consul., A 10.0.0.5
all | WWW.Corp.Example. A          | NOERROR  | CNAME web.service.consul., A 10.0.0.5
all | www.corp.example. AAAA       | NOERROR  | CNAME web.service.consul. | | consul.
all | www.corp.example. HTTPS      | NOERROR  | CNAME web.service.consul. | | consul.
all | www.corp.example. TXT        | NOERROR  | CNAME web.service.consul. | | consul.
all | www.corp.example. SRV        | NOERROR  | CNAME web.service.consul., SRV 1 1 80 0a000005.addr.dc1.consul. | 0a000005.addr.dc1.consul. A 10.0.0.5
all | www.corp.example. ANY        | NOERROR  | CNAME web.service.consul.
all | www.corp.example. CNAME      | NOERROR  | CNAME web.service.consul.
all | deep.corp.example. A         | NOERROR  | CNAME www.corp.example., CNAME web.service.consul., A 10.0.0.5
all | deep.corp.example. AAAA      | NOERROR  | CNAME www.corp.example., CNAME web.service.consul. | | consul.
all | deep.corp.example. SRV       | NOERROR  | CNAME www.corp.example., CNAME web.service.consul., SRV 1 1 80 0a000005.addr.dc1.consul. | 0a000005.addr.dc1.consul. A 10.0.0.5
all | deep.corp.example. CNAME     | NOERROR  | CNAME www.corp.example.
all | x.w.corp.example. A          | NOERROR  | CNAME web.service.consul., A 10.0.0.5
all | y.w.corp.example. SRV        | NOERROR  | CNAME web.service.consul., SRV 1 1 80 0a000005.addr.dc1.consul. | 0a000005.addr.dc1.consul. A 10.0.0.5
all | x.w.corp.example. ANY        | NOERROR  | CNAME web.service.consul.
all | node.corp.example. A         | NOERROR  | CNAME n1.node.consul., A 10.0.0.1
all | node.corp.example. AAAA      | NOERROR  | CNAME n1.node.consul. | | consul.
all | gone.corp.example. A         | NXDOMAIN | CNAME nothing.service.consul. | | consul.
all | gone.corp.example. SRV       | NXDOMAIN | CNAME nothing.service.consul. | | consul.
all | gone.corp.example. HTTPS     | NXDOMAIN | CNAME nothing.service.consul. | | consul.
all | gone.corp.example. ANY       | NOERROR  | CNAME nothing.service.consul.

# And from there back into the zone.
all | legacy.corp.example. A       | NOERROR  | CNAME legacy.service.consul., CNAME host.corp.example., A 10.9.9.9
all | legacy.corp.example. AAAA    | NOERROR  | CNAME legacy.service.consul., CNAME host.corp.example., AAAA 2001:db8::9
all | legacy.corp.example. SRV     | NOERROR  | CNAME legacy.service.consul., SRV 1 1 8080 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9
all | legacy.corp.example. ANY     | NOERROR  | CNAME legacy.service.consul.
all | hosted.corp.example. A       | NOERROR  | CNAME hosted.node.consul., CNAME host.corp.example., A 10.9.9.9
all | query.corp.example. A        | NOERROR  | CNAME pq.query.consul., CNAME host.corp.example., A 10.9.9.9
all | query.corp.example. SRV      | NOERROR  | CNAME pq.query.consul., SRV 1 1 8080 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9
# Unsure: of the chain's end it is NXDOMAIN, but an alias of Consul's never says more than NOERROR.
all | lost.corp.example. A         | NOERROR  | CNAME lost.service.consul., CNAME missing.corp.example. | | ?corp.example.

# Round in a circle: each record once.
all | back.corp.example. A         | NOERROR  | CNAME ring.service.consul., CNAME back.corp.example.
all | back.corp.example. AAAA      | NOERROR  | CNAME ring.service.consul., CNAME back.corp.example.
all | back.corp.example. HTTPS     | NOERROR  | CNAME ring.service.consul., CNAME back.corp.example.
all | back.corp.example. ANY       | NOERROR  | CNAME ring.service.consul.
all | back.corp.example. SRV       | NOERROR  | CNAME ring.service.consul., SRV 1 1 7070 back.corp.example.
all | ring.service.consul. A       | NOERROR  | CNAME back.corp.example., CNAME ring.service.consul.
all | ring.service.consul. AAAA    | NOERROR  | CNAME back.corp.example., CNAME ring.service.consul.
all | ring.service.consul. ANY     | NOERROR  | CNAME back.corp.example., CNAME ring.service.consul.
all | ring.service.consul. CNAME   | NOERROR  | CNAME back.corp.example.
all | ring.service.consul. SRV     | NOERROR  | SRV 1 1 7070 back.corp.example.
all | loop1.corp.example. A        | NOERROR  | CNAME loop2.corp.example., CNAME loop1.corp.example.
all | loop2.corp.example. SRV      | NOERROR  | CNAME loop1.corp.example., CNAME loop2.corp.example.

# Addresses in Consul that are names of the zone.
all | legacy.service.consul. A     | NOERROR  | CNAME host.corp.example., A 10.9.9.9
all | legacy.service.consul. AAAA  | NOERROR  | CNAME host.corp.example., AAAA 2001:db8::9
all | legacy.service.consul. SRV   | NOERROR  | SRV 1 1 8080 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9
all | legacy.service.consul. ANY   | NOERROR  | CNAME host.corp.example., A 10.9.9.9, AAAA 2001:db8::9
all | legacy.service.consul. TXT   | NOERROR  | CNAME host.corp.example., TXT "a host"
all | legacy.service.consul. CNAME | NOERROR  | CNAME host.corp.example.
# Unsure: the zone's SOA record makes it worth remembering, and nothing is wrong without it.
all | legacy.service.consul. HTTPS | NOERROR  | CNAME host.corp.example. | | ?corp.example.
all | lost.service.consul. A       | NOERROR  | CNAME missing.corp.example. | | ?corp.example.
all | lost.service.consul. SRV     | NOERROR  | SRV 1 1 7071 missing.corp.example.
all | hosted.node.consul. A        | NOERROR  | CNAME host.corp.example., A 10.9.9.9
all | hosted.node.consul. AAAA     | NOERROR  | CNAME host.corp.example., AAAA 2001:db8::9
all | hosted.node.consul. ANY      | NOERROR  | CNAME host.corp.example., A 10.9.9.9, AAAA 2001:db8::9
all | hosted.node.consul. CNAME    | NOERROR  | CNAME host.corp.example.
all | onhost.service.consul. A     | NOERROR  | CNAME host.corp.example., A 10.9.9.9
all | onhost.service.consul. SRV   | NOERROR  | SRV 1 1 9000 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9
all | pq.query.consul. A           | NOERROR  | CNAME host.corp.example., A 10.9.9.9
all | pq.query.consul. AAAA        | NOERROR  | CNAME host.corp.example., AAAA 2001:db8::9
all | pq.query.consul. SRV         | NOERROR  | SRV 1 1 8080 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9

# Hosts of SRV and MX records, under the name that the record has.
all | s.corp.example. SRV          | NOERROR  | SRV 0 0 80 web.service.consul. | web.service.consul. A 10.0.0.5
all | s.corp.example. A            | NOERROR  | | | corp.example.
all | slegacy.corp.example. SRV    | NOERROR  | SRV 0 0 80 legacy.service.consul. | legacy.service.consul. A 10.9.9.9, legacy.service.consul. AAAA 2001:db8::9
all | mx.corp.example. MX          | NOERROR  | MX 10 host.corp.example. | host.corp.example. A 10.9.9.9, host.corp.example. AAAA 2001:db8::9
all | mxc.corp.example. MX         | NOERROR  | MX 5 web.service.consul. | web.service.consul. A 10.0.0.5

# Reverse names: ours are Consul's, and those of loopback every host's own.
all | rev.corp.example. PTR        | NOERROR  | CNAME 1.0.0.10.in-addr.arpa., PTR n1.node.dc1.consul.
all | rev.corp.example. A          | NOERROR  | CNAME 1.0.0.10.in-addr.arpa. | | consul.
all | revweb.corp.example. PTR     | NOERROR  | CNAME 5.0.0.10.in-addr.arpa., PTR web.service.dc1.consul.
all | looped.corp.example. PTR     | NOERROR  | CNAME 9.0.0.127.in-addr.arpa., PTR host.corp.example.
all | 1.0.0.10.in-addr.arpa. PTR   | NOERROR  | PTR n1.node.dc1.consul.
all | 5.0.0.10.in-addr.arpa. PTR   | NOERROR  | PTR web.service.dc1.consul.
all | 9.0.0.127.in-addr.arpa. PTR  | NOERROR  | PTR host.corp.example.

# What leads nowhere else.
all | host.corp.example. A         | NOERROR  | A 10.9.9.9
all | host.corp.example. AAAA      | NOERROR  | AAAA 2001:db8::9
all | host.corp.example. HTTPS     | NOERROR  | | | corp.example.
all | nx.corp.example. A           | NXDOMAIN | CNAME missing.corp.example. | | corp.example.
all | nx.corp.example. HTTPS       | NXDOMAIN | CNAME missing.corp.example. | | corp.example.
all | corp.example. NS             | NOERROR  | NS ns.corp.example. | ns.corp.example. A 10.9.9.53
all | web.service.consul. A        | NOERROR  | A 10.0.0.5
all | web.service.consul. AAAA     | NOERROR  | | | consul.
all | web.service.consul. SRV      | NOERROR  | SRV 1 1 80 0a000005.addr.dc1.consul. | 0a000005.addr.dc1.consul. A 10.0.0.5
all | twin.service.consul. A       | NOERROR  | CNAME web.service.consul., A 10.0.0.5
all | twin.service.consul. SRV     | NOERROR  | SRV 1 1 81 web.service.consul. | web.service.consul. A 10.0.0.5
all | twin.service.consul. ANY     | NOERROR  | CNAME web.service.consul., A 10.0.0.5
all | nothing.service.consul. A    | NXDOMAIN | | | consul.
"#;

/// Out of the zone, and the client's own question: only who may recurse, and asks for it, gets more
/// than the house knows.
const OUT_OF_THE_HOUSE: &str = "
recursing | out.corp.example. A      | NOERROR  | CNAME www.example.net., CNAME web.service.consul., A 10.0.0.5
recursing | out.corp.example. AAAA   | NOERROR  | CNAME www.example.net., CNAME web.service.consul. | | consul.
recursing | out.corp.example. HTTPS  | NOERROR  | CNAME www.example.net., CNAME web.service.consul. | | consul.
recursing | out.corp.example. SRV    | NOERROR  | CNAME www.example.net., CNAME web.service.consul., SRV 1 1 80 0a000005.addr.dc1.consul. | 0a000005.addr.dc1.consul. A 10.0.0.5
recursing | plain.corp.example. A    | NOERROR  | CNAME plain.example.net., A 198.51.100.1
recursing | plain.corp.example. AAAA | NOERROR  | CNAME plain.example.net. | | example.net.
recursing | gout.corp.example. A     | NXDOMAIN | CNAME nope.example.net. | | example.net.
recursing | sout.corp.example. SRV   | NOERROR  | SRV 0 0 80 plain.example.net. | plain.example.net. A 198.51.100.1
recursing | sinto.corp.example. SRV  | NOERROR  | SRV 0 0 80 www.example.net. | www.example.net. A 10.0.0.5
others    | out.corp.example. A      | NOERROR  | CNAME www.example.net.
others    | out.corp.example. SRV    | NOERROR  | CNAME www.example.net.
others    | plain.corp.example. A    | NOERROR  | CNAME plain.example.net.
others    | plain.corp.example. AAAA | NOERROR  | CNAME plain.example.net.
others    | gout.corp.example. A     | NOERROR  | CNAME nope.example.net.
others    | sout.corp.example. SRV   | NOERROR  | SRV 0 0 80 plain.example.net.
others    | sinto.corp.example. SRV  | NOERROR  | SRV 0 0 80 www.example.net.
all       | out.corp.example. CNAME  | NOERROR  | CNAME www.example.net.
all       | out.corp.example. ANY    | NOERROR  | CNAME www.example.net.

# Aliases of the upstream that lead into the house: the house says what is there.
recursing | www.example.net. A       | NOERROR  | CNAME web.service.consul., A 10.0.0.5
recursing | www.example.net. AAAA    | NOERROR  | CNAME web.service.consul. | | consul.
recursing | www.example.net. HTTPS   | NOERROR  | CNAME web.service.consul. | | consul.
recursing | www.example.net. SRV     | NOERROR  | CNAME web.service.consul., SRV 1 1 80 0a000005.addr.dc1.consul. | 0a000005.addr.dc1.consul. A 10.0.0.5
recursing | www.example.net. CNAME   | NOERROR  | CNAME web.service.consul.
recursing | www.example.net. ANY     | NOERROR  | CNAME web.service.consul.
recursing | odd.example.net. A       | NOERROR  | CNAME web.service.consul., A 10.0.0.5
recursing | open.example.net. A      | NOERROR  | CNAME web.service.consul., A 10.0.0.5
recursing | public.example.net. A    | NOERROR  | CNAME web.service.consul., A 10.0.0.5
recursing | public.example.net. AAAA | NOERROR  | CNAME web.service.consul. | | consul.
recursing | gone.example.net. A      | NXDOMAIN | CNAME nothing.service.consul. | | consul.
recursing | cdn.example.net. A       | NOERROR  | CNAME host.corp.example., A 10.9.9.9
recursing | cdn.example.net. AAAA    | NOERROR  | CNAME host.corp.example., AAAA 2001:db8::9
recursing | cdn.example.net. HTTPS   | NOERROR  | CNAME host.corp.example. | | corp.example.
recursing | nx.example.net. A        | NXDOMAIN | CNAME missing.corp.example. | | corp.example.
recursing | hop.example.net. A       | NOERROR  | CNAME deep.corp.example., CNAME www.corp.example., CNAME web.service.consul., A 10.0.0.5
recursing | two.example.net. A       | NOERROR  | CNAME cdn.example.net., CNAME host.corp.example., A 10.9.9.9
recursing | two.example.net. AAAA    | NOERROR  | CNAME cdn.example.net., CNAME host.corp.example., AAAA 2001:db8::9
recursing | through.example.net. A   | NOERROR  | CNAME out.corp.example., CNAME www.example.net., CNAME web.service.consul., A 10.0.0.5
# Unsure: upstreams' answers have had no addresses with them so far.
recursing | srv.example.net. SRV     | NOERROR  | SRV 0 0 80 web.service.consul. | ?web.service.consul. A 10.0.0.5
recursing | plain.example.net. A     | NOERROR  | A 198.51.100.1
recursing | plain.example.net. AAAA  | NOERROR  | | | example.net.
recursing | nope.example.net. A      | NXDOMAIN | | | example.net.
others    | www.example.net. A       | REFUSED
others    | cdn.example.net. A       | REFUSED
others    | plain.example.net. A     | REFUSED
";

/// Addresses in Consul that are names elsewhere: the operator chose them, so they are looked up for
/// everybody.
const CONSULS_HOSTS: &str = "
all       | alien.service.consul. A     | NOERROR | CNAME plain.example.net., A 198.51.100.1
all       | alien.service.consul. AAAA  | NOERROR | CNAME plain.example.net. | | ?example.net.
all       | alien.service.consul. HTTPS | NOERROR | CNAME plain.example.net. | | ?example.net.
all       | alien.service.consul. ANY   | NOERROR | CNAME plain.example.net., A 198.51.100.1
all       | alien.service.consul. SRV   | NOERROR | SRV 1 1 443 plain.example.net. | plain.example.net. A 198.51.100.1
all       | alien.service.consul. CNAME | NOERROR | CNAME plain.example.net.
all       | into.service.consul. A      | NOERROR | CNAME www.example.net., CNAME web.service.consul., A 10.0.0.5
all       | into.service.consul. AAAA   | NOERROR | CNAME www.example.net., CNAME web.service.consul. | | ?consul.
all       | into.service.consul. ANY    | NOERROR | CNAME www.example.net., CNAME web.service.consul., A 10.0.0.5
all       | into.service.consul. SRV    | NOERROR | SRV 1 1 444 www.example.net. | www.example.net. A 10.0.0.5
all       | far.service.consul. A       | NOERROR | CNAME two.example.net., CNAME cdn.example.net., CNAME host.corp.example., A 10.9.9.9
all       | far.service.consul. SRV     | NOERROR | SRV 1 1 445 two.example.net. | two.example.net. A 10.9.9.9, two.example.net. AAAA 2001:db8::9
all       | void.service.consul. A      | NOERROR | CNAME nope.example.net. | | ?example.net.
all       | void.service.consul. SRV    | NOERROR | SRV 1 1 446 nope.example.net.

# It is the name in Consul that is looked up for everybody, however it was come to.
all       | alien.corp.example. A       | NOERROR | CNAME alien.service.consul., CNAME plain.example.net., A 198.51.100.1
all       | into.corp.example. A        | NOERROR | CNAME into.service.consul., CNAME www.example.net., CNAME web.service.consul., A 10.0.0.5
# Unsure, as above: NXDOMAIN at the end, behind an alias of Consul's.
all       | void.corp.example. A        | NOERROR | CNAME void.service.consul., CNAME nope.example.net. | | ?example.net.

# The name in Consul is the zone's, and it is the zone that leads out.
recursing | detour.service.consul. A    | NOERROR | CNAME plain.corp.example., CNAME plain.example.net., A 198.51.100.1
recursing | detour.service.consul. SRV  | NOERROR | SRV 1 1 447 plain.corp.example. | plain.corp.example. A 198.51.100.1
others    | detour.service.consul. A    | NOERROR | CNAME plain.corp.example., CNAME plain.example.net.
others    | detour.service.consul. SRV  | NOERROR | SRV 1 1 447 plain.corp.example.
";

/// With no upstream, what leads out ends there.
const WITHOUT_UPSTREAMS: &str = "
all | out.corp.example. A        | NOERROR | CNAME www.example.net.
all | out.corp.example. SRV      | NOERROR | CNAME www.example.net.
all | plain.corp.example. A      | NOERROR | CNAME plain.example.net.
all | sout.corp.example. SRV     | NOERROR | SRV 0 0 80 plain.example.net.
all | alien.service.consul. A    | NOERROR | CNAME plain.example.net.
all | alien.service.consul. ANY  | NOERROR | CNAME plain.example.net.
all | alien.service.consul. SRV  | NOERROR | SRV 1 1 443 plain.example.net.
all | into.service.consul. AAAA  | NOERROR | CNAME www.example.net.
all | into.service.consul. SRV   | NOERROR | SRV 1 1 444 www.example.net.
all | detour.service.consul. A   | NOERROR | CNAME plain.corp.example., CNAME plain.example.net.
all | detour.service.consul. SRV | NOERROR | SRV 1 1 447 plain.corp.example.
all | alien.corp.example. A      | NOERROR | CNAME alien.service.consul., CNAME plain.example.net.
all | www.example.net. A         | REFUSED
all | plain.example.net. A       | REFUSED
";

/// Nobody has asked for this service before Consul went away: it exists, and nothing may be said of
/// it, least of all that it does not exist.
const NEVER_ASKED_FOR: &str = "
recursing | unasked.service.consul. A | SERVFAIL | *
all       | unasked.corp.example. A   | SERVFAIL | *
";

/// An EDNS option in hex: extended DNS error 3, stale answer (RFC 8914), without words.
const STALE_ANSWER: &str = "000f00020003";

fn wait_until_stale(house: &House) {
    for name in ["web.service.consul", "hosted.node.consul"] {
        eventually(
            Duration::from_secs(10),
            "answers are marked as stale",
            || {
                let reply = Query::new(name, A).edns(1232).try_ask(house.dns())?;
                let opt = reply.opt().map_or("", |opt| opt.data.as_str());
                ensure(opt.contains(STALE_ANSWER), || reply.summary())
            },
        );
    }
}

/// The first answer to each name has to be right already, and they stay what they are when Consul
/// goes away.
#[test]
fn every_name_is_answered_in_one_order() {
    let (mut consul, upstream) = (consul(), upstream());
    let house = house(&consul.url(), Some(&upstream), true);
    let tables = [IN_THE_HOUSE, OUT_OF_THE_HOUSE, CONSULS_HOSTS].concat();
    let fresh = wrong(house.dns(), &tables, |_| true);
    consul.kill();
    wait_until_stale(&house);
    let mut stale = wrong(house.dns(), &tables, |_| true);
    // What was wrong with fresh data is no news.
    stale.retain(|row| !fresh.iter().any(|other| row.is_of(other)));
    stale.extend(wrong(house.dns(), NEVER_ASKED_FOR, |_| true));
    let mut all = texts(&fresh);
    all.extend(stale.iter().map(|row| format!("with stale data: {row}")));
    all.extend(leaked(&upstream));
    none_wrong(&all);
}

/// Not even the cache of somebody else's question helps a stranger out of the house.
#[test]
fn nothing_leaves_the_house_for_who_may_not() {
    let (consul, upstream) = (consul(), upstream());
    let house = house(&consul.url(), Some(&upstream), true);
    let tables = [IN_THE_HOUSE, OUT_OF_THE_HOUSE].concat();
    let others = wrong(house.dns(), &tables, |who| !who.is_recursed_for());
    let mut all = texts(&others);
    let seen = upstream.seen();
    let asked = seen.iter().map(|seen| {
        let (name, rtype) = (&seen.name, seen.rtype);
        format!("for somebody who may not, the upstream was asked for {name} {rtype}")
    });
    all.extend(asked);
    none_wrong(&all);
}

#[test]
fn without_upstreams_the_house_is_all_there_is() {
    let consul = consul();
    let house = house(&consul.url(), None, true);
    let tables = [IN_THE_HOUSE, WITHOUT_UPSTREAMS].concat();
    none_wrong(&texts(&wrong(house.dns(), &tables, |_| true)));
}
