#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{EvaluationError, Expected, Expression, Schema, Type, Value};

fn schema() -> Schema {
    let user = Type::object([
        ("name", Type::Text),
        ("email", Type::Text),
        ("groups", Type::list(Type::Text)),
        ("claims", Type::map(Type::Dynamic)),
        ("age", Type::Duration),
    ]);
    let request = Type::object([("time", Type::Timestamp), ("source_ip", Type::Text), ("read_only", Type::Bool)]);
    Schema::new([("user", user), ("request", request), ("claims", Type::map(Type::Dynamic))])
}

fn compile(source: &str) -> Result<Expression, String> {
    Expression::compile(source, &schema(), Expected::Bool)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Compiles as a bool and evaluates over one fixed user.
fn evaluate(source: &str) -> Result<bool, String> {
    let user = json!({
        "name": "ann", "email": "ann@example.com", "groups": ["dev", "sre"],
        "claims": {"department": "ops", "level": 3, "roles": ["a", "b"], "flag": true, "nothing": null, "https://x/y": {"z": "deep"}},
    });
    let request = json!({"source_ip": "10.1.2.3", "read_only": true});
    let expression = compile(source)?;
    match expression.evaluate_json(&[("user", &user), ("request", &request), ("claims", &user["claims"])]) {
        Ok(Value::Bool(flag)) => Ok(flag),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn evaluates() {
    let cases = [
        ("true", true),
        ("user.name == 'ann' && user.email.endsWith('@example.com')", true),
        ("'sre' in user.groups", true),
        ("!('admin' in user.groups)", true),
        ("user.groups.exists(g, g.startsWith('s'))", true),
        ("user.groups.all(g, g.startsWith('s'))", false),
        ("user.groups.exists_one(g, g == 'dev')", true),
        ("size(user.groups) == 2 && user.groups.size() == 2", true),
        ("size(user.groups.filter(g, g != 'dev')) == 1", true),
        ("'x-dev' in user.groups.map(g, 'x-' + g)", true),
        ("user.groups[0] == 'dev'", true),
        ("user.groups.exists(g, claims.roles.exists(r, g + r == 'srea'))", true),
        ("user.claims.department == 'ops'", true),
        ("has(user.claims.department) && !has(user.claims.nowhere)", true),
        ("'department' in user.claims", true),
        ("user.claims.level > 2 && user.claims.level == 3 && user.claims.level < 3.5", true),
        ("user.claims.flag", true),
        ("user.claims.nothing == null", true),
        ("'a' in user.claims.roles", true),
        ("user.claims['https://x/y'].z == 'deep'", true),
        ("user.claims.?nowhere.orValue('x') == 'x'", true),
        ("user.claims.?department.orValue('x') == 'ops'", true),
        ("user.claims.?nowhere.hasValue()", false),
        ("user.email.matches('^[a-z]+@example[.]com$')", true),
        ("matches(user.email, 'example')", true),
        ("user.email.matches('^example')", false),
        ("inCIDR(request.source_ip, '10.0.0.0/8')", true),
        ("inCIDR(request.source_ip, '192.168.0.0/16')", false),
        ("inCIDR(request.source_ip, '2001:db8::/32')", false),
        ("user.name in ['ann', 'bob']", true),
        ("user.name in {'ann': 1}", true),
        ("{'ann': 'x'}[user.name] == 'x'", true),
        ("user.name.upperAscii() == 'ANN' && 'ANN'.lowerAscii() == user.name", true),
        ("user.email.split('@')[1] == 'example.com'", true),
        ("user.groups.join('+') == 'dev+sre'", true),
        ("user.email.replace('@', ' at ') == 'ann at example.com'", true),
        ("size(user.groups + ['x']) == 3", true),
        ("duration('1h30m') > duration('89m')", true),
        ("timestamp('2026-01-01T00:00:00Z').getHours('+02:00') == 2", true),
        ("timestamp('2026-01-01T00:00:00Z') + duration('1h') == timestamp('2026-01-01T01:00:00Z')", true),
        ("(user.name == 'ann' ? 1 : 2) == 1", true),
        ("user.claims.nowhere == 'x' || true", true),
        ("user.name == 'ann' // a comment\n && true", true),
        (r#"user.name == "a\x6en" && r'\d' == '\\d' && '''a"b''' == "a\"b""#, true),
        ("int('5') + 1 == 6 && string(5) == '5' && double(2) == 2.0 && bool('true')", true),
    ];
    for (source, expected) in cases {
        assert_eq!(evaluate(source), Ok(expected), "{source}");
    }
}

#[test]
fn evaluation_errors_say_what_is_missing_and_repeat_no_value() {
    let cases = [
        ("user.claims.nowhere == 'x'", "`nowhere` is missing"),
        ("user.claims.department.x == 'x'", "field access does not take (string, string)"),
        ("user.claims.department", "the value is of type string, not bool"),
        ("!user.claims.level", "a value of type int stands where bool is needed"),
        ("user.claims.level && true", "`&&` does not take (int, bool)"),
        ("user.groups[7] == 'x'", "the index is outside the list"),
        ("'a' in user.claims.department", "`in` does not take (string, string)"),
        ("inCIDR(user.name, '10.0.0.0/8')", "`inCIDR` failed on its argument"),
        ("int(user.claims.department) == 1", "`int` failed on its argument"),
        ("1 / (user.claims.level - 3) == 1", "division by zero"),
        ("user.claims.level.matches('x')", "`matches` does not take (int, pattern)"),
    ];
    for (source, expected) in cases {
        let found = compile(source).map(|expression| {
            let user = json!({"name": "ann", "groups": ["dev"], "claims": {"department": "SECRET", "level": 3}});
            expression.evaluate_bool(&super::JsonVariables(&[("user", &user)]))
        });
        let Ok(Err(error)) = found else { panic!("{source}: {found:?}") };
        assert_eq!(error.to_string(), expected, "{source}");
        assert!(!error.to_string().contains("SECRET"));
    }
}

#[test]
fn faults_have_a_place_and_a_hint() {
    let cases = [
        ("", "the expression is empty (line 1, column 1)"),
        ("  // nothing\n ", "the expression is empty (line 1, column 1)"),
        // names
        ("usr.name == 'x'", "unknown variable `usr` (line 1, column 1); did you mean `user`?"),
        ("user.emial == 'x'", "unknown field `emial` (line 1, column 6); did you mean `email`?"),
        ("user . emial == 'x'", "unknown field `emial` (line 1, column 8); did you mean `email`?"),
        ("email == 'x'", "unknown variable `email` (line 1, column 1); did you mean `user.email`?"),
        ("request.zone == 'x'", "unknown field `zone` (line 1, column 9); there are `time`, `source_ip`, `read_only`"),
        ("tenant == 'x'", "unknown variable `tenant` (line 1, column 1); there are `user`, `request`, `claims`"),
        (".user.name == 'x'", "`user` must not begin with a dot (line 1, column 2)"),
        ("user.name.startWith('x')", "unknown function `startWith` (line 1, column 11); did you mean `startsWith`?"),
        ("user.name.toLowerCase() == 'x'", "unknown function `toLowerCase` (line 1, column 11); did you mean `lowerAscii`?"),
        ("nosuch(user.name)", "unknown function `nosuch` (line 1, column 1)"),
        ("dyn(1) == 1", "unknown function `dyn` (line 1, column 1)"),
        ("Foo{a: 1}", "there is no type `Foo` to create (line 1, column 4)"),
        // places
        ("user.name\n  == 5", "`==` does not take string and int (line 2, column 3)"),
        ("user.name ==\n  'ä' && user.emial == 'x'", "unknown field `emial` (line 2, column 15); did you mean `email`?"),
        ("'ä' == 'ö' 'y'", "`y` is not expected here (line 1, column 12)"),
        // types
        ("user.name", "the result must be true or false (bool), but it is of type string (line 1, column 1)"),
        ("user.email == 5", "`==` does not take string and int (line 1, column 12)"),
        ("user.email == null", "`==` does not take string and null (line 1, column 12)"),
        ("'x' in user.name", "`in` does not look for string in string (line 1, column 5); use text.contains(...) to look inside a string"),
        ("5 in user.groups", "`in` does not look for int in list(string) (line 1, column 3)"),
        ("user.name < 5", "`<` does not take string and int (line 1, column 11)"),
        ("user.age > 5", "`>` does not take duration and int (line 1, column 10); write the duration as duration(\"8h\")"),
        (
            "request.time > '2026'",
            "`>` does not take timestamp and string (line 1, column 14); write the time as timestamp(\"2026-01-31T08:00:00Z\")",
        ),
        ("user.name + 5 == 'x'", "`+` does not take string and int (line 1, column 11)"),
        ("!user.name", "`!` takes bool values, but one is of type string (line 1, column 1)"),
        ("user.name && true", "`&&` takes bool values, but one is of type string (line 1, column 11)"),
        ("true ? 1 : 'a'", "both results of `? :` must be of one type: int and string (line 1, column 6)"),
        (
            "user.groups == ['a']",
            "`==` does not compare a value of type list(string) (line 1, column 13); \
             use `x in list`, `size(list)`, `list.all(...)` or `list.exists(...)`",
        ),
        (
            "['a'] != user.claims.roles",
            "`!=` does not compare a value of type list(string) (line 1, column 7); \
             use `x in list`, `size(list)`, `list.all(...)` or `list.exists(...)`",
        ),
        ("user.groups[0][0] == 'x'", "a value of type string has no elements (line 1, column 15)"),
        ("user['name'] == 'x'", "the fields of an object are written as object.field (line 1, column 5)"),
        ("size() == 1", "`size` cannot be called as size() (line 1, column 1); write size(list)"),
        ("user.groups.exists(x)", "`exists` is not called rightly (line 1, column 13); write list.exists(x, condition)"),
        (
            "user.groups.exists('x', true)",
            "the first argument must be a plain name (line 1, column 20); for example list.exists(x, x == 1)",
        ),
        ("user.groups.exists(user, true)", "`user` is already the name of a variable (line 1, column 19); use another name"),
        ("has(user)", "`has` needs a field (line 1, column 5); for example has(user.claims.department)"),
        (
            "has(user.name)",
            "`name` always has a value, so `has` says nothing (line 1, column 10); compare it instead, for example with \"\"",
        ),
        ("b'x' == 'x'", "there are no byte strings here (line 1, column 1); write it without `b`"),
        ("5u == 5", "there are no unsigned numbers here (line 1, column 1); write it without `u`"),
        ("user.groups.map(g, [g]).size() == 1", "a result of `map` must be a plain value, not of type list(string) (line 1, column 20)"),
        ("[user.groups].size() == 1", "an element of a list must be a plain value, not of type list(string) (line 1, column 6)"),
        // literals that are made at load
        ("user.name.matches('[')", "the pattern is not valid: unclosed character class (line 1, column 19)"),
        (
            "user.name.matches(user.email)",
            "the pattern of `matches` must be a literal string, so that it can be checked and compiled once (line 1, column 11)",
        ),
        (
            "matches(user.name, user.email)",
            "the pattern of `matches` must be a literal string, so that it can be checked and compiled once (line 1, column 1)",
        ),
        (
            "user.name.matches('(a{1000}){1000}')",
            "the pattern is not valid: the pattern is too large (limit 1048576 bytes compiled) (line 1, column 19)",
        ),
        (
            "inCIDR(request.source_ip, '10.0.0.1/8')",
            "`10.0.0.1/8` has bits set beyond its prefix; the network is 10.0.0.0/8 (line 1, column 27)",
        ),
        ("inCIDR(request.source_ip, 'x')", "`x` is no IP network; write it as 10.0.0.0/8 or 2001:db8::/32 (line 1, column 27)"),
        ("user.age > duration('1 day')", "this is no duration (line 1, column 21); write a duration as 8h, 1h30m, 45m or 10s"),
        ("user.age > duration('1h 30m')", "this is no duration (line 1, column 21); write a duration as 8h, 1h30m, 45m or 10s"),
        ("user.age > duration('2d')", "this is no duration (line 1, column 21); there is no unit for days; write 24h"),
        (
            "request.time.getHours('Mars') > 5",
            "this is no time zone (line 1, column 23); write a name as Europe/Berlin or an offset as +02:00",
        ),
        // syntax
        ("user.name = 'x'", "`=` is not a sign of this language (line 1, column 11); use `==` to compare"),
        ("user.name == 'x", "the text that begins here has no closing ' (line 1, column 14)"),
        ("user.name == 'x' and true", "`and` is not a word of this language (line 1, column 18); use `&&`"),
        ("user.name ==", "the expression ends too early (line 1, column 13)"),
        ("user.name == 'x' && (", "`(` is never closed (line 1, column 21)"),
        ("(user.name == 'x'", "`(` is never closed (line 1, column 1)"),
        ("user.name == 'x')", "`)` closes nothing (line 1, column 17)"),
        ("(user.name == 'x']", "`]` does not close the `(` of line 1, column 1 (line 1, column 18); `)` is needed"),
        ("user.name; true", "`;` is not a sign of this language (line 1, column 10)"),
        ("user.name == \u{201c}x\u{201d}", "`\u{201c}` is not a sign of this language (line 1, column 14); use straight quotes: \" or '"),
        ("user.name == 'x' 'y'", "`y` is not expected here (line 1, column 18)"),
        (
            "user.name == '\\q'",
            "this text has an escape sequence that is not known (line 1, column 14); write a backslash as \\\\, or use r\"...\"",
        ),
        ("true ? false", "this `? :` is not complete (line 1, column 1); condition ? value : value"),
        ("1 + + 2 == 3", "`+` is not expected here (line 1, column 5)"),
        ("if true", "`if` is a reserved word (line 1, column 1)"),
        ("99999999999999999999 == 1", "this number cannot be represented (line 1, column 1)"),
        // all at once, in order
        (
            "usr.name == 5 && user.emial == 'x' && foo()",
            "unknown variable `usr` (line 1, column 1); did you mean `user`?\n\
             unknown field `emial` (line 1, column 23); did you mean `email`?\n\
             unknown function `foo` (line 1, column 39)",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(compile(source).map(|_| ()), Err(expected.to_owned()), "{source}");
    }
}

/// No message of the parser's own reaches a person.
#[test]
fn no_fault_lists_the_tokens_of_the_grammar() {
    let pieces = ["user", ".", "(", ")", "[]", "{", "}", ",", "'x'", "==", "?", ":", "!", "-", "if"];
    for first in pieces {
        for second in pieces {
            for third in pieces {
                let source = format!("{first} {second} {third}");
                if let Err(faults) = compile(&source) {
                    let raw = ["expecting", "EOF", "Context", "Syntax error", "viable"].iter().find(|word| faults.contains(**word));
                    assert_eq!(raw, None, "{source}: {faults}");
                }
            }
        }
    }
}

/// `source` is refused, in a thread with little stack, for the reason that is expected.
fn refused(source: String, reason: &str) {
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let source = std::sync::Arc::new(source);
    let given = std::sync::Arc::clone(&source);
    let result = small.spawn(move || compile(&given).map(|_| ())).unwrap().join().unwrap();
    let fault = result.unwrap_err();
    assert!(fault.contains(reason), "{}...: {fault}", &source[..source.len().min(40)]);
}

#[test]
fn size_nesting_and_chains_are_bounded() {
    refused("true || ".repeat(2000), "at most 8192 are allowed");
    refused(["1"; 20_000].join("+"), "at most 8192 are allowed");
    refused(["1"; 4000].join("+"), "more than 16 operators follow each other");
    refused(["1"; 1500].join(" == "), "more than 16 operators follow each other");
    refused(format!("user{}", ".a".repeat(4000)), "more than 12 fields, calls and indexes follow each other");
    refused(format!("user{}", "[0]".repeat(2000)), "more than 12 fields, calls and indexes follow each other");
    refused(format!("user{}", ".f()".repeat(2000)), "more than 12 fields, calls and indexes follow each other");
    refused("(".repeat(8000), "brackets are nested deeper than 12");
    refused("[".repeat(8000), "brackets are nested deeper than 12");
    refused("{1:".repeat(2000), "brackets are nested deeper than 12");
    refused("has(".repeat(2000), "brackets are nested deeper than 12");
    refused("!".repeat(8000), "more than 16 operators follow each other");
    refused("-".repeat(8000), "more than 16 operators follow each other");
    refused("true ? true : ".repeat(500), "more than 8 `? :` stand in one expression");
    refused("a && b ? c : ".repeat(500), "more than 8 `? :` stand in one expression");
    refused(["true"; 1300].join("||"), "longer than 1500 words and signs");
    refused(format!("{}1{}", "(1+1+1+1+1+1+1+1+".repeat(6), ")".repeat(6)), "nested too deeply");
    refused("user.groups.exists(g, user.groups.exists(h, user.groups.exists(i, true)))".to_owned(), "may be nested 2 deep");
}

/// What passes the limits compiles and evaluates in little stack, also at their edge.
#[test]
fn the_deepest_allowed_expressions_fit_a_small_stack() {
    let cases = [
        vec!["true"; 740].join("&&"),
        format!("{}true{}", "(".repeat(12), ")".repeat(12)),
        format!("{}1{} > 0", "(1+".repeat(11), ")".repeat(11)),
        format!("{} > 0", ["1"; 16].join("+")),
        format!("{}true", "true ? true : ".repeat(8)),
        format!("{}true", "!".repeat(16)),
        format!("'x'{} == 'x'", ".lowerAscii()".repeat(6)),
        format!("user.name in ['{}', 'ann']", ["x"; 700].join("','")),
        "user.groups.exists(g, user.groups.exists(h, (1+(1+(1+(1+(1+(1+(1+size(h + g)))))))) > 0))".to_owned(),
    ];
    for source in cases {
        let source = std::sync::Arc::new(source);
        let given = std::sync::Arc::clone(&source);
        let small = std::thread::Builder::new().stack_size(1536 * 1024);
        let result = small.spawn(move || evaluate(&given)).unwrap().join().unwrap();
        assert_eq!(result, Ok(true), "{source}");
    }
}

/// An expression that makes ever longer texts and lists fails instead of taking the memory.
#[test]
fn results_are_bounded() {
    let cases = [
        format!("size(['{}']{}) > 0", "x".repeat(100), ".map(x, x + x + x + x + x + x + x)".repeat(6)),
        format!("size('aaaaaaaa'{}) > 0", ".replace('a', 'aaaaaaaa')".repeat(6)),
        format!("size('aaaaaaaa'{}) > 0", format!(".split('').join('{}')", "a".repeat(64)).repeat(3)),
        format!("size('aaaaaaaa'{}.split('')) > 0", ".replace('a', 'aaaaaaaaaaaaaaaa')".repeat(3)),
        format!("size('aaaa'{0}.split('') + 'aaaa'{0}.split('')) > 0", ".replace('a', 'aaaaaaaaaaaaaaaa')".repeat(2)),
    ];
    for source in &cases[..4] {
        let fault = evaluate(source).unwrap_err();
        assert!(fault.contains("failed on its argument"), "{source}: {fault}");
    }
    assert_eq!(evaluate(&cases[4]), Ok(true));
}

/// A user with as much as anyone brings.
fn big_user(groups: usize) -> Json {
    let groups: Vec<String> = (0..groups).map(|number| format!("group-{number}")).collect();
    json!({"name": "x".repeat(60_000), "email": "ann@example.com", "groups": groups, "claims": {"lists": [groups, groups], "texts": {"long": "y".repeat(60_000)}}})
}

/// Whoever may write a rule must not be able to keep the requests of others waiting.
#[test]
fn work_is_bounded() {
    let evaluate = |source: &str, user: &Json| {
        let expression = compile(source).unwrap_or_else(|faults| panic!("{source}: {faults}"));
        expression.evaluate_bool(&super::JsonVariables(&[("user", user)]))
    };
    let literals = ["'a' == 'a'"; 300].join(" && ");
    let many = big_user(4_000);
    for source in [
        "user.groups.exists(g, user.groups.exists(h, g + h == 'x'))",
        "size(user.groups.map(g, size(user.groups.filter(h, h != g)))) == 0",
        "user.groups.all(g, user.groups.exists_one(h, h == g))",
        "user.groups.map(g, g).exists(g, user.groups.map(h, h).exists(h, g == h + 'x'))",
        &format!("user.groups.all(g, user.groups.all(h, {literals}))"),
        "user.groups.exists(g, user.name.contains(g + 'x'))",
        "[user.name].exists(n, user.groups.exists(g, n.contains(g)))",
        "user.groups.exists(g, user.claims.texts.long.contains(g))",
        "user.claims.lists.exists(l, user.groups.exists(g, g in l))",
        "user.groups.exists(g, user.claims.texts.exists(k, user.claims.texts[k].endsWith(g)))",
        "user.groups.map(g, user.name.replace('z', 'y')).size() == 1",
        "user.groups.exists(g, user.name.lowerAscii().upperAscii() == g)",
        r"user.name.matches('\\w+y\\w+')",
        "user.groups.exists(g, user.groups.join(',').split(',').size() == 1)",
    ] {
        assert_eq!(evaluate(source, &many), Err(EvaluationError::TooMuchWork), "{source}");
    }
    let usual = big_user(150);
    for source in [
        "user.groups.exists(g, user.groups.exists(h, g + h == 'x')) || true",
        "user.groups.all(g, user.groups.exists_one(h, h == g))",
        r"user.groups.all(g, g.matches('^group-\\d+$')) && user.email.matches('^\\w+@example[.]com$')",
        "user.name.replace('z', 'y').startsWith('x') && 'group-1' in user.groups",
    ] {
        assert_eq!(evaluate(source, &usual), Ok(true), "{source}");
    }
}

#[test]
fn what_is_evaluated_for_one_decision_shares_its_allowance() {
    let expression = compile("user.groups.exists(g, user.groups.exists(h, g + h == 'x'))").unwrap();
    let user = big_user(100);
    let evaluate = || expression.evaluate_bool(&super::JsonVariables(&[("user", &user)]));
    let shared = super::Allowance::begin();
    let had = (0..1_000).take_while(|_| evaluate() == Ok(false)).count();
    assert!((1..100).contains(&had), "{had}");
    assert_eq!(compile("true").unwrap().evaluate(&super::JsonVariables(&[])), Err(EvaluationError::TooMuchWork));
    drop(shared);
    assert_eq!(evaluate(), Ok(false), "the next decision begins anew");
}

#[test]
fn texts() {
    let claims = json!({"groups": ["a", "b"], "one": "x", "mixed": ["a", 1]});
    let texts = |source: &str| {
        let schema = Schema::new([("claims", Type::map(Type::Dynamic))]);
        let expression = Expression::compile(source, &schema, Expected::TextOrTextList).unwrap();
        expression.evaluate_json(&[("claims", &claims)]).and_then(Value::into_texts)
    };
    assert_eq!(texts("claims.groups"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(texts("claims.one"), Ok(vec!["x".to_owned()]));
    assert_eq!(texts("claims.groups.map(g, 'x-' + g)"), Ok(vec!["x-a".to_owned(), "x-b".to_owned()]));
    assert_eq!(texts("claims.mixed"), Err(EvaluationError::WrongType { wanted: "string", found: "int" }));
    assert_eq!(texts("claims.none"), Err(EvaluationError::Missing("none".to_owned())));
}

fn any_source() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "user", ".", "name", "groups", "claims", "(", ")", "[", "]", "{", "}", ",", "'x'", "\"", "'", "1", "0x", "1e9", "==", "!=", "&&",
        "||", "?", ":", "!", "-", "+", "%", "in", "has", "if", "true", "null", "\n", "exists", "map", "matches", "g", "//", "\\", "r'",
        "b'", "'''", "ä", "\u{0}", "`", ".?", "[?", "duration", "size", "@", "@0", "\u{2028}",
    ]);
    prop_oneof![any::<String>(), prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_compiles_or_is_refused_with_a_place_inside_it(source in any_source()) {
        if let Err(faults) = Expression::compile(&source, &schema(), Expected::Bool) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                let line = source.split('\n').nth(fault.line - 1);
                prop_assert!(line.is_some_and(|line| fault.column >= 1 && fault.column <= line.chars().count() + 1), "{fault:?}");
            }
        }
    }
}
