//! Services by address: families, tagged addresses, names for addresses, and odd ones.

use super::{ALT_DOMAIN, on};
use serde_json::{Value, json};

pub(super) fn all() -> Vec<Value> {
    [families(), hosts(), odd()].concat()
}

fn at(node: &str, service: &str, address: &str) -> Value {
    on(
        node,
        json!({ "Service": service, "Address": address, "Port": 80 }),
    )
}

fn plain(node: &str, service: &str) -> Value {
    on(node, json!({ "Service": service, "Port": 80 }))
}

fn tagged(node: &str, service: &str, address: &str, tagged: &[(&str, &str, u16)]) -> Value {
    let mut entry = at(node, service, address);
    for (tag, address, port) in tagged {
        entry["Service"]["TaggedAddresses"][tag] = json!({ "Address": address, "Port": port });
    }
    entry
}

fn families() -> Vec<Value> {
    vec![
        // An address that is the node's own is still an address of the service.
        at("n1", "same", "10.0.0.1"),
        // IPv6: by the service's address, by the node's, mixed with IPv4, and IPv4 on an IPv6 node.
        at("n1", "six", "fd00::1:1"),
        plain("n6", "onsix"),
        plain("n1", "mixed"),
        plain("n6", "mixed"),
        at("n6", "fouronsix", "10.1.0.6"),
        at("n1", "bigsix", "FD00::AB:CD"),
        // Both families, of the service and of the node.
        tagged(
            "n1",
            "dual",
            "10.5.0.1",
            &[("lan_ipv4", "10.5.0.1", 80), ("lan_ipv6", "fd00::5:1", 80)],
        ),
        plain("dual", "ondual"),
        plain("dualsix", "ondualsix"),
        at("dual", "fourondual", "10.5.0.2"),
        // Tagged addresses that are not the address.
        tagged(
            "n1",
            "taggedfour",
            "10.5.0.3",
            &[("lan_ipv4", "10.5.0.4", 81)],
        ),
        plain("apart", "onapart"),
        tagged(
            "n1",
            "wansvc",
            "10.5.0.5",
            &[("lan", "10.5.0.5", 80), ("wan", "198.51.100.5", 8080)],
        ),
        plain("wan", "onwan"),
        plain("badtag", "onbadtag"),
    ]
}

/// Addresses that are names.
fn hosts() -> Vec<Value> {
    let two = |service: &str, ids: [(&str, &str); 2]| {
        ids.map(|(id, address)| {
            on(
                "n1",
                json!({ "Service": service, "ID": id, "Address": address, "Port": 443 }),
            )
        })
    };
    let mut all = vec![
        // Outside the domain.
        at("n1", "outside", "www.example.com"),
        at("n1", "outdot", "www.example.com."),
        at("n1", "outcase", "WWW.Example.Com"),
        at("n1", "outalias", "alias.example.com"),
        at("n1", "outdual", "dual.example.com"),
        at("n1", "outsix", "six.example.com"),
        at("n1", "outmany", "many.example.com"),
        at("n1", "outgone", "gone.example.com"),
        at("n1", "outempty", "empty.example.com"),
        at("n1", "outbroken", "broken.example.com"),
        at("n1", "outloop", "loop.example.com"),
        at("n1", "outunder", "under_score.example.com"),
        at("n1", "outshort", "localname"),
        at("ext", "extsvc", "www.example.com"),
        plain("ext", "onext"),
        plain("extalias", "onextalias"),
        plain("extin", "onextin"),
        plain("extself", "onextself"),
        // Inside it.
        at("n1", "alias", "api.service.consul"),
        at("n1", "aliasdot", "api.service.consul."),
        at("n1", "aliascase", "API.Service.Consul"),
        at("n1", "aliassix", "six.service.consul"),
        at("n1", "aliasdual", "dual.service.consul"),
        at("n1", "aliasnode", "n1.node.consul"),
        at("n1", "aliasext", "ext.node.consul"),
        at("n1", "aliasaddr", "0a010203.addr.consul"),
        at("n1", "aliasgone", "nope.service.consul"),
        at("n1", "aliasnone", "nokeyword.consul"),
        at("n1", "aliasdc9", "web.service.dc9.consul"),
        at("n1", "aliastag", "primary.web.service.consul"),
        at("n1", "aliasrfc", "_api._primary.service.consul"),
        at("n1", "aliasmany", "forty.service.consul"),
        at("n1", "aliasalt", &format!("api.service.{ALT_DOMAIN}")),
        // Chains, long and circular.
        at("n1", "chain1", "chain2.service.consul"),
        at("n1", "chain2", "chain3.service.consul"),
        at("n1", "chain3", "chain4.service.consul"),
        at("n1", "chain4", "api.service.consul"),
        at("n1", "loopa", "loopb.service.consul"),
        at("n1", "loopb", "loopa.service.consul"),
        at("n1", "self", "self.service.consul"),
        at("n1", "selfcase", "SelfCase.Service.Consul"),
        at("n6", "selfsix", "selfsix.service.consul"),
    ];
    // An address beside a name, the same name twice.
    all.extend(two(
        "hostmix",
        [("hostmix1", "10.1.0.20"), ("hostmix2", "www.example.com")],
    ));
    all.extend(two(
        "hostmixsix",
        [
            ("hostmixsix1", "fd00::20"),
            ("hostmixsix2", "www.example.com"),
        ],
    ));
    all.extend(two(
        "hosttwice",
        [
            ("hosttwice1", "www.example.com"),
            ("hosttwice2", "www.example.com"),
        ],
    ));
    all.extend(two(
        "hosttwo",
        [
            ("hosttwo1", "www.example.com"),
            ("hosttwo2", "alias.example.com"),
        ],
    ));
    all
}

/// Addresses that Consul takes and nobody can use, or nearly. (It takes 0.0.0.0 of nodes only.)
fn odd() -> Vec<Value> {
    vec![
        at("n1", "oddport", "10.1.1.1:99"),
        at("n1", "oddbrackets", "[2001:db8::5]"),
        at("n1", "oddmapped", "::ffff:10.2.2.2"),
        at("n1", "oddshort", "10.1.1"),
        at("n1", "oddspace", "a b"),
        at("n1", "oddzone", "fe80::1%eth0"),
        at("n1", "odddot", "10.1.1.1."),
        at("n1", "oddslash", "10.1.1.0/24"),
        plain("badport", "onbadport"),
        plain("mapped", "onmapped"),
        plain("zero", "onzero"),
        plain("zerosix", "onzerosix"),
    ]
}
