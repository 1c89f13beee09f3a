//! What may be answered at each moment. While a change is on its way, that is the old answer and the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::super::support::world::{PROD_HOST, STAGING_HOST};
use super::installation::{EXTRA_HOST, OBJECT_HOST};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// By foo, who may.
    Prod,
    Staging,
    /// By foo; a rule of the policy may forbid it.
    ProdServices,
    StagingServices,
    /// Without a credential.
    Stranger,
    /// By bar, whose session may be over.
    Bar,
    /// By foo, on a route that is not always there.
    Extra,
    /// The same, where the route is an object of an API server, whose policy may forbid it.
    Object,
}

/// Answers of one kind of request: `200`, or `403 change 7`.
type Answers = BTreeSet<String>;

/// All of them since the beginning, each time they changed.
#[derive(Clone)]
pub(super) struct Expected(Arc<Mutex<Vec<BTreeMap<Ask, Answers>>>>);

/// A place in the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(usize);

impl Ask {
    pub(super) const ALL: [Self; 8] =
        [Self::Prod, Self::Staging, Self::ProdServices, Self::StagingServices, Self::Stranger, Self::Bar, Self::Extra, Self::Object];

    pub(super) fn host(self) -> &'static str {
        match self {
            Self::Prod | Self::ProdServices | Self::Stranger | Self::Bar => PROD_HOST,
            Self::Staging | Self::StagingServices => STAGING_HOST,
            Self::Extra => EXTRA_HOST,
            Self::Object => OBJECT_HOST,
        }
    }

    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::ProdServices | Self::StagingServices | Self::Object => "services",
            _ => "configmaps",
        }
    }

    pub(super) fn user(self) -> Option<&'static str> {
        match self {
            Self::Stranger => None,
            Self::Bar => Some("bar"),
            _ => Some("foo"),
        }
    }
}

impl Default for Expected {
    /// Of the installation as it starts: no rule against services, no further routes, and bar is not there.
    fn default() -> Self {
        let at_first = |ask: Ask| match ask {
            Ask::Stranger | Ask::Bar => "401",
            Ask::Extra | Ask::Object => "404",
            _ => "200",
        };
        let first = Ask::ALL.into_iter().map(|ask| (ask, Answers::from([at_first(ask).to_owned()]))).collect();
        Self(Arc::new(Mutex::new(vec![first])))
    }
}

impl Expected {
    pub(super) fn now(&self) -> Moment {
        Moment(self.0.lock().unwrap().len() - 1)
    }

    /// From now on these may be answered as well.
    pub(super) fn also(&self, asks: &[Ask], answer: &str) {
        self.change(|now| asks.iter().for_each(|ask| _ = now.get_mut(ask).unwrap().insert(answer.to_owned())));
    }

    /// From now on only this may be answered.
    pub(super) fn only(&self, asks: &[Ask], answer: &str) {
        self.change(|now| now.extend(asks.iter().map(|ask| (*ask, Answers::from([answer.to_owned()])))));
    }

    /// No longer this one.
    pub(super) fn no_longer(&self, asks: &[Ask], answer: &str) {
        self.change(|now| asks.iter().for_each(|ask| _ = now.get_mut(ask).unwrap().remove(answer)));
    }

    /// What a request that was sent at `moment` may be answered now.
    pub(super) fn since(&self, moment: Moment, ask: Ask) -> Answers {
        self.0.lock().unwrap()[moment.0..].iter().flat_map(|answers| answers[&ask].iter().cloned()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Ask, Answers>)) {
        let mut history = self.0.lock().unwrap();
        let mut now = history.last().unwrap().clone();
        change(&mut now);
        history.push(now);
    }
}
