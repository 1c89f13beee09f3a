//! What Envoy is told: resources built from a snapshot, and the ADS stream as a state machine. No I/O, no clock: the shell moves the messages.

pub mod bootstrap;
pub mod difference;
pub mod dump;
pub mod resource;
pub mod resources;
pub mod stream;
