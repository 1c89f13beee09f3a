//! Rules compiled and evaluated to a `Verdict` that names the rules that made it.

/// The rules of one route, in order.
#[derive(Debug, Clone)]
pub struct Policy {}

/// CEL over `user` whose value is text or a list of texts (uid, extra).
#[derive(Debug, Clone)]
pub struct UserExpression {}
