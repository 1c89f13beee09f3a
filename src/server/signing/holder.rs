//! The keys of one kind of token: the ring in force, and what the store keeps of it (the ledger, and a key of our own where none is configured).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Config, KubernetesTarget, Method, Target};
use crate::server::signing::{SigningError, generate_pem};
use crate::server::store::{Record, Store};
use crate::token::{KeyChange, KeyLedger, KeyRing, SigningAlgorithm, SigningKey};

/// The algorithm of a key that we make for ourselves.
const OWN_ALGORITHM: SigningAlgorithm = SigningAlgorithm::Es256;

/// For whom tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Upstream,
    Assertion,
}

/// One writer (the task that follows the configuration), many readers.
#[derive(Debug)]
pub(super) struct KeyHolder {
    pub(super) kind: Kind,
    pub(super) ring: ArcSwap<KeyRing>,
    /// The key that the store keeps, with its text, when there is one.
    own: ArcSwapOption<OwnKey>,
    /// The ledger as the store has it.
    kept: ArcSwap<KeyLedger>,
    /// The ledger as log and audit trail tell it.
    recorded: ArcSwap<KeyLedger>,
    minted: AtomicU64,
    /// Whether it was said already that replicas need keys in common.
    warned: AtomicBool,
}

#[derive(Debug)]
struct OwnKey {
    key: Arc<SigningKey>,
    pem: SecretString,
}

impl KeyHolder {
    pub(super) async fn open(kind: Kind, config: &Config, store: &Store, now: u64) -> Result<Self, SigningError> {
        let ledger = Arc::new(load_ledger(kind, store).await?);
        let own = match load_own_key(kind, store).await? {
            Some(own) if !own.is_revoked(config) => Some(own),
            _ if kind.configured(config).is_empty() => Some(make_own_key(kind, store).await?),
            _ => None,
        };
        let own = own.map(Arc::new);
        let ring = build(kind, config, own.as_deref(), &ledger, now);
        keep_ledger(kind, store, ring.ledger()).await?;
        let holder = Self {
            kind,
            kept: ArcSwap::from_pointee(ring.ledger().clone()),
            ring: ArcSwap::from_pointee(ring),
            own: ArcSwapOption::new(own),
            recorded: ArcSwap::new(ledger),
            minted: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        };
        holder.warn_of_replicas(config);
        Ok(holder)
    }

    /// A holder of this ring, of which nothing is kept.
    #[cfg(test)]
    pub(super) fn of(kind: Kind, ring: KeyRing) -> Self {
        Self {
            kind,
            kept: ArcSwap::default(),
            ring: ArcSwap::from_pointee(ring),
            own: ArcSwapOption::empty(),
            recorded: ArcSwap::default(),
            minted: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn ring(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }

    /// Brings the ring to what is configured now. What cannot be kept is tried again at the next look; a key of our own that cannot be kept
    /// changes nothing.
    pub(super) async fn renew(&self, config: &Config, store: &Store, seal_anew: bool, now: u64) {
        let mut own = self.own.load_full().filter(|own| !own.is_revoked(config));
        if own.is_none() && self.kind.configured(config).is_empty() {
            match make_own_key(self.kind, store).await {
                Ok(made) => own = Some(Arc::new(made)),
                Err(error) => {
                    tracing::error!(key.tokens = self.kind.name(), %error, "signing_key.not_made");
                    return;
                }
            }
        }
        self.own.store(own.clone());
        self.warn_of_replicas(config);
        let before = self.ring.load();
        let ring = build(self.kind, config, own.as_deref(), before.ledger(), now);
        let ledger = ring.ledger().clone();
        self.ring.store(Arc::new(ring));
        if let Err(error) = self.keep(store, own.as_deref(), ledger, seal_anew).await {
            tracing::error!(key.tokens = self.kind.name(), %error, "signing_key.not_kept");
        }
    }

    /// Says it when routes begin to depend on a key that one store holds alone.
    fn warn_of_replicas(&self, config: &Config) {
        let depends = self.kind.configured(config).is_empty() && self.kind.is_used(config);
        if depends && !self.warned.swap(true, Ordering::Relaxed) {
            let (tokens, setting) = (self.kind.name(), self.kind.setting());
            tracing::warn!(
                key.tokens = tokens,
                "signing_key.own: routes depend on a key that only this store holds, and several replicas would each have another: configure `{setting}` for them"
            );
        }
    }

    async fn keep(&self, store: &Store, own: Option<&OwnKey>, ledger: KeyLedger, seal_anew: bool) -> Result<(), SigningError> {
        if let Some(own) = own.filter(|_| seal_anew) {
            keep_own_key(self.kind, store, &own.pem).await?;
        }
        if seal_anew || **self.kept.load() != ledger {
            keep_ledger(self.kind, store, &ledger).await?;
            self.kept.store(Arc::new(ledger));
        }
        Ok(())
    }

    /// What happened since the last call.
    pub(super) fn unrecorded_changes(&self) -> Vec<KeyChange> {
        let ring = self.ring.load();
        let changes = ring.ledger().changes_since(&self.recorded.load());
        self.recorded.store(Arc::new(ring.ledger().clone()));
        changes
    }

    pub(super) fn count_token(&self) {
        self.minted.fetch_add(1, Ordering::Relaxed);
    }

    /// Tokens signed since the start.
    pub(super) fn tokens_minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }
}

impl OwnKey {
    fn is_revoked(&self, config: &Config) -> bool {
        config.revoked_keys.contains(self.key.kid())
    }
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Assertion => "assertion",
        }
    }

    fn configured(self, config: &Config) -> &[Arc<SigningKey>] {
        match self {
            Self::Upstream => &config.signing_keys,
            Self::Assertion => &config.assertion_keys,
        }
    }

    /// Whether any route needs tokens of this kind.
    fn is_used(self, config: &Config) -> bool {
        config.routes.iter().any(|route| match self {
            Self::Upstream => matches!(&route.target, Target::Kubernetes(KubernetesTarget { method: Method::Jwt(_), .. })),
            Self::Assertion => !matches!(&route.target, Target::Kubernetes(_)),
        })
    }

    /// The key of the configuration that names the files.
    fn setting(self) -> &'static str {
        match self {
            Self::Upstream => "signing_keys",
            Self::Assertion => "assertion_keys",
        }
    }

    fn ledger_record(self) -> &'static str {
        match self {
            Self::Upstream => "upstream key ledger",
            Self::Assertion => "assertion key ledger",
        }
    }

    fn key_record(self) -> &'static str {
        match self {
            Self::Upstream => "upstream signing key",
            Self::Assertion => "assertion signing key",
        }
    }
}

/// The configured keys, and our own where there are none or while none of them may sign yet. Nothing is left of a revoked one.
fn build(kind: Kind, config: &Config, own: Option<&OwnKey>, before: &KeyLedger, now: u64) -> KeyRing {
    let own = own.filter(|own| !own.is_revoked(config)).map(|own| Arc::clone(&own.key));
    let (before, wait) = (before.without(&config.revoked_keys), config.publish_before_use_seconds);
    match kind.configured(config) {
        [] => KeyRing::new(own.into_iter().collect(), &before, wait, now),
        keys => KeyRing::with_stand_in(keys.to_vec(), own, &before, wait, now),
    }
}

/// The ring that [`KeyHolder::open`] would begin with; nothing is made or written.
pub(super) async fn at_rest(kind: Kind, config: &Config, store: Option<&Store>, now: u64) -> Result<KeyRing, SigningError> {
    let Some(store) = store else { return Ok(build(kind, config, None, &KeyLedger::default(), now)) };
    let (ledger, own) = (load_ledger(kind, store).await?, load_own_key(kind, store).await?);
    Ok(build(kind, config, own.as_ref(), &ledger, now))
}

async fn load_ledger(kind: Kind, store: &Store) -> Result<KeyLedger, SigningError> {
    let ledger = match store.record(kind.ledger_record()).await? {
        Record::Absent => return Ok(KeyLedger::default()),
        Record::Value(json) => serde_json::from_slice(&json).ok(),
        Record::Unreadable => None,
    };
    if ledger.is_none() {
        tracing::warn!(key.tokens = kind.name(), "signing_key.ledger_unreadable: the first configured key signs at once");
    }
    Ok(ledger.unwrap_or_default())
}

async fn keep_ledger(kind: Kind, store: &Store, ledger: &KeyLedger) -> Result<(), SigningError> {
    let json = serde_json::to_vec(ledger).map_err(|_| SigningError::Store(crate::server::store::StoreError::Encoding))?;
    Ok(store.put_record(kind.ledger_record(), &json).await?)
}

/// `None` when there is none that can be used.
async fn load_own_key(kind: Kind, store: &Store) -> Result<Option<OwnKey>, SigningError> {
    let pem = match store.record(kind.key_record()).await? {
        Record::Absent => return Ok(None),
        Record::Value(pem) => std::str::from_utf8(&pem).ok().map(SecretString::from),
        Record::Unreadable => None,
    };
    let own = pem.and_then(|pem| {
        let key = SigningKey::from_pem(pem.expose_secret(), Some(OWN_ALGORITHM)).ok()?;
        Some(OwnKey { key: Arc::new(key), pem })
    });
    if own.is_none() {
        tracing::warn!(key.tokens = kind.name(), "signing_key.own_key_unreadable: it is replaced when it is needed");
    }
    Ok(own)
}

async fn make_own_key(kind: Kind, store: &Store) -> Result<OwnKey, SigningError> {
    let pem = generate_pem(OWN_ALGORITHM)?;
    let key = SigningKey::from_pem(pem.expose_secret(), Some(OWN_ALGORITHM))?;
    keep_own_key(kind, store, &pem).await?;
    tracing::info!(key.tokens = kind.name(), key.id = key.kid(), "signing_key.made: none is configured, so the store keeps one");
    Ok(OwnKey { key: Arc::new(key), pem })
}

async fn keep_own_key(kind: Kind, store: &Store, pem: &SecretString) -> Result<(), SigningError> {
    Ok(store.put_record(kind.key_record(), pem.expose_secret().as_bytes()).await?)
}
