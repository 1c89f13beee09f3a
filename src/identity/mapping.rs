//! `IdentityMapping`: the CEL of one identity provider that makes an identity of verified claims, or says why not.
//! In doubt there is no identity. A name that no header, log or person can hold is refused here, once, and never mended: a repaired name
//! would be another name. Which names may reach a cluster (`system:`, allow-lists) is decided at the route.

mod refusal;

use serde_json::{Map, Value as Json};

use crate::expression::{CompileError, EvaluationError, Expected, Expression, FieldValue, Fields, Schema, Type, Value};
use crate::identity::{Groups, Identity, NameFault, Principal, claims, name};

pub use refusal::MappingRefusal;

/// An identity provider may put someone into at most this many groups; how many may reach a cluster is the route's to say.
pub const MAX_GROUPS: usize = 1024;

/// How the claims of one identity provider become an identity.
#[derive(Debug, Clone)]
pub struct IdentityMapping {
    username: Expression,
    username_prefix: String,
    email_domains: Vec<String>,
    groups: Option<GroupsExpression>,
    require: Require,
}

/// Which of the expressions of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingField {
    Username,
    Groups,
    Require,
}

#[derive(Debug, Clone)]
struct GroupsExpression {
    expression: Expression,
    /// The claim that it reads, when it is a plain path (`claims.groups`, `claims.realm_access.roles`): then a missing claim is no groups.
    /// In any other expression a missing claim is an error, since the rest of it may name groups that some rule denies by.
    plain_claim: Option<String>,
}

#[derive(Debug, Clone)]
enum Require {
    Nothing,
    /// The default when the username comes from an e-mail address: a self-asserted address must not become a name.
    VerifiedEmail,
    Expression(Expression),
}

impl IdentityMapping {
    /// Compiles CEL over `claims`. Without `groups` nobody has any. Without `require`, a username that uses an e-mail claim demands
    /// `claims.email_verified`.
    ///
    /// # Errors
    /// Every fault in every expression, with the expression that it is in.
    pub fn compile(username: &str, groups: Option<&str>, require: Option<&str>) -> Result<Self, Vec<(MappingField, CompileError)>> {
        let mut errors = Vec::new();
        let mut compile = |field: MappingField, source: &str, expected: Expected| {
            let schema = Schema::new([("claims", Type::map(Type::Dynamic))]);
            let result = Expression::compile(source, &schema, expected);
            result.map_err(|faults| errors.extend(faults.into_iter().map(|fault| (field, fault)))).ok()
        };
        let username_expression = compile(MappingField::Username, username, Expected::Text);
        let groups = groups.map(|source| {
            let expression = compile(MappingField::Groups, source, Expected::TextOrTextList)?;
            Some(GroupsExpression { expression, plain_claim: plain_claim(source) })
        });
        let require = match require {
            Some(source) => compile(MappingField::Require, source, Expected::Bool).map(Require::Expression),
            None if username.contains("email") => Some(Require::VerifiedEmail),
            None => Some(Require::Nothing),
        };
        match (username_expression, groups.map_or(Some(None), |groups| groups.map(Some)), require) {
            (Some(username), Some(groups), Some(require)) if errors.is_empty() => {
                Ok(Self { username, username_prefix: String::new(), email_domains: Vec::new(), groups, require })
            }
            _ => Err(errors),
        }
    }

    /// Puts `prefix` before every username, so that those of several identity providers stay apart.
    #[must_use]
    pub fn with_username_prefix(self, prefix: impl Into<String>) -> Self {
        Self { username_prefix: prefix.into(), ..self }
    }

    /// Takes only usernames (before the prefix) and e-mail addresses in one of these domains (lower case, exact, no subdomains); an empty
    /// list takes all.
    #[must_use]
    pub fn with_email_domains(self, domains: Vec<String>) -> Self {
        Self { email_domains: domains, ..self }
    }

    pub fn username_prefix(&self) -> &str {
        &self.username_prefix
    }

    pub fn email_domains(&self) -> &[String] {
        &self.email_domains
    }

    /// Whether both make the same of any claims.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let groups = |mapping: &Self| mapping.groups.as_ref().map(|groups| groups.expression.source().to_owned());
        let require = |mapping: &Self| match &mapping.require {
            Require::Nothing => (false, None),
            Require::VerifiedEmail => (true, None),
            Require::Expression(expression) => (false, Some(expression.source().to_owned())),
        };
        self.username.source() == other.username.source()
            && groups(self) == groups(other)
            && require(self) == require(other)
            && self.username_prefix == other.username_prefix
            && self.email_domains == other.email_domains
    }

    /// Names of the claims that the expressions read by name (`claims.name`), so that a client of the provider can tell what is still to be
    /// asked for. A name may stand twice.
    pub fn claims_read(&self) -> impl Iterator<Item = &str> {
        let requirement = match &self.require {
            Require::Expression(expression) => Some(expression),
            Require::Nothing | Require::VerifiedEmail => None,
        };
        let groups = self.groups.as_ref().map(|groups| &groups.expression);
        let sources = [Some(&self.username), groups, requirement].into_iter().flatten().map(Expression::source);
        let name_end = |character: char| !(character.is_ascii_alphanumeric() || character == '_');
        sources
            .flat_map(|source| source.split("claims.").skip(1))
            .filter_map(move |rest| rest.split(name_end).next().filter(|name| !name.is_empty()))
    }

    /// The identity of someone of whom the identity provider `idp` says these claims. The claims must have been verified.
    ///
    /// # Errors
    /// Why they make no identity, and what to do.
    pub fn map(&self, idp: &str, claims: &Map<String, Json>) -> Result<Identity, MappingRefusal> {
        let claims = claims::kept(claims)?;
        let subject = subject(&claims)?;
        self.check_requirement(&claims)?;
        let username = self.username(&claims)?;
        let email = self.email(&claims)?;
        let groups = self.groups(&claims)?;
        Ok(Identity { principal: Principal { idp: idp.to_owned(), subject }, username, email, groups, claims })
    }

    fn check_requirement(&self, claims: &Map<String, Json>) -> Result<(), MappingRefusal> {
        match &self.require {
            Require::Nothing => Ok(()),
            Require::VerifiedEmail if email_verified(claims) == Some(true) => Ok(()),
            Require::VerifiedEmail => Err(MappingRefusal::EmailNotVerified),
            Require::Expression(expression) => match expression.evaluate_bool(&Variables(claims)) {
                Ok(true) => Ok(()),
                Ok(false) => Err(MappingRefusal::RequirementNotMet { missing: None }),
                Err(EvaluationError::Missing(claim)) => Err(MappingRefusal::RequirementNotMet { missing: Some(claim) }),
                Err(error) => Err(MappingRefusal::RequirementFailed(error)),
            },
        }
    }

    fn username(&self, claims: &Map<String, Json>) -> Result<String, MappingRefusal> {
        let name = match self.username.evaluate(&Variables(claims)).map_err(MappingRefusal::UsernameFailed)? {
            Value::Text(name) => name,
            other => {
                return Err(MappingRefusal::UsernameFailed(EvaluationError::WrongType { wanted: "string", found: other.type_name() }));
            }
        };
        name::check(&name).map_err(MappingRefusal::UsernameInvalid)?;
        self.check_domain(&name)?;
        let username = format!("{}{name}", self.username_prefix);
        name::check(&username).map_err(MappingRefusal::UsernameInvalid)?;
        Ok(username)
    }

    /// The claim `email`, when it is known to be verified: by `email_verified`, or where the provider says nothing of it, by the
    /// configuration's own `require`. Otherwise empty: rules read it, and an address that anyone can type must match none of them.
    fn email(&self, claims: &Map<String, Json>) -> Result<String, MappingRefusal> {
        let Some(Json::String(email)) = claims.get("email") else { return Ok(String::new()) };
        let trusted = match email_verified(claims) {
            Some(verified) => verified,
            None => matches!(self.require, Require::Expression(_)) && !claims.contains_key("email_verified"),
        };
        if !trusted || email.is_empty() {
            return Ok(String::new());
        }
        name::check(email).map_err(MappingRefusal::EmailInvalid)?;
        // `eve@evil.example@example.com`: who sends mail may take the first, a rule takes the last (CVE-2026-40574).
        if email.matches('@').count() > 1 {
            return Err(MappingRefusal::EmailInvalid(NameFault::SeveralDomains));
        }
        self.check_domain(email)?;
        Ok(email.clone())
    }

    fn check_domain(&self, address: &str) -> Result<(), MappingRefusal> {
        // At the first `@`: with a second one in it, the rest is none of the domains.
        let domain = address.split_once('@').filter(|(local, _)| !local.is_empty()).map(|(_, domain)| domain.to_ascii_lowercase());
        if self.email_domains.is_empty() || domain.is_some_and(|domain| self.email_domains.contains(&domain)) {
            Ok(())
        } else {
            Err(MappingRefusal::OutsideDomains)
        }
    }

    fn groups(&self, claims: &Map<String, Json>) -> Result<Groups, MappingRefusal> {
        let Some(groups) = &self.groups else { return Ok(Groups::default()) };
        let names = match groups.expression.evaluate(&Variables(claims)) {
            Ok(value) => texts(value)?,
            Err(EvaluationError::Missing(_)) if groups.plain_claim.as_deref().is_some_and(|claim| is_elsewhere(claims, claim)) => {
                return Err(MappingRefusal::GroupsElsewhere);
            }
            Err(EvaluationError::Missing(_)) if groups.plain_claim.is_some() => Vec::new(),
            Err(error) => return Err(MappingRefusal::GroupsFailed(error)),
        };
        if names.len() > MAX_GROUPS {
            return Err(MappingRefusal::TooManyGroups { count: names.len() });
        }
        for (index, group) in names.iter().enumerate() {
            name::check(group).map_err(|fault| MappingRefusal::GroupInvalid { position: index + 1, fault })?;
        }
        Ok(Groups::from(names))
    }
}

/// No value is no groups, one text is one group.
fn texts(value: Value) -> Result<Vec<String>, MappingRefusal> {
    match value {
        Value::Null => Ok(Vec::new()),
        other => other.into_texts().map_err(MappingRefusal::GroupsFailed),
    }
}

fn subject(claims: &Map<String, Json>) -> Result<String, MappingRefusal> {
    let subject = claims.get("sub").and_then(Json::as_str).ok_or(MappingRefusal::NoSubject)?;
    name::check(subject).map_err(|_| MappingRefusal::NoSubject)?;
    Ok(subject.to_owned())
}

/// `None` when the provider says nothing that can be understood. Some providers write the boolean as a text.
fn email_verified(claims: &Map<String, Json>) -> Option<bool> {
    match claims.get("email_verified")? {
        Json::Bool(verified) => Some(*verified),
        Json::String(text) if text == "true" => Some(true),
        Json::String(text) if text == "false" => Some(false),
        _ => None,
    }
}

/// Whether the provider left the claim out of the token and says where it could be asked for (OpenID Connect Core 1.0, 5.6.2): what a
/// provider does when someone is in very many groups. That is not the same as being in none.
fn is_elsewhere(claims: &Map<String, Json>, claim: &str) -> bool {
    claims.get("_claim_names").and_then(Json::as_object).is_some_and(|names| names.contains_key(claim))
}

/// `groups` of `claims.groups`, `realm_access` of `claims.realm_access.roles`; `None` for an expression that is more than a path.
fn plain_claim(source: &str) -> Option<String> {
    let mut parts = source.trim().split('.').map(str::trim);
    if parts.next() != Some("claims") {
        return None;
    }
    let parts: Vec<&str> = parts.collect();
    let is_identifier = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
    };
    parts.first().filter(|_| parts.iter().all(|part| is_identifier(part))).map(|first| (*first).to_owned())
}

#[derive(Debug)]
struct Variables<'a>(&'a Map<String, Json>);

impl Fields for Variables<'_> {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        (name == "claims").then_some(FieldValue::JsonMap(self.0))
    }
}

#[cfg(test)]
mod tests;
