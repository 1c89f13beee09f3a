//! Many mixed changes under open streams: none is cut, no answer is wrong at any moment, no filter chain drains, and memory stays flat.
//! 50 changes, or as many as `KUBEPASS_TEST_SOAK` says (`make soak`: 1,000).

mod changes;
mod expected;
mod figures;
mod installation;
mod requests;
mod streams;

use self::changes::{Changes, plan};
use self::expected::{Ask, Expected};
use self::figures::Figures;
use self::installation::Installation;
use self::requests::Requests;
use self::streams::Streams;

const CHANGES: usize = 50;

#[test]
fn mixed_changes_cut_nothing_and_no_answer_is_wrong() {
    let count = std::env::var("KUBEPASS_TEST_SOAK").map_or(CHANGES, |count| count.parse().expect("a number of changes"));
    let mut installation = Installation::start();
    let expected = Expected::default();
    let requests = Requests::start(&installation, &expected);
    let mut streams = Streams::start(&installation.world, &installation.foo);
    streams.go_on(&installation.world, "before any change");
    let mut figures = Figures::new(count);
    figures.note(0, &mut installation, &requests);

    let mut changes = Changes::new(&expected, &requests);
    for (index, change) in plan(count).into_iter().enumerate() {
        let what = format!("change {} of {count}: {change:?}", index + 1);
        changes.make(change, index, &mut installation, &what);
        streams.go_on(&installation.world, &what);
        requests.assert_right(&what);
        figures.note(index + 1, &mut installation, &requests);
        if index % 200 == 199 {
            // They live for an hour.
            requests.renew_tokens(&installation);
        }
    }

    // Whatever was changed, all of it can be used in the end.
    for ask in Ask::ALL {
        assert!(requests.answered(ask) > 0, "{ask:?} was never asked");
    }
    streams.end();
    let exchanges = requests.end();
    requests::assert_arrived(&installation.world, &exchanges);
    figures::assert_nothing_drained(&installation);
    figures.assert_flat();
    assert_eq!(installation.foo.logins(), 1);
    installation.end();
}
