//! Readings of the store that are under way: whoever asks for a session that is being read waits for that reading. So a burst of requests of one session
//! that rests is one reading, and takes one place among those that wait for the store.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};

use crate::server::store::StoreError;
use crate::session::{Session, SessionId};

/// What a reading found. Whether it counts, each who waited asks the table for themselves.
pub(super) type Found = Result<Option<Arc<Session>>, StoreError>;

type Reading = BoxFuture<'static, Found>;

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Readings(Arc<Mutex<HashMap<SessionId, WeakShared<Reading>>>>);

/// A reading's place in the list, until it has its answer, or all who waited for it have gone.
struct Listed {
    readings: Readings,
    id: SessionId,
}

impl Readings {
    /// What the reading of this session finds that is under way; where none is, `read` begins one. It goes on while anybody waits for it. A failure is
    /// everybody's who waited, and nobody's who asks afterwards.
    pub(super) async fn join<F>(&self, id: SessionId, read: impl FnOnce() -> F) -> Found
    where
        F: Future<Output = Found> + Send + 'static,
    {
        self.reading(id, read).await
    }

    fn reading<F>(&self, id: SessionId, read: impl FnOnce() -> F) -> Shared<Reading>
    where
        F: Future<Output = Found> + Send + 'static,
    {
        let mut under_way = self.under_way();
        // Not one that has its answer: that is as old as its reading, which somebody who asks now did not wait for.
        let known = under_way.get(&id).and_then(WeakShared::upgrade).filter(|reading| reading.peek().is_none());
        if let Some(known) = known {
            return known;
        }
        let (listed, read) = (Listed { readings: self.clone(), id }, read());
        let reading = async move {
            let _listed = listed;
            read.await
        };
        let reading = reading.boxed().shared();
        under_way.extend(reading.downgrade().map(|reading| (id, reading)));
        reading
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<SessionId, WeakShared<Reading>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    /// Where another reading has taken the place at this very moment, it is this one's that goes: whoever asks next begins one more.
    fn drop(&mut self) {
        self.readings.under_way().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::cell::Cell;

    use futures::future::join_all;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    fn id(number: u8) -> SessionId {
        SessionId::from_random([number; 16])
    }

    /// A reading that ends in this way when the gate opens.
    fn behind(gate: &Arc<Semaphore>, found: fn() -> Found) -> impl Future<Output = Found> + use<> {
        let gate = Arc::clone(gate);
        async move { gate.acquire().await.map_or(Ok(None), |_| found()) }
    }

    #[tokio::test]
    async fn those_who_ask_together_share_one_reading() {
        let (readings, count, gate) = (Readings::default(), Cell::new(0), Arc::new(Semaphore::new(0)));
        let read = || {
            count.set(count.get() + 1);
            behind(&gate, || Ok(None))
        };
        let mut all = Box::pin(join_all((0..200).map(|number| readings.join(id(number % 2), read))));
        assert!((&mut all).now_or_never().is_none());
        gate.add_permits(2);
        assert!(all.await.iter().all(|found| matches!(found, Ok(None))));
        assert_eq!(count.get(), 2, "one for each session");
        assert!(readings.under_way().is_empty(), "nothing is kept of those that are through");
        readings.join(id(0), read).await.unwrap();
        assert_eq!(count.get(), 3, "who asks afterwards is told nothing old");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_waited_and_to_nobody_else() {
        let (readings, gate) = (Readings::default(), Arc::new(Semaphore::new(0)));
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(readings.join(id(1), || behind(&gate, || Err(StoreError::Slow))))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        gate.add_permits(3);
        assert!(matches!(waiting.pop().unwrap().await, Err(StoreError::Slow)));
        // The others have not seen their answer yet.
        assert!(matches!(readings.join(id(1), || async { Ok(None) }).await, Ok(None)));
        assert!(join_all(waiting).await.iter().all(|found| matches!(found, Err(StoreError::Slow))));
    }

    #[tokio::test]
    async fn who_leaves_takes_the_reading_from_nobody() {
        let readings = Readings::default();
        let (answer, read) = oneshot::channel();
        let mut first = Box::pin(readings.join(id(1), || async { read.await.unwrap() }));
        let mut second = Box::pin(readings.join(id(1), || async { Err(StoreError::Full) }));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        answer.send(Ok(None)).unwrap();
        assert!(matches!(second.await, Ok(None)));

        // All of them: nothing waits for the store, and nothing is kept.
        let (answer, read) = oneshot::channel();
        let mut only = Box::pin(readings.join(id(1), || async { read.await.unwrap() }));
        assert!((&mut only).now_or_never().is_none());
        drop(only);
        assert!(answer.is_closed() && readings.under_way().is_empty());
    }
}
