//! (module access)
