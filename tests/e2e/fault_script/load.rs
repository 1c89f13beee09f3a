//! Several people who ask all the time, on both routes: each request has a path of its own, and what was answered is kept.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::support::http;
use super::super::support::wait::eventually;
use super::super::support::world::{PROD_HOST, STAGING_HOST};
use super::scene::Scene;

pub(super) const HOSTS: [&str; 2] = [PROD_HOST, STAGING_HOST];
const PAUSE: Duration = Duration::from_millis(30);
/// For a connection or an answer; then it is silence.
const PATIENCE: Duration = Duration::from_secs(4);
/// By when all is served again after a fault, on a machine that does other things at the same time.
const RECOVERY: Duration = Duration::from_secs(45);

#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) host: &'static str,
    pub(super) login: String,
    pub(super) path: String,
    /// 0 for none.
    pub(super) status: u16,
    began: Instant,
    ended: Instant,
}

/// What was answered in a time.
#[derive(Debug, Default)]
pub(super) struct Period {
    pub(super) served: usize,
    pub(super) refused: usize,
    pub(super) silent: usize,
    pub(super) served_hosts: Vec<&'static str>,
    pub(super) statuses: std::collections::BTreeMap<u16, usize>,
}

pub(super) struct Load {
    exchanges: Arc<Mutex<Vec<Exchange>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(scene: &Scene) -> Self {
        let load = Self { exchanges: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        let number = Arc::new(AtomicUsize::new(1));
        let mut threads = Vec::new();
        for person in &scene.people {
            for host in HOSTS {
                let token = person.session_token(&scene.world.url(host));
                let (proxy, authority, login) = (scene.world.proxy.url(), scene.world.authority.pem().to_owned(), person.login.clone());
                let (exchanges, stop, number) = (Arc::clone(&load.exchanges), Arc::clone(&load.stop), Arc::clone(&number));
                threads.push(std::thread::spawn(move || {
                    let proxy = reqwest::Proxy::https(proxy).expect("the proxy's URL");
                    let client = http::builder(&[&authority]).proxy(proxy).timeout(PATIENCE).build().expect("a client");
                    while !stop.load(Ordering::Relaxed) {
                        let path = format!("/api/v1/namespaces/default/configmaps?limit={}", number.fetch_add(1, Ordering::Relaxed));
                        let began = Instant::now();
                        let answer = client.get(format!("https://{host}{path}")).bearer_auth(&token).send();
                        // A body that is cut off is no answer.
                        let status =
                            answer.and_then(|answer| Ok((answer.status().as_u16(), answer.bytes()?))).map_or(0, |(status, _)| status);
                        let exchange = Exchange { host, login: login.clone(), path, status, began, ended: Instant::now() };
                        exchanges.lock().unwrap().push(exchange);
                        std::thread::sleep(PAUSE);
                    }
                }));
            }
        }
        Self { threads, ..load }
    }

    /// Waits until every person is served on every route by a request that began after `since`; how long that took.
    pub(super) fn until_served(&self, what: &str, since: Instant) -> Duration {
        eventually(&format!("after {what}: everybody is served"), RECOVERY, || {
            let exchanges = self.exchanges.lock().unwrap();
            let first = |login: &str, host: &str| {
                let mut of = exchanges.iter().filter(|exchange| exchange.login == login && exchange.host == host);
                of.find(|exchange| exchange.status == 200 && exchange.began >= since).map(|exchange| exchange.ended - since)
            };
            let pairs = super::scene::PEOPLE.iter().flat_map(|login| HOSTS.iter().map(move |host| first(login, host)));
            pairs.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
        })
    }

    /// What began and ended between two moments.
    pub(super) fn period(&self, from: Instant, to: Instant) -> Period {
        let mut period = Period::default();
        for exchange in self.exchanges.lock().unwrap().iter().filter(|exchange| exchange.began >= from && exchange.ended <= to) {
            *period.statuses.entry(exchange.status).or_default() += 1;
            match exchange.status {
                200 => {
                    period.served += 1;
                    if !period.served_hosts.contains(&exchange.host) {
                        period.served_hosts.push(exchange.host);
                    }
                }
                0 => period.silent += 1,
                _ => period.refused += 1,
            }
        }
        period
    }

    pub(super) fn end(self) -> Vec<Exchange> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a person");
        }
        std::mem::take(&mut self.exchanges.lock().unwrap())
    }
}
