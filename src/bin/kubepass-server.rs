//! `kubepass-server`: the service and the operator's verbs. Only parses the command line and hands over.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kubepass::operator::main()
}
