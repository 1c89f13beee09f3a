//! From single requests to figures. Pure: what it is given is what it counts.

/// A round counts as noise when it differs more than this from the others.
pub(super) const NOISE: f64 = 0.10;

/// One answered request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Request {
    /// Microseconds since some moment that is the same for all of a round.
    pub(super) start: f64,
    pub(super) status: i32,
    pub(super) micros: f64,
}

/// What one round of load gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Round {
    pub(super) answers: usize,
    pub(super) rps: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) mean_us: f64,
}

/// What all rounds gave: medians, and how far apart the rounds were.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Figures {
    pub(super) rps: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) mean_us: f64,
    /// Largest minus smallest throughput of a round, as a part of the median.
    pub(super) spread: f64,
}

/// Single measurements of one thing, in one unit.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Timed {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    /// Between the tenth and the ninetieth of a hundred, as a part of the median: single measurements have outliers.
    pub(super) spread: f64,
}

impl Timed {
    /// `values` must not be empty.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let median = median(values.clone());
        let spread = (percentile(&values, 0.90) - percentile(&values, 0.10)) / median;
        Self { median, least: values[0], most: values[values.len() - 1], spread }
    }

    /// `median (least to most)`, marked where it is noise.
    pub(super) fn shown(&self, digits: usize) -> String {
        let mark = if self.spread > NOISE { " ~" } else { "" };
        format!("{:.digits$} ({:.digits$} to {:.digits$}){mark}", self.median, self.least, self.most)
    }
}

impl Round {
    /// # Errors
    /// When a request was answered anything but 200, or nothing was answered: a refusal is no fast answer.
    pub(super) fn of(requests: &[Request]) -> Result<Self, String> {
        if let Some(other) = requests.iter().find(|request| request.status != 200) {
            let count = requests.iter().filter(|request| request.status != 200).count();
            return Err(format!("{count} of {} requests were not answered 200; the first with {}", requests.len(), other.status));
        }
        if requests.is_empty() {
            return Err("no request was answered".to_owned());
        }
        let began = requests.iter().map(|request| request.start).fold(f64::INFINITY, f64::min);
        let ended = requests.iter().map(|request| request.start + request.micros).fold(0.0, f64::max);
        let mut micros: Vec<f64> = requests.iter().map(|request| request.micros).collect();
        micros.sort_by(f64::total_cmp);
        Ok(Self {
            rps: micros.len() as f64 / ((ended - began) / 1e6),
            answers: micros.len(),
            p50_us: percentile(&micros, 0.50),
            p99_us: percentile(&micros, 0.99),
            mean_us: micros.iter().sum::<f64>() / micros.len() as f64,
        })
    }
}

impl Figures {
    /// `rounds` must not be empty.
    pub(super) fn of(rounds: &[Round]) -> Self {
        let median_of = |get: fn(&Round) -> f64| median(rounds.iter().map(get).collect());
        Self {
            rps: median_of(|round| round.rps),
            p50_us: median_of(|round| round.p50_us),
            p99_us: median_of(|round| round.p99_us),
            mean_us: median_of(|round| round.mean_us),
            spread: spread(&rounds.iter().map(|round| round.rps).collect::<Vec<_>>()),
        }
    }

    pub(super) fn is_noise(&self) -> bool {
        self.spread > NOISE
    }
}

/// Numbers (from 1) of the rounds whose throughput is further than [`NOISE`] from the median, each with its distance as a part of that.
pub(super) fn noisy_rounds(rounds: &[Round]) -> Vec<(usize, f64)> {
    let middle = median(rounds.iter().map(|round| round.rps).collect());
    let distance = |round: &Round| round.rps / middle - 1.0;
    rounds.iter().enumerate().map(|(index, round)| (index + 1, distance(round))).filter(|(_, distance)| distance.abs() > NOISE).collect()
}

/// The median of `one / other` over rounds that ran side by side.
pub(super) fn ratio(one: &[Round], other: &[Round], get: fn(&Round) -> f64) -> f64 {
    median(one.iter().zip(other).map(|(one, other)| get(one) / get(other)).collect())
}

/// The median of `one - other`, as [`ratio`].
pub(super) fn difference(one: &[Round], other: &[Round], get: fn(&Round) -> f64) -> f64 {
    median(one.iter().zip(other).map(|(one, other)| get(one) - get(other)).collect())
}

/// The smallest value that is not below that part of all; `sorted` must be sorted and not empty.
pub(super) fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn spread(values: &[f64]) -> f64 {
    let (least, most) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)));
    (most - least) / median(values.to_vec())
}
