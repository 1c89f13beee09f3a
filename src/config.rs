//! The configuration: `parse` (text to a draft and the files that it names) and `resolve` (draft and the contents of those files to a
//! `Config` in which every value is valid, or every located error at once). Does no I/O itself.

pub mod model;

pub use model::*;
