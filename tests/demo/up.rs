//! `make demo-up`: the installation stays until Ctrl-C.

use std::process::ExitCode;

use super::support::ports::free_port;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::{Method, PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions, cli_binary};

pub(super) fn run() -> ExitCode {
    let tools = Tools::ensure();
    println!("starting two clusters, a provider, kubepass and its Envoy (about 20 s) ...");
    let options = WorldOptions { port: free_port(), port_in_urls: true, staging: Method::Jwt, ..WorldOptions::default() };
    let world = World::start(tools, Run::new("up"), options);
    let ca = world.run.file("kubepass/ca.pem");
    println!("\nkubepass is up. In another terminal:\n");
    println!("  # once, as root: names for kubectl (browsers know *.localhost by themselves)");
    println!("  echo '127.0.0.1 {PUBLIC_HOST} {PROD_HOST} {STAGING_HOST}' >> /etc/hosts\n");
    println!("  export PATH={}:{}:$PATH", cli_binary().parent().expect("a folder").display(), tools.bin().display());
    println!("  export KUBECONFIG=$(mktemp)");
    println!("  kubepass kubeconfig {} --ca-file {}", world.url(PROD_HOST), ca.display());
    println!("  kubectl auth whoami            # the browser opens; log in as foo, bar or eve, any password");
    println!("  kubepass kubeconfig {} --ca-file {}   # the second cluster, by signed tokens", world.url(STAGING_HOST), ca.display());
    println!("\nlogin page:      {}   (its certificate is signed by {})", world.url(PUBLIC_HOST), ca.display());
    println!("configuration:   {}   (changes are taken live)", world.config_path().display());
    println!("audit trail:     {}", world.audit_path().display());
    println!("cluster admin:   kubectl --kubeconfig {}", world.prod.admin_kubeconfig().display());
    println!("metrics:         http://127.0.0.1:{}/metrics", world.admin_port);
    println!("\nstop with Ctrl-C: everything ends with this process.");
    loop {
        std::thread::park();
    }
}
