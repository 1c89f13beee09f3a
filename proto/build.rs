//! Compiles kubepass's own API. Needs no `protoc`: protox is a compiler in Rust.

#![forbid(unsafe_code)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "server")]
    {
        let files = protox::compile(["kubepass/admin/v1/admin.proto"], ["proto"])?;
        tonic_prost_build::configure().compile_fds(files)?;
    }
    Ok(())
}
