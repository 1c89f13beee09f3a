//! The Lease by which one of several kubepass is chosen to write statuses. Clocks of others are never trusted: a Lease is over when this process
//! saw it unchanged for as long as it lasts.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};

use super::ClusterSource;

/// Tries within the time that a Lease lasts.
const TRIES: u32 = 5;

/// What is known of the Lease: what it said, and since when it says so.
#[derive(Debug)]
struct Watched {
    said: Said,
    since: Instant,
}

/// Who holds it, and when they said so, by a clock of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    holder: String,
    renewed: Option<String>,
    seconds: u64,
}

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Renew,
    Take,
    Wait,
}

impl Watched {
    fn look(before: Option<Self>, said: Said, now: Instant) -> Self {
        match before {
            Some(before) if before.said == said => before,
            _ => Self { said, since: now },
        }
    }

    fn step(&self, me: &str, now: Instant) -> Step {
        if self.said.holder == me {
            Step::Renew
        } else if self.said.holder.is_empty() || now.duration_since(self.since) > Duration::from_secs(self.said.seconds) {
            Step::Take
        } else {
            Step::Wait
        }
    }
}

impl ClusterSource {
    /// Keeps asking for the Lease, and renews it while it is held.
    pub(super) async fn hold_lease(&self) {
        let lasts = Duration::from_secs(self.settings.lease.seconds);
        let pause = lasts / TRIES;
        let mut watched = None;
        let mut held_until: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let answer = timeout(pause * 2, self.try_lease(&mut watched)).await;
            if let Ok(Ok(_)) = answer {
                self.health.reached(asked);
            }
            match answer {
                // It is given up before anybody else may take it.
                Ok(Ok(true)) => held_until = Some(asked + lasts * 2 / 3),
                Ok(Ok(false)) => held_until = None,
                Ok(Err(error)) => tracing::debug!(%error, "cluster_source.lease_failed"),
                Err(_) => tracing::debug!("cluster_source.lease_failed: no answer in time"),
            }
            let leads = held_until.is_some_and(|until| Instant::now() < until);
            self.leading.send_if_modified(|before| std::mem::replace(before, leads) != leads);
            self.health.leads(leads);
            sleep(pause).await;
        }
    }

    /// Gives the Lease back, so that another kubepass need not wait until it is over.
    pub(super) async fn release_lease(&self) {
        if !*self.leading.borrow() {
            return;
        }
        let release = async {
            let api = self.leases();
            let lease = api.get(&self.settings.lease.name).await?;
            if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(self.book.identity()) {
                let lease = self.written(lease, "");
                api.replace(&self.settings.lease.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        // Whoever does not get it back finds it over a little later.
        let _ = timeout(Duration::from_secs(2), release).await;
    }

    async fn try_lease(&self, watched: &mut Option<Watched>) -> Result<bool, kube::Error> {
        let (api, name, me) = (self.leases(), &self.settings.lease.name, self.book.identity());
        let Some(lease) = api.get_opt(name).await? else {
            let new = Lease { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, spec: None };
            api.create(&PostParams::default(), &self.written(new, me)).await?;
            return Ok(true);
        };
        let now = Instant::now();
        let looked = Watched::look(watched.take(), said(&lease), now);
        let step = looked.step(me, now);
        *watched = Some(looked);
        if step == Step::Wait {
            return Ok(false);
        }
        // With the resource version that was read: of two who try, one is told of a conflict.
        api.replace(name, &PostParams::default(), &self.written(lease, me)).await?;
        Ok(true)
    }

    fn written(&self, lease: Lease, holder: &str) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let before = lease.spec.unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(holder);
        let transitions = before.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(self.settings.lease.seconds).ok(),
            acquire_time: if same { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        Lease { metadata: lease.metadata, spec: Some(spec) }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }
}

fn said(lease: &Lease) -> Said {
    let spec = lease.spec.clone().unwrap_or_default();
    Said {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0.to_string()),
        seconds: spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_when_it_stood_unchanged_for_as_long_as_it_lasts() {
        let start = Instant::now();
        let said = |holder: &str, renewed: u32| Said { holder: holder.to_owned(), renewed: Some(renewed.to_string()), seconds: 15 };
        let later = |seconds| start + Duration::from_secs(seconds);
        let check = |seen: &[(&str, u32, u64)], want: Step| {
            let (mut watched, mut now) = (None, start);
            for (holder, renewed, at) in seen {
                now = later(*at);
                watched = Some(Watched::look(watched, said(holder, *renewed), now));
            }
            assert_eq!(watched.map(|watched| watched.step("me", now)), Some(want), "{seen:?}");
        };
        check(&[("me", 1, 0)], Step::Renew);
        check(&[("", 1, 0)], Step::Take);
        check(&[("other", 1, 0)], Step::Wait);
        check(&[("other", 1, 0), ("other", 1, 14)], Step::Wait);
        check(&[("other", 1, 0), ("other", 1, 16)], Step::Take);
        check(&[("other", 1, 0), ("other", 2, 10), ("other", 2, 20)], Step::Wait);
        check(&[("other", 1, 0), ("third", 1, 14), ("third", 1, 28)], Step::Wait);
        check(&[("other", 1, 0), ("third", 1, 14), ("third", 1, 30)], Step::Take);
    }
}
