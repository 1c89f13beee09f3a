//! An identity provider that names people as Kubernetes names its own, or as nobody.

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::{ALL, Scene, Target};
use super::super::support::odd_names::REFUSED;
use super::super::support::world::PUBLIC_HOST;

/// People whose logins are among these get nowhere: refused at the login, or at each request.
fn refused(scene: &Scene, name: &'static str, is_one: fn(&str, &[&str]) -> bool) -> Verdict {
    let mut trial = scene.trial(name);
    let people: Vec<_> = REFUSED.iter().filter(|(_, email, groups)| is_one(email, groups)).collect();
    let count = people.len();
    // Some at a time: most of a login is waiting.
    let logged_in = |login: &'static str| {
        let page = scene.person(login).visit(&format!("{}/login", scene.world.url(PUBLIC_HOST)));
        scene.next();
        if page.status != 200 {
            return None;
        }
        let has_token = |target: &Target| {
            scene.person(login).kubepass(&token_arguments(scene, target.host).iter().map(String::as_str).collect::<Vec<_>>()).code
                == Some(0)
        };
        Some(ALL.into_iter().filter(has_token).collect::<Vec<_>>())
    };
    // With other defences their sessions may have ended since such an attack was made before: a token of one of these shows nothing.
    for (login, ..) in &people {
        scene.forget(login);
    }
    let mut tokens = Vec::new();
    for some in people.chunks(4) {
        tokens.extend(std::thread::scope(|scope| {
            let logged_in = &logged_in;
            let logging_in: Vec<_> = some.iter().map(|person| person.0).map(|login| scope.spawn(move || logged_in(login))).collect();
            logging_in.into_iter().map(|one| one.join().expect("a login is tried")).collect::<Vec<_>>()
        }));
    }
    for ((login, email, groups), tokens) in people.into_iter().zip(tokens) {
        let Some(tokens) = tokens else {
            // No session, so no token to send.
            trial.ended_as("refused at the login");
            continue;
        };
        trial = trial.by(login);
        for target in ALL {
            if tokens.contains(&target) {
                let request = "GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n\r\n";
                let sent = trial.raw_to(target, Some(target.host), request, Must::Stop);
                if sent.status() == 200 {
                    trial.finding(format!("{login} ({email:?}, {groups:?}) was let in on {}", target.route));
                }
            }
        }
    }
    assert!(count > 1, "{count} names");
    trial.by("foo").verdict()
}

fn token_arguments(scene: &Scene, host: &str) -> [String; 5] {
    let ca = scene.world.run.file("kubepass/ca.pem").display().to_string();
    ["k8s".to_owned(), "exec-credential".to_owned(), scene.world.url(host), "--ca-file".to_owned(), ca]
}

fn of_kubernetes(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    name.starts_with("system:") || name.starts_with("kubepass:")
}

fn has_control(name: &str) -> bool {
    name.chars().any(char::is_control)
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "users-of-kubernetes",
        "kube-apiserver: system: names",
        "an IdP says that somebody is system:node:n, a service account, anonymous",
        |scene| refused(scene, "users-of-kubernetes", |email, _| of_kubernetes(email)),
    ),
    Attack::new(
        "groups-of-kubernetes",
        "kube-apiserver: system:masters skips RBAC",
        "system:masters in every case, system:authenticated, kubepass's own",
        |scene| refused(scene, "groups-of-kubernetes", |_, groups| groups.iter().any(|group| of_kubernetes(group))),
    ),
    Attack::new(
        "blank-names",
        "an empty Impersonate-User is the service account",
        "no name, blanks, wide blanks, blanks around, invisible ones",
        |scene| {
            refused(scene, "blank-names", |email, groups| {
                email.trim() != email
                    || email.is_empty()
                    || groups.iter().any(|group| group.trim() != *group || group.chars().all(|c| c == '\u{200b}'))
            })
        },
    ),
    Attack::new("control-characters-in-names", "Envoy CVE-2023-27493", "CR, LF and NUL in names and groups", |scene| {
        refused(scene, "control-characters-in-names", |email, groups| has_control(email) || groups.iter().any(|group| has_control(group)))
    }),
    Attack::new(
        "groups-that-look-like-lists",
        "kubernetes #94683; Pomerium splits at commas",
        "commas, quotes, format strings: each arrives as one group, whole",
        |scene| {
            let mut trial = scene.trial("groups-that-look-like-lists").by("odd");
            trial.lines("accept: */*", Must::AsSelf);
            trial.verdict()
        },
    ),
    Attack::new("more-groups-than-fit", "never a truncation", "65 and 300 groups: refused on every route", |scene| {
        let mut trial = scene.trial("more-groups-than-fit");
        for login in ["sixty-five", "three-hundred"] {
            trial = trial.by(login);
            trial.lines("accept: */*", Must::Stop);
        }
        trial.by("foo").verdict()
    }),
];
