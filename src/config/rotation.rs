//! The same text, when what some routes name holds something else: a token or a CA was rotated. All that the text says was judged when the
//! configuration before was made of it, so only those contents are judged again.

use std::sync::Arc;

use super::certificate;
use super::error::{At, Faults, Spot};
use super::model::{Config, HttpTarget, KubernetesTarget, Method, Route, Target};
use super::reference::{Contents, Reference};
use super::resolving::Resolving;

/// What of a route is the content of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Ca,
    /// The service account's.
    Token,
}

/// Where the content of a reference goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The route's place among those of the configuration.
    pub route: usize,
    pub part: Part,
}

/// `before` with other contents where `rotated` says; `contents` holds them. `now` (Unix seconds) is the time at which certificates must be valid,
/// those too that are as before.
///
/// `None` where anything is not as it must be: what, and where it is written, is for a whole [`resolve`](super::resolve) to say.
pub fn rotate<'r>(
    before: &Config,
    rotated: impl IntoIterator<Item = (&'r Reference, Use)>,
    contents: &Contents,
    now: u64,
) -> Option<Config> {
    if !before.valid_at.contains(&now) {
        return None;
    }
    let mut resolving = Resolving::new(Faults::new(""), contents, "", now);
    let mut after = before.clone();
    for (reference, Use { route, part }) in rotated {
        let route = after.routes.get_mut(route)?;
        let mut new = Route::clone(route);
        put(part, &At { value: reference.clone(), spot: Spot::default() }, &mut new, &mut resolving)?;
        // One that is equal stays the one of before: see `Resolving::shared`.
        if new != **route {
            *route = Arc::new(new);
        }
    }
    after.valid_at = before.valid_at.start..before.valid_at.end.min(resolving.valid_at.end);
    resolving.faults.is_empty().then_some(after)
}

fn put(part: Part, reference: &At<Reference>, route: &mut Route, resolving: &mut Resolving<'_>) -> Option<()> {
    match (part, &mut route.target) {
        (Part::Ca, Target::Kubernetes(target)) => target.ca_pem = certificate::resolve_bundle(reference, resolving)?,
        (Part::Ca, Target::Http(HttpTarget { tls: Some(tls), .. })) => tls.ca_pem = certificate::resolve_bundle(reference, resolving)?,
        (Part::Token, Target::Kubernetes(KubernetesTarget { method: Method::Impersonate(method), .. })) => {
            method.token = resolving.token(reference)?;
        }
        _ => return None,
    }
    Some(())
}
