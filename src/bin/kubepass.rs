//! `kubepass`: the user's commands. Only parses the command line and hands over.

fn main() {}
