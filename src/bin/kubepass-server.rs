//! `kubepass-server`: the service and the operator's verbs. Only parses the command line and hands over.

#![forbid(unsafe_code)]

use tikv_jemallocator::Jemalloc;

/// A reload of a big configuration needs as much memory again for a moment; this allocator does not keep it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    kubepass::operator::main()
}
