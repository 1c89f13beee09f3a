//! Tokens between two runs: one login token for each installation, one session token for each route, in a folder that only the user reads;
//! what was learnt of how to reach them; and the locks by which parallel runs wait for each other.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcetera::BaseStrategy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::address::{InstallationAddress, RouteAddress};
use super::caller::Caller;
use super::private_file::{create_private_folder, open_private, replace, replace_unsynced};
use super::random::sha256_hex;
use super::trust::RememberedTrust;

/// A bearer token; never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Token(String);

impl Token {
    #[cfg(test)]
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// What a login gave; it renews session tokens as long as the session lives. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CachedLogin {
    pub(crate) installation: String,
    pub(crate) login_token: Token,
    pub(crate) expires_at: u64,
    pub(crate) user: String,
    /// [`Wire::authorities`](super::installation::Wire::authorities) of the login.
    #[serde(default)]
    pub(crate) authorities: Vec<String>,
}

/// A session token and who was given it. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CachedSession {
    pub(crate) route: String,
    pub(crate) installation: String,
    pub(crate) session_token: Token,
    pub(crate) obtained_at: u64,
    pub(crate) expires_at: u64,
    #[serde(default)]
    handed_to: Vec<Caller>,
}

/// A token is handed out no longer this many seconds before its end, so that it does not end on its way.
const MARGIN_SECONDS: u64 = 60;
/// Callers remembered for one token; the oldest are forgotten first.
const MAX_CALLERS: usize = 64;
/// Between two attempts to get a lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

impl CachedSession {
    pub(crate) fn new(route: &RouteAddress, installation: &InstallationAddress, session_token: Token, now: u64, expires_at: u64) -> Self {
        Self {
            route: route.to_string(),
            installation: installation.to_string(),
            session_token,
            obtained_at: now,
            expires_at,
            handed_to: Vec::new(),
        }
    }

    /// When kubectl must ask again: before the token's end, by a margin that leaves a short-lived token most of its life.
    pub(crate) fn usable_until(&self) -> u64 {
        let lifetime = self.expires_at.saturating_sub(self.obtained_at);
        self.expires_at.saturating_sub(MARGIN_SECONDS.min(lifetime / 5))
    }

    /// Whether the token may be given to this caller: alive, and not given to it before. A caller that cannot be told apart never gets a token
    /// out of the cache, because it may be the one that was refused.
    pub(crate) fn is_good_for(&self, caller: Option<&Caller>, now: u64) -> bool {
        now < self.usable_until() && caller.is_some_and(|caller| !self.handed_to.contains(caller))
    }

    pub(crate) fn hand_to(&mut self, caller: Option<&Caller>) {
        let excess = (self.handed_to.len() + 1).saturating_sub(MAX_CALLERS);
        self.handed_to.drain(..excess);
        self.handed_to.extend(caller.cloned());
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("there is no home folder to keep tokens in; set HOME or XDG_CACHE_HOME")]
    NoHome,
    #[error("cannot use the token cache {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("another kubepass is still logging in; gave up waiting for it")]
    LockTimeout,
}

/// Holds a lock until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct CacheLock {
    _file: File,
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct TokenCache {
    folder: PathBuf,
}

impl TokenCache {
    /// `kubepass` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`; `%LOCALAPPDATA%` on Windows).
    pub(crate) fn of_user() -> Result<Self, CacheError> {
        let strategy = etcetera::choose_base_strategy().map_err(|_| CacheError::NoHome)?;
        Self::open(strategy.cache_dir().join("kubepass"))
    }

    pub(crate) fn open(folder: PathBuf) -> Result<Self, CacheError> {
        create_private_folder(&folder).map_err(|source| CacheError::Io { path: folder.clone(), source })?;
        Ok(Self { folder })
    }

    pub(crate) fn session(&self, route: &RouteAddress) -> Option<CachedSession> {
        self.read::<CachedSession>(&self.session_path(route)).filter(|session| session.route == route.to_string())
    }

    /// Does not wait for the disk: kubectl waits for this at each of its calls, and a session that is lost with the machine's power is fetched anew.
    pub(crate) fn put_session(&self, route: &RouteAddress, session: &CachedSession) -> Result<(), CacheError> {
        self.write_by(replace_unsynced, &self.session_path(route), session)
    }

    pub(crate) fn login(&self, installation: &InstallationAddress) -> Option<CachedLogin> {
        self.read::<CachedLogin>(&self.login_path(installation)).filter(|login| login.installation == installation.to_string())
    }

    pub(crate) fn put_login(&self, installation: &InstallationAddress, login: &CachedLogin) -> Result<(), CacheError> {
        self.write(&self.login_path(installation), login)
    }

    /// All logins, ordered by installation.
    pub(crate) fn logins(&self) -> Vec<CachedLogin> {
        let mut logins: Vec<CachedLogin> = self.files("login-").iter().filter_map(|path| self.read(path)).collect();
        logins.sort_by(|one, other| one.installation.cmp(&other.installation));
        logins
    }

    /// Forgets the login and every session token that came of it.
    pub(crate) fn forget_installation(&self, installation: &str) -> Result<(), CacheError> {
        for path in self.files("session-") {
            if self.read::<CachedSession>(&path).is_none_or(|session| session.installation == installation) {
                self.remove(&path)?;
            }
        }
        self.remove(&self.path("login", installation))
    }

    pub(crate) fn forget_route(&self, route: &RouteAddress) -> Result<(), CacheError> {
        self.remove(&self.session_path(route))
    }

    pub(crate) fn forget_all(&self) -> Result<(), CacheError> {
        self.files("session-").iter().chain(&self.files("login-")).try_for_each(|path| self.remove(path))
    }

    /// Kept apart from the logins: it must outlive them, so that the next login finds it.
    pub(crate) fn trust(&self, address: &str) -> Option<RememberedTrust> {
        self.read::<RememberedTrust>(&self.path("trust", address)).filter(|trust| trust.address == address)
    }

    pub(crate) fn put_trust(&self, trust: &RememberedTrust) -> Result<(), CacheError> {
        self.write(&self.path("trust", &trust.address), trust)
    }

    /// One run at a time per route, so that a token is not handed out twice; always taken before [`Self::lock_installation`].
    pub(crate) fn lock_route(&self, route: &RouteAddress, deadline: Instant) -> Result<CacheLock, CacheError> {
        self.lock(&self.path("lock-route", &route.to_string()), deadline)
    }

    /// One login at a time per installation, so that five kubectl open one browser tab.
    pub(crate) fn lock_installation(&self, installation: &InstallationAddress, deadline: Instant) -> Result<CacheLock, CacheError> {
        self.lock(&self.path("lock-login", &installation.to_string()), deadline)
    }

    fn lock(&self, path: &Path, deadline: Instant) -> Result<CacheLock, CacheError> {
        let io_error = |source| CacheError::Io { path: path.to_owned(), source };
        let file = open_private(path).map_err(io_error)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(CacheLock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => return Err(CacheError::LockTimeout),
                Err(TryLockError::Error(source)) => return Err(io_error(source)),
            }
        }
    }

    fn session_path(&self, route: &RouteAddress) -> PathBuf {
        self.path("session", &route.to_string())
    }

    fn login_path(&self, installation: &InstallationAddress) -> PathBuf {
        self.path("login", &installation.to_string())
    }

    fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.folder.join(format!("{kind}-{}.json", sha256_hex(key)))
    }

    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
    }

    /// A file that cannot be read or understood is as good as none: the next login replaces it.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        parse(&std::fs::read(path).ok()?)
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), CacheError> {
        self.write_by(replace, path, value)
    }

    fn write_by<T: Serialize>(&self, replace: fn(&Path, &[u8]) -> io::Result<()>, path: &Path, value: &T) -> Result<(), CacheError> {
        let text = serde_json::to_vec(value).map_err(io::Error::from);
        text.and_then(|text| replace(path, &text)).map_err(|source| CacheError::Io { path: path.to_owned(), source })
    }

    fn remove(&self, path: &Path) -> Result<(), CacheError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CacheError::Io { path: path.to_owned(), source }),
            _ => Ok(()),
        }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// The kinds of cache file (`login`, `session`, `trust`) that these bytes are taken for. For the fuzz target: a file may have been cut short, or come
/// from another version.
pub fn understood(bytes: &[u8], now: u64) -> Vec<&'static str> {
    let session = parse::<CachedSession>(bytes).map(|mut session| {
        session.hand_to(None);
        // Nobody is handed a token that may be the refused one.
        debug_assert!(!session.is_good_for(None, now));
        "session"
    });
    let login = parse::<CachedLogin>(bytes).map(|_| "login");
    let trust = parse::<RememberedTrust>(bytes).map(|_| "trust");
    [login, session, trust].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn session(obtained_at: u64, expires_at: u64) -> CachedSession {
        let (route, installation) = addresses();
        CachedSession::new(&route, &installation, Token::new("secret".to_owned()), obtained_at, expires_at)
    }

    fn addresses() -> (RouteAddress, InstallationAddress) {
        (RouteAddress::parse("https://prod.example.com").unwrap(), InstallationAddress::parse("https://pass.example.com").unwrap())
    }

    #[test]
    fn margins() {
        for (obtained_at, expires_at, usable_until) in [(0, 3_600, 3_540), (100, 110, 108), (100, 101, 101), (100, 50, 50)] {
            assert_eq!(session(obtained_at, expires_at).usable_until(), usable_until);
        }
    }

    #[test]
    fn never_twice_to_one_caller() {
        let callers: Vec<Caller> =
            (0..70).map(|number| serde_json::from_str(&format!(r#"{{"process":{number},"started":"1"}}"#)).unwrap()).collect();
        let (first, last) = (callers.first(), callers.last());
        let mut session = session(0, 3_600);
        assert!(session.is_good_for(first, 10));
        assert!(!session.is_good_for(None, 10));
        session.hand_to(first);
        assert!(!session.is_good_for(first, 10));
        assert!(session.is_good_for(last, 10));
        assert!(!session.is_good_for(last, 3_540));
        callers.iter().for_each(|caller| session.hand_to(Some(caller)));
        assert_eq!(session.handed_to.len(), MAX_CALLERS);
        assert!(!session.is_good_for(last, 10));
    }

    #[test]
    fn keeps_and_forgets() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TokenCache::open(folder.path().join("kubepass")).unwrap();
        let (route, installation) = addresses();
        assert_eq!((cache.session(&route), cache.login(&installation)), (None, None));
        let login = CachedLogin {
            installation: installation.to_string(),
            login_token: Token::new("login".to_owned()),
            expires_at: 9,
            user: "foo".to_owned(),
            authorities: Vec::new(),
        };
        let put = || {
            cache.put_login(&installation, &login).unwrap();
            cache.put_session(&route, &session(0, 9)).unwrap();
        };
        put();
        assert_eq!((cache.session(&route), cache.login(&installation)), (Some(session(0, 9)), Some(login.clone())));
        assert_eq!(cache.logins(), std::slice::from_ref(&login));
        cache.forget_route(&route).unwrap();
        assert_eq!((cache.session(&route), cache.login(&installation)), (None, Some(login.clone())));
        put();
        cache.forget_installation("https://other.example.com").unwrap();
        assert_eq!(cache.session(&route), Some(session(0, 9)));
        cache.forget_installation(&installation.to_string()).unwrap();
        assert_eq!((cache.session(&route), cache.login(&installation)), (None, None));
        put();
        cache.forget_all().unwrap();
        cache.forget_all().unwrap();
        assert_eq!((cache.session(&route), cache.logins()), (None, Vec::new()));
        std::fs::write(cache.session_path(&route), "{").unwrap();
        assert_eq!(cache.session(&route), None);
        assert_eq!(format!("{login:?}").matches("Token(..)").count(), 1);
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TokenCache::open(folder.path().to_owned()).unwrap();
        let (route, _) = addresses();
        let held = cache.lock_route(&route, Instant::now()).unwrap();
        assert!(matches!(cache.lock_route(&route, Instant::now()), Err(CacheError::LockTimeout)));
        drop(held);
        cache.lock_route(&route, Instant::now()).unwrap();
    }
}
