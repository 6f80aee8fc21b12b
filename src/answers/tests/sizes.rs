//! What is left of an answer when not all fits, and in which order it comes.

use proptest::prelude::*;

use super::*;

#[test]
fn addresses_rotate_only_while_all_fit() {
    let fits = catalog(vec![("web", fleet(3))], Vec::new());
    let first = |catalog: &Catalog, rotation| {
        let client = Client {
            rotation,
            ..UDP_4096
        };
        let message = ask(catalog, "web.service.consul", types::A, &client);
        message.answers[0].data.to_string()
    };
    let firsts: BTreeSet<String> = (0..3).map(|turn| first(&fits, turn)).collect();
    assert_eq!(firsts.len(), 3);
    let cut = catalog(vec![("web", fleet(1000))], Vec::new());
    assert_eq!(first(&cut, 0), first(&cut, 1));
}

#[test]
fn truncation_is_said_for_srv_and_not_for_addresses_or_glue() {
    let big = catalog(vec![("web", fleet(200))], Vec::new());
    let cut = |qtype, size| {
        let client = Client {
            edns: size,
            ..UDP_4096
        };
        let message = ask(&big, "web.service.consul", qtype, &client);
        (
            message.answers.len(),
            message.additionals.len(),
            message.metadata.truncation,
        )
    };
    assert!(!cut(types::A, Some(1232)).2);
    assert_eq!(cut(types::SRV, Some(8192)), (135, 135, true));
    // All 200 SRV records fit, their glue does not.
    let (answers, glue, truncated) = cut(types::SRV, Some(9000));
    assert_eq!((answers, truncated), (200, false));
    assert!(glue > 0 && glue < 200);
    assert_eq!(cut(types::SRV, Some(65535)), (200, 200, false));
    assert!(cut(types::SRV, None).2);
    let tc = Settings {
        truncate_addresses: true,
        ..Settings::default()
    };
    let client = Client {
        edns: None,
        ..UDP_4096
    };
    let bytes = reply_bytes(&big, &tc, ("web.service.consul", types::A), &client);
    assert!(
        Message::from_vec(&bytes)
            .expect("readable")
            .metadata
            .truncation
    );
}

#[test]
fn names_beyond_the_reach_of_a_pointer_are_spelt_out() {
    let catalog = catalog(vec![("web", fleet(800))], Vec::new());
    let tcp = Client {
        transport: Transport::Tcp,
        ..UDP_4096
    };
    let message = ask(&catalog, "web.service.consul", types::SRV, &tcp);
    let owners: Vec<String> = glue(&message)
        .into_iter()
        .map(|(owner, ..)| owner)
        .collect();
    assert_eq!(owners.len(), 800);
    assert!(owners == targets(&message));
    let cut = Client {
        edns: Some(50000),
        ..UDP_4096
    };
    let message = ask(&catalog, "web.service.consul", types::SRV, &cut);
    let owners: Vec<String> = glue(&message)
        .into_iter()
        .map(|(owner, ..)| owner)
        .collect();
    assert!(owners.len() > 500, "{}", owners.len());
    // More answers than owners: there all of the first fit, and not all of the second.
    assert!(owners.iter().all(|owner| targets(&message).contains(owner)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the size: it is kept, the reply can be read, no glue is without its answer, every
    /// kept answer of a cut set has its glue, and the set is this client's own every time.
    #[test]
    fn any_size(count in 1usize..400, size in 0u16..9000, srv in any::<bool>(), client in any::<u32>()) {
        let catalog = catalog(vec![("web", fleet(count))], Vec::new());
        let qtype = if srv { types::SRV } else { types::A };
        let client = Client { edns: Some(size), address: std::net::Ipv4Addr::from(client).into(), ..UDP_4096 };
        let bytes = reply_bytes(&catalog, &Settings::default(), ("web.service.consul", qtype), &client);
        prop_assert!(bytes.len() <= usize::from(size.max(512)));
        let message = Message::from_vec(&bytes).expect("readable");
        prop_assert!(!message.answers.is_empty());
        prop_assert!(message.edns.is_some());
        if srv {
            let targets: BTreeSet<String> = targets(&message).into_iter().collect();
            let owners: BTreeSet<String> = glue(&message).into_iter().map(|(owner, ..)| owner).collect();
            prop_assert!(owners.is_subset(&targets));
            if message.metadata.truncation {
                prop_assert_eq!(owners, targets);
            }
        }
        let again = Client { rotation: 5, ..client };
        let again = ask(&catalog, "web.service.consul", qtype, &again);
        prop_assert_eq!(data(&message), data(&again));
    }

    /// One instance less moves a cut set by at most one record, and clients differ.
    #[test]
    fn a_cut_set_hardly_moves(count in 60usize..150, gone in 0usize..60) {
        let ask_fleet = |instances: Vec<Instance>, address: [u8; 4]| {
            let catalog = catalog(vec![("web", instances)], Vec::new());
            let client = Client { edns: Some(1232), address: address.into(), ..UDP_4096 };
            let message = ask(&catalog, "web.service.consul", types::SRV, &client);
            data(&message).into_iter().collect::<BTreeSet<_>>()
        };
        let before = ask_fleet(fleet(count), [10, 0, 0, 1]);
        let mut fewer = fleet(count);
        fewer.remove(gone);
        let after = ask_fleet(fewer, [10, 0, 0, 1]);
        prop_assert!(before.difference(&after).count() <= 1);
        prop_assert!(after.difference(&before).count() <= 1);
        prop_assert_ne!(before, ask_fleet(fleet(count), [10, 0, 0, 2]));
    }
}
