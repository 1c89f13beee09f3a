//! The part of the story about the second cluster, which takes tokens that kubepass signs.

use super::story::{GROUP_MAY_EXEC, READ_PODS};
use super::support::http;
use super::support::person::Person;
use super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST, World};
use super::teller::Teller;

/// The API server takes it over while the story goes on at the first cluster.
pub(super) fn trust(teller: &mut Teller, world: &World) {
    teller.step(
        "On the second cluster kubepass gets no rights at all: its API server is told to trust the short-lived tokens that kubepass signs",
    );
    let cluster = &world.staging;
    let present = std::fs::read_to_string(cluster.authentication_config()).unwrap_or_default();
    let printed = world.authentication_config("staging", cluster, &[]);
    teller.note("$ kubepass-server cluster authentication-config staging --merge authentication.yaml      # among other lines:");
    for line in printed
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter(|line| line.contains("url:") || line.contains("expression:"))
    {
        teller.note(&format!("  {}", line.trim()));
    }
    let issuer = world.url(PUBLIC_HOST);
    teller.check("what the API server had is kept, and kubepass is its issuer", !present.contains(&issuer) && printed.contains(&issuer));
    cluster.set_authentication_config(&printed);
    teller.note("(kube-apiserver reads the changed --authentication-config by itself, within ten seconds)");
}

/// The prod context is the current one again afterwards.
pub(super) fn visit(teller: &mut Teller, world: &World, foo: &Person) {
    teller.step("The same developer, the same commands, on the second cluster");
    let cluster = &world.staging;
    world.until_trusted(cluster);
    cluster.apply(READ_PODS);
    cluster.apply(GROUP_MAY_EXEC);
    let url = world.url(STAGING_HOST);
    teller.command(&format!("kubepass kubeconfig {url}"), &foo.set_up(&url));
    let whoami = foo.kubectl(&["auth", "whoami"]);
    teller.command("kubectl auth whoami", &whoami);
    let same = whoami.stdout.contains("foo@example.com") && whoami.stdout.contains("[group1 group2 system:authenticated]");
    teller.check("the same user and groups, and no second login", same && foo.logins() == 1);
    let exec = foo.kubectl(&["exec", "web", "--", "echo", "hello from staging"]);
    teller.command("kubectl exec web -- echo hello from staging", &exec);
    teller.check("exec works", exec.stdout == "hello from staging\n");

    teller.step("What the API server of the second cluster knows: the person, the session, and no proxy in between");
    let event = cluster.audit_find("the exec", |event| event["objectRef"]["subresource"] == "exec");
    let session = &event["user"]["extra"]["kubepass.dev/session"][0];
    teller.note(&format!(
        "API server: {} {} of session {session}, impersonated: {}",
        event["auditID"], event["user"]["username"], event["impersonatedUser"]
    ));
    let told = world.audit_line("the exec", |line| line["event"] == "decision" && line["request_id"] == event["auditID"]);
    teller.note(&format!("kubepass:   {} {} of session {}", told["request_id"], told["user"], told["session"]));
    let direct = event["user"]["username"] == "foo@example.com" && event["impersonatedUser"].is_null();
    teller.check("foo@example.com itself, in the session of kubepass's trail", direct && *session == told["session"]);
    let rights = cluster.kubectl_admin(&["get", "clusterrolebinding,serviceaccount", "-A", "-o", "name"]);
    teller.check(
        "nothing on the cluster is called kubepass: there is no credential to steal",
        rights.code == Some(0) && !rights.stdout.contains("kubepass"),
    );
    let keys = world.operator(&["keys", "list"]);
    teller.command("kubepass-server keys list", &keys);
    teller.check("one key signs, and its public half is all that the API server needs", keys.stdout.contains(&world.signer().kid()));
    let own = foo.session_token(&url);
    let answer = http::client(&[cluster.ca_pem()]).get(format!("{}/version", cluster.url())).bearer_auth(own).send();
    let status = answer.map_or(0, |answer| answer.status().as_u16());
    teller.note(&format!("the developer's own token, straight to the API server: {status}"));
    teller.check("kubectl's token is worth nothing past kubepass", status == 401);
    foo.kubectl(&["config", "use-context", PROD_HOST]);
}
