//! `kubepass-server`: the service and the operator's verbs. Only parses the command line and hands over.

fn main() -> std::process::ExitCode {
    kubepass::operator::main()
}
