//! (module expression)
