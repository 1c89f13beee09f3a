//! (module xds)
