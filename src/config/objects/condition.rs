//! A verdict as the conditions of an object's status. Pure text: when it is written, and by whom, is for the shell.

use super::{InForce, Kind, Refusal, Verdict};

/// Envoys that a message names; the others are counted.
const MAX_NAMED: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub kind: &'static str,
    pub status: ConditionStatus,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// How far the connected Envoys are with one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Have it.
    pub acknowledged: Vec<String>,
    /// Do not have it yet.
    pub waiting: Vec<String>,
    /// Refused the change that brings it, and said why.
    pub refused: Vec<(String, String)>,
}

/// The conditions of the object that the verdict is about.
pub fn conditions(verdict: &Verdict, programmed: &Programmed) -> Vec<Condition> {
    let mut conditions = vec![judged("Accepted", verdict.refused.as_ref())];
    if verdict.id.kind != Kind::Policy {
        conditions.push(judged("ResolvedRefs", verdict.unresolved.as_ref()));
    }
    if let Some(in_force) = &verdict.in_force {
        conditions.push(in_envoys(in_force, programmed));
    }
    conditions
}

fn judged(kind: &'static str, refusal: Option<&Refusal>) -> Condition {
    match refusal {
        None => Condition { kind, status: ConditionStatus::True, reason: kind, message: String::new() },
        Some(refusal) => Condition { kind, status: ConditionStatus::False, reason: refusal.reason, message: refusal.message.clone() },
    }
}

fn in_envoys(in_force: &InForce, programmed: &Programmed) -> Condition {
    let condition = |status, reason, message| Condition { kind: "Programmed", status, reason, message };
    let has = || format!("acknowledged by {}", names(programmed.acknowledged.iter()));
    match in_force {
        InForce::No => condition(ConditionStatus::False, "NotInForce", "the route is not served".to_owned()),
        InForce::Previous(_) => {
            let message = "what the object says now cannot be used; it is served as it was before";
            condition(ConditionStatus::False, "PreviousInForce", message.to_owned())
        }
        InForce::Current(_) if !programmed.refused.is_empty() => {
            let refusals: Vec<String> = programmed.refused.iter().take(MAX_NAMED).map(|(node, why)| format!("{node}: {why}")).collect();
            condition(ConditionStatus::False, "Refused", refusals.join("\n"))
        }
        InForce::Current(_) if !programmed.waiting.is_empty() => {
            let message = format!("{}; waiting for {}", has(), names(programmed.waiting.iter()));
            condition(ConditionStatus::False, "Pending", message)
        }
        InForce::Current(_) if programmed.acknowledged.is_empty() => {
            condition(ConditionStatus::Unknown, "NoEnvoy", "no Envoy is connected".to_owned())
        }
        InForce::Current(_) => condition(ConditionStatus::True, "Programmed", has()),
    }
}

fn names<'a>(nodes: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = nodes.len();
    let mut text = nodes.take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if count > MAX_NAMED {
        text.push_str(&format!(" and {} more", count - MAX_NAMED));
    }
    if count == 0 { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_some_nodes_and_counts_the_others() {
        let check = |count: usize, want: &str| {
            let nodes: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
            assert_eq!(names(nodes.iter()), want);
        };
        check(0, "none");
        check(2, "n0, n1");
        check(17, "n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, n13, n14, n15 and 1 more");
    }
}
