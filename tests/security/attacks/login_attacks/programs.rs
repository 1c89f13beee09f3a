//! The login of a command line, on a computer that others use too: a port that was left, a code that somebody else reads, a program that says it is
//! another, and pomerium-cli's leg, in which the token itself travels through the browser.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::stage::{ATTACKER, HONEST, Stage, VICTIM, email, encoded, value};
use crate::attack::{Attack, Verdict};
use crate::scene::Scene;
use crate::support::browser::Browser;
use crate::support::kubectl::Running;
use crate::support::person::Person;
use crate::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("stolen-loopback-port", "RFC 8252 8.3", "another listener on the port that a CLI left", stolen_port),
    Attack::new("second-user-guesses", "RFC 8252 8.9", "callbacks of another user of the computer to a CLI that waits", second_user),
    Attack::new("dns-rebinding-loopback", "CVE-2018-5702 and its kind", "the CLI's listener under other names", rebinding),
    Attack::new(
        "code-read-by-another",
        "RFC 7636 1",
        "a code that another program read, with every verifier but the right one",
        interception,
    ),
    Attack::new("code-of-another-program", "RFC 8252 8.6", "the victim's code with the attacker's challenge or address", foreign_program),
    Attack::new("code-after-the-end", "CVE-2022-31677", "codes and login tokens of sessions that ended", after_the_end),
    Attack::new("code-as-token", "RFC 8725 3.11", "codes, states, verifiers and login tokens as bearers of API servers", as_token),
    Attack::new(
        "pomerium-leg-unasked",
        "pomerium: token in the address",
        "pomerium-cli's login where the route does not say so",
        pomerium_unasked,
    ),
    Attack::new("login-secrets-in-logs", "CWE-532", "codes, states, cookies and tokens of log-ins in every log", in_logs),
];

/// The verifier of RFC 7636, appendix B, which the attacker's program knows, and its challenge.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A CLI of the victim's that waits for the browser, and the page that it wants opened.
struct Waiting {
    person: Person,
    cli: Running,
    page: Url,
}

impl Waiting {
    fn new(stage: &Stage<'_>) -> Self {
        let world = &stage.scene.world;
        let person = world.person(VICTIM);
        person.away(true);
        let ca = world.run.file("kubepass/ca.pem").display().to_string();
        let mut cli = person.kubepass_command().start(&["login", &world.url(PROD_HOST), "--ca-file", &ca, "--timeout", "50s"]);
        let page = cli.wait_error_line("the login page", |line| line.trim().starts_with("https://"));
        let page = Url::parse(page.trim()).unwrap();
        Self { person, cli, page }
    }

    fn redirect(&self) -> Url {
        Url::parse(&value(&self.page, "redirect_uri")).unwrap()
    }

    fn port(&self) -> u16 {
        self.redirect().port().unwrap()
    }

    /// The victim logs in, says yes, and the browser is about to go to this address.
    fn says_yes(&self) -> Url {
        self.person.browse(|browser| browser.stop_at(|url| url.host_str() == Some("127.0.0.1") && url.path() == "/callback"));
        let page = self.person.visit(self.page.as_str());
        self.person.browse(|browser| browser.stop_at(|_| false));
        let url = Url::parse(&page.url).unwrap();
        assert!(url.path() == "/callback" && url.query().is_some(), "{page}");
        url
    }
}

/// The answer of `/cli/token`: the login token, or nothing.
fn redeem(stage: &Stage<'_>, code: &str, verifier: &str, redirect_uri: &str) -> Option<String> {
    let form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier), ("redirect_uri", redirect_uri)];
    let answer = stage.scene.world.client().post(stage.at("/cli/token")).form(&form).send().unwrap();
    let answer: Value = answer.json().unwrap_or_default();
    answer["login_token"].as_str().map(str::to_owned)
}

/// From a login token to a session token, as far as it goes.
pub(super) fn session_token(stage: &Stage<'_>, login_token: &str, host: &str) -> Option<String> {
    let request = stage.scene.world.client().post(stage.at("/cli/session-token")).bearer_auth(login_token);
    let answer: Value = request.form(&[("host", host)]).send().unwrap().json().unwrap_or_default();
    answer["session_token"].as_str().map(str::to_owned)
}

/// The CLI is gone (its user pressed Ctrl-C) and somebody else listens when the victim says yes at last.
fn stolen_port(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "stolen-loopback-port");
    let Waiting { person, mut cli, page } = Waiting::new(&stage);
    let redirect = Url::parse(&value(&page, "redirect_uri")).unwrap();
    let taken = TcpListener::bind(("127.0.0.1", redirect.port().unwrap()));
    stage.expect(taken.is_err(), "the port can be had beside the CLI that listens there");
    cli.interrupt();
    cli.stop();
    let listener = TcpListener::bind(("127.0.0.1", redirect.port().unwrap())).expect("the port is free again");
    let (sender, got) = mpsc::channel();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let count = connection.read(&mut head).unwrap();
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        let _ = sender.send(String::from_utf8_lossy(&head[..count]).into_owned());
    });
    person.visit(page.as_str());
    let head = got.recv_timeout(Duration::from_secs(20)).expect("the browser comes");
    let target = head.split(' ').nth(1).expect("a target");
    let code = value(&redirect.join(target).unwrap(), "code");
    for verifier in [VERIFIER, &value(&page, "code_challenge"), &"A".repeat(43), "", &value(&page, "state")] {
        let token = redeem(&stage, &code, verifier, redirect.as_str());
        stage.note(if token.is_some() { "a token" } else { "no token" });
        stage.expect(token.is_none(), "the code was worth a login token to who had the port");
    }
    stage.opens_nothing(&code);
    stage.verdict()
}

/// What another user sees of the victim: processes with their arguments, ports. Not: the CLI's memory and files.
fn second_user(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "second-user-guesses");
    let mut waiting = Waiting::new(&stage);
    let redirect = waiting.redirect();
    let mut own = stage.logged_in(ATTACKER);
    // A code of the attacker's own, made for the attacker's program.
    let theirs = mint(&stage, &mut own, redirect.as_str(), CHALLENGE);
    for (query, what) in [
        (format!("code={theirs}&state=wrong"), "a wrong state"),
        (format!("code={theirs}"), "no state"),
        (format!("code={theirs}&state="), "an empty state"),
        ("error=access_denied&state=wrong".to_owned(), "a refusal with a wrong state"),
        (format!("state=wrong&code={theirs}&state=wrong"), "two states"),
    ] {
        let status = knock(redirect.port().unwrap(), &format!("GET /callback?{query}"), &format!("127.0.0.1:{}", redirect.port().unwrap()));
        stage.note(format!("CLI {status}"));
        stage.expect(status >= 400, format!("{what}: {status}"));
    }
    for line in ["POST /callback?code=x&state=y", "GET /", "GET /callback/../x", "GET http://evil.example/callback?code=x", "nonsense"] {
        let status = knock(redirect.port().unwrap(), line, &format!("127.0.0.1:{}", redirect.port().unwrap()));
        stage.expect(status == 0 || status >= 400, format!("{line}: {status}"));
    }
    stage.expect(waiting.cli.is_running(), "the CLI gave up");
    // The port cannot be had, and nothing of the login is in a place that another user reads.
    stage.expect(TcpListener::bind(("127.0.0.1", waiting.port())).is_err(), "the port can be had");
    stage.expect(!readable_by_others(&waiting.person), "the CLI's files can be read by others");
    // The victim's login is not disturbed.
    waiting.person.visit(waiting.page.as_str());
    let output = waiting.cli.finish();
    stage.expect(output.stderr.contains(&format!("as {}.", email(VICTIM))), format!("the victim's login: {}", output.stderr));
    stage.verdict()
}

fn readable_by_others(person: &Person) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = person.home.join("cache/kubepass");
    let open = |path: &std::path::Path| std::fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o077 != 0);
    open(&folder) || std::fs::read_dir(&folder).into_iter().flatten().flatten().any(|entry| open(&entry.path()))
}

/// The status of the CLI's own listener; 0 when it says nothing.
fn knock(port: u16, line: &str, host: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A page of the attacker's whose name was made to point to this computer knows neither state nor code; but were it to, the name still gives it away.
fn rebinding(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "dns-rebinding-loopback");
    let waiting = Waiting::new(&stage);
    let (port, state) = (waiting.port(), value(&waiting.page, "state"));
    let mut own = stage.logged_in(ATTACKER);
    let theirs = mint(&stage, &mut own, waiting.redirect().as_str(), &value(&waiting.page, "code_challenge"));
    for host in [
        format!("evil.example:{port}"),
        format!("localhost:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("[::1]:{port}"),
        "127.0.0.1".to_owned(),
        String::new(),
        format!("127.0.0.1:{port}\r\nHost: evil.example"),
    ] {
        let status = knock(port, &format!("GET /callback?code={theirs}&state={}", encoded(&state)), &host);
        stage.note(format!("CLI {status}"));
        stage.expect(status == 421 || status == 400, format!("under the name {host:?}: {status}"));
    }
    waiting.person.visit(waiting.page.as_str());
    let output = waiting.cli.finish();
    stage.expect(output.stderr.contains(&format!("as {}.", email(VICTIM))), format!("the victim's login: {}", output.stderr));
    stage.verdict()
}

/// A code for an address and a challenge, by a browser that is logged in and says yes.
fn mint(stage: &Stage<'_>, browser: &mut Browser, redirect_uri: &str, challenge: &str) -> String {
    let asked = stage
        .at(&format!("/cli/login?redirect_uri={}&code_challenge={challenge}&code_challenge_method=S256&state=s", encoded(redirect_uri)));
    browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    let page = browser.open(&asked);
    let form = page.form_for("confirm");
    let page = browser.submit_by(&page, &form, &[], "Let it in");
    browser.stop_at(|_| false);
    page.query("code").unwrap_or_else(|| panic!("no code\n{page}"))
}

const PROGRAM: &str = "http://127.0.0.1:45123/callback";

/// A session token of whoever is logged in in this browser, by a program of their own.
pub(super) fn token_of(stage: &Stage<'_>, browser: &mut Browser, host: &str) -> Option<String> {
    let login = redeem(stage, &mint(stage, browser, PROGRAM, CHALLENGE), VERIFIER, PROGRAM)?;
    session_token(stage, &login, host)
}

fn interception(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "code-read-by-another");
    let waiting = Waiting::new(&stage);
    let at_loopback = waiting.says_yes();
    let (code, redirect) = (value(&at_loopback, "code"), waiting.redirect());
    for verifier in [
        VERIFIER.to_owned(),
        value(&waiting.page, "code_challenge"),
        String::new(),
        "A".repeat(43),
        "A".repeat(129),
        format!("{VERIFIER}\0"),
    ] {
        let token = redeem(&stage, &code, &verifier, redirect.as_str());
        stage.note(if token.is_some() { "a token" } else { "no token" });
        stage.expect(token.is_none(), format!("{verifier:?} fits"));
    }
    // And the code is gone for its owner too: who was robbed is told so, and holds nothing either.
    let status = knock(
        waiting.port(),
        &format!("GET {}?{}", at_loopback.path(), at_loopback.query().unwrap()),
        &format!("127.0.0.1:{}", waiting.port()),
    );
    stage.note(format!("CLI {status}"));
    let error = waiting.cli.finish().err();
    stage.expect(error.contains("used") || error.contains("log in again"), format!("the victim is told {error}"));
    // By other ways to ask.
    let mut victim = stage.logged_in(VICTIM);
    for body in [
        "grant_type=authorization_code&code={code}&redirect_uri={uri}",
        "grant_type=authorization_code&code={code}&redirect_uri={uri}&code_verifier=",
        "grant_type=authorization_code&code={code}&redirect_uri={uri}&code_challenge={challenge}&code_challenge_method=plain&code_verifier={challenge}",
        "grant_type=client_credentials&code={code}&redirect_uri={uri}&code_verifier={challenge}",
        "grant_type=refresh_token&refresh_token={code}",
        "grant_type=authorization_code&code={code}&code=x&redirect_uri={uri}&code_verifier={challenge}",
    ] {
        let code = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
        let body = body.replace("{code}", &code).replace("{uri}", &encoded(PROGRAM)).replace("{challenge}", CHALLENGE);
        let answer = stage.raw(PUBLIC_HOST, "POST /cli/token HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded", &body);
        stage.note(answer.status.to_string());
        stage.expect(answer.status >= 400 && !answer.text().contains("login_token"), format!("{body}: {}", answer.text()));
        // Each code ends with its minute; a session has a few.
        redeem(&stage, &code, "spent", PROGRAM);
    }
    stage.verdict()
}

/// Codes are bound to the program that asked: to its address, its challenge, and the session of who said yes.
fn foreign_program(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "code-of-another-program");
    let mut victim = stage.logged_in(VICTIM);
    for (address, verifier) in [
        ("http://127.0.0.1:45124/callback", VERIFIER),
        ("http://127.0.0.1:45123/", VERIFIER),
        ("http://127.0.0.1:45123", VERIFIER),
        ("http://localhost:45123/callback", VERIFIER),
        ("http://[::1]:45123/callback", VERIFIER),
        ("", VERIFIER),
        ("https://prod.k8s.localhost/.kubepass/callback", VERIFIER),
        (PROGRAM, CHALLENGE),
    ] {
        let code = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
        let token = redeem(&stage, &code, verifier, address);
        stage.note(if token.is_some() { "a token" } else { "no token" });
        stage.expect(token.is_none(), format!("a code for {PROGRAM} is taken for {address:?}"));
        // A wrong try spends it.
        let token = redeem(&stage, &code, VERIFIER, PROGRAM);
        stage.expect(token.is_none(), "a second try is given");
    }
    // Its own is good, once.
    let code = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
    let first = redeem(&stage, &code, VERIFIER, PROGRAM);
    assert!(first.is_some(), "the right program gets its token");
    let second = redeem(&stage, &code, VERIFIER, PROGRAM);
    stage.expect(second.is_none(), "a code is good twice");
    stage.verdict()
}

fn after_the_end(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "code-after-the-end");
    let mut victim = stage.logged_in("gone");
    let token = redeem(&stage, &mint(&stage, &mut victim, PROGRAM, CHALLENGE), VERIFIER, PROGRAM).expect("a login token");
    let session = session_token(&stage, &token, PROD_HOST).expect("a session token");
    let open = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
    scene.world.operator(&["session", "revoke", "--user", &email("gone")]).ok();
    stage.is(&mut victim, None, "a revocation");
    let late = redeem(&stage, &open, VERIFIER, PROGRAM);
    stage.expect(late.is_none(), "a code outlives its session");
    for host in [PROD_HOST, STAGING_HOST] {
        let renewed = session_token(&stage, &token, host);
        stage.expect(renewed.is_none(), "a login token outlives its session");
    }
    stage.opens_nothing(&session);
    stage.opens_nothing(&token);
    stage.verdict()
}

fn as_token(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "code-as-token");
    let mut victim = stage.browser();
    let at_provider = stage.begin(&mut victim, HONEST);
    let login_cookie = victim.jar.cookies.iter().find(|cookie| cookie.name.contains("login")).expect("a login's cookie").value.clone();
    let back = stage.agree(&mut victim, &at_provider, VICTIM);
    victim.open(back.as_str());
    let code = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
    let form = victim.open(&stage.at("/")).form_for("Log out").value("form").expect("a form").to_owned();
    let spent = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
    let login = redeem(&stage, &spent, VERIFIER, PROGRAM).expect("a login token");
    let session = victim.jar.cookies.iter().find(|cookie| cookie.name.contains("session")).expect("a session").value.clone();
    for text in [&code, &login, &session, &login_cookie, &form, &value(&at_provider, "state"), &value(&back, "code"), VERIFIER] {
        stage.opens_nothing(text);
        stage.opens_nothing(&format!("Pomerium-{text}"));
        let renewed = (*text != login).then(|| session_token(&stage, text, PROD_HOST)).flatten();
        stage.expect(renewed.is_none(), format!("{text:?} passes for a login token"));
    }
    // The other way round: what is for an API server gets nothing from the login pages.
    let token = session_token(&stage, &login, PROD_HOST).expect("a session token");
    for host in [PROD_HOST, STAGING_HOST] {
        let renewed = session_token(&stage, &token, host);
        stage.expect(renewed.is_none(), "a session token renews itself");
    }
    stage.verdict()
}

/// Its weaker leg (the token stands in the address, and whoever opened the link is not known) exists only where a route asks for it.
fn pomerium_unasked(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "pomerium-leg-unasked");
    let mut victim = stage.logged_in(VICTIM);
    for host in [PROD_HOST, STAGING_HOST] {
        let answer = stage.raw(host, "GET /.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:45123 HTTP/1.1", "");
        stage.note(answer.status.to_string());
        stage.expect(answer.status >= 400, format!("{host} answers {}", answer.text()));
        victim.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
        let page = victim.open(&stage.at(&format!("/pomerium/login?redirect_uri=http://127.0.0.1:45123&route={host}")));
        victim.stop_at(|_| false);
        stage.refused(&page, "pomerium-cli's login");
    }
    let token = scene.token(VICTIM, crate::scene::PROD);
    stage.opens_nothing(&format!("Pomerium-{token}"));
    for path in ["/healthz", "/livez", "/.pomerium/api/v1/routes"] {
        let answer = stage.raw(PROD_HOST, &format!("GET {path} HTTP/1.1\r\nauthorization: Bearer Pomerium-{token}"), "");
        stage.expect(answer.status == 401, format!("{path} tells {}", answer.status));
    }
    stage.verdict()
}

/// A whole login, of a browser and of a command line; then every log is searched for what it must not hold.
fn in_logs(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-secrets-in-logs");
    let mut victim = stage.browser();
    let at_provider = stage.begin(&mut victim, HONEST);
    let back = stage.agree(&mut victim, &at_provider, VICTIM);
    let mut secrets: Vec<(&str, String)> = victim.jar.cookies.iter().map(|cookie| ("a login's cookie", cookie.value.clone())).collect();
    victim.open(back.as_str());
    victim.open(back.as_str());
    let code = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
    let unused = mint(&stage, &mut victim, PROGRAM, CHALLENGE);
    let login = redeem(&stage, &code, VERIFIER, PROGRAM).expect("a login token");
    redeem(&stage, &unused, "A", PROGRAM);
    let token = session_token(&stage, &login, PROD_HOST).expect("a session token");
    stage.opens_not(crate::scene::STAGING, &format!("authorization: Bearer {token}"));
    secrets.extend(victim.jar.cookies.iter().map(|cookie| ("a session's cookie", cookie.value.clone())));
    secrets.extend([
        ("the provider's code", value(&back, "code")),
        ("the nonce", value(&at_provider, "nonce")),
        ("the secret of the state", value(&at_provider, "state").split_once('.').expect("a secret").1.to_owned()),
        ("a code", code),
        ("a code that was not redeemed", unused),
        ("a verifier", VERIFIER.to_owned()),
        ("a login token", login),
        ("a session token", token),
        ("the client's secret", crate::support::idp::CLIENT_SECRET.to_owned()),
    ]);
    let run = &scene.world.run;
    let logs = std::fs::read_dir(run.path().join("logs")).unwrap().flatten().map(|entry| entry.path());
    // The provider and the API servers are not ours, and the first is told all of it.
    let ours = logs.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("kubepass")));
    let mut searched = 0;
    for path in ours.chain([scene.world.audit_path()]) {
        let text = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        searched += usize::from(!text.is_empty());
        for (what, secret) in &secrets {
            stage.expect(!text.contains(secret), format!("{what} stands in {}", path.display()));
        }
    }
    let metrics = scene.world.metric(&["kubepass"]).join("\n");
    secrets.iter().for_each(|(what, secret)| stage.expect(!metrics.contains(secret), format!("{what} stands in the metrics")));
    assert!(searched >= 2 && !metrics.is_empty(), "{searched} logs: nothing was searched");
    stage.note(format!("{} secrets in {searched} logs", secrets.len()));
    stage.verdict()
}
