//! Completes answers that lead out of our domains: instances and nodes whose address is the name
//! of a host elsewhere.
//!
//! The operator chose these names, so they are looked up for every client, whoever may recurse.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::answers::{Answer, Data, Glue, Outside, Record};
use crate::names::types;
use crate::recursion::Recursor;

use super::convert;

/// How long the answer may wait for what it is missing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks up what an answer is missing, all of it side by side, and puts it where it belongs. What
/// is not found in time is left out: the answer is right without it.
pub(super) async fn complete(answer: &mut Answer, recursor: &Arc<Recursor>, qtype: u16) {
    let mut lookups = JoinSet::new();
    // At most one alias or as many hosts as `answers` allows.
    for outside in std::mem::take(&mut answer.outside) {
        let recursor = Arc::clone(recursor);
        lookups.spawn(async move {
            let records = look_up(&outside, &recursor, qtype).await;
            (outside, records)
        });
    }
    let deadline = Instant::now() + PATIENCE;
    while let Ok(Some(found)) = timeout_at(deadline, lookups.join_next()).await {
        if let Ok((outside, records)) = found {
            put(answer, outside, records);
        }
    }
    // All A before any AAAA, in the order of the answers (D8).
    answer.additional.sort_by_key(|glue| {
        let rtype = glue.record.data.rtype();
        (rtype != types::A, glue.of)
    });
}

async fn look_up(outside: &Outside, recursor: &Recursor, qtype: u16) -> Vec<Record> {
    let Some(target) = convert::to_hickory(&outside.target) else {
        return Vec::new();
    };
    if outside.of.is_none() && qtype != types::ANY {
        let found = recursor.resolve(&target, RecordType::from(qtype)).await;
        return convert::from_recursion(found).answers;
    }
    // Upstreams may refuse ANY (RFC 8482), and both families are what is meant.
    let (v4, v6) = tokio::join!(
        recursor.resolve(&target, RecordType::A),
        recursor.resolve(&target, RecordType::AAAA)
    );
    let mut records = convert::from_recursion(v4).answers;
    // The aliases on the way are the same for both.
    let v6 = convert::from_recursion(v6).answers;
    records.extend(
        v6.into_iter()
            .filter(|record| matches!(record.data, Data::Aaaa(_))),
    );
    if outside.of.is_some() {
        records.retain(|record| matches!(record.data, Data::A(_) | Data::Aaaa(_)));
    }
    records
}

fn put(answer: &mut Answer, outside: Outside, records: Vec<Record>) {
    let records = records.into_iter().map(|record| Record {
        ttl: record.ttl.min(outside.max_ttl),
        ..record
    });
    match outside.of {
        None => answer.answers.extend(records),
        Some((of, owner)) => answer.additional.extend(records.map(|record| Glue {
            of,
            record: Record {
                owner: owner.clone(),
                ..record
            },
        })),
    }
}
