//! interval as text under IntervalStyle, as Postgres writes it.
use super::datetime::MICROS;
use super::interval::Interval;

/// An interval in the units it is written in; all have the sign of the part they come from.
#[derive(Clone, Copy)]
struct Parts {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    micros: i64,
}

impl Parts {
    fn of(interval: Interval) -> Parts {
        let seconds = interval.micros / MICROS;
        Parts {
            years: i64::from(interval.months / 12),
            months: i64::from(interval.months % 12),
            days: i64::from(interval.days),
            hours: seconds / 3600,
            minutes: seconds / 60 % 60,
            seconds: seconds % 60,
            micros: interval.micros % MICROS,
        }
    }

    fn all(self) -> [i64; 7] {
        [self.years, self.months, self.days, self.hours, self.minutes, self.seconds, self.micros]
    }

    fn of_day(self) -> [i64; 4] {
        [self.hours, self.minutes, self.seconds, self.micros]
    }

    fn has_time(self) -> bool {
        self.of_day() != [0; 4]
    }

    fn time_is_negative(self) -> bool {
        self.of_day().iter().any(|part| *part < 0)
    }

    /// Whole seconds and their fraction, without sign.
    fn written_seconds(self, width: usize) -> String {
        let whole = format!("{:0width$}", self.seconds.abs());
        match self.micros.abs() {
            0 => whole,
            fraction => format!("{whole}.{}", format!("{fraction:06}").trim_end_matches('0')),
        }
    }

    /// `hh:mm:ss.f`, without sign.
    fn clock(self, hour_width: usize) -> String {
        let (hours, minutes) = (self.hours.abs(), self.minutes.abs());
        format!("{hours:0hour_width$}:{minutes:02}:{}", self.written_seconds(2))
    }
}

/// Appends the text.
pub(super) fn print(interval: Interval, interval_style: &str, out: &mut Vec<u8>) {
    let parts = Parts::of(interval);
    let text = match interval_style {
        "sql_standard" => sql_standard(parts),
        "iso_8601" => iso_8601(parts),
        "postgres_verbose" => verbose(parts),
        _ => postgres(parts),
    };
    out.extend(text.bytes());
}

/// `1-2`, `-3 4:05:06` or, when the standard has no way to say it, `+1-2 -3 +4:05:06`.
fn sql_standard(parts: Parts) -> String {
    let (negative, positive) = (parts.all().iter().any(|n| *n < 0), parts.all().iter().any(|n| *n > 0));
    if !negative && !positive {
        return "0".to_owned();
    }
    let has_months = parts.years != 0 || parts.months != 0;
    let has_days = parts.days != 0 || parts.has_time();
    if (negative && positive) || (has_months && has_days) {
        let sign = |negative: bool| if negative { '-' } else { '+' };
        return format!(
            "{}{}-{} {}{} {}{}",
            sign(parts.years < 0 || parts.months < 0),
            parts.years.abs(),
            parts.months.abs(),
            sign(parts.days < 0),
            parts.days.abs(),
            sign(parts.time_is_negative()),
            parts.clock(1)
        );
    }
    let minus = if negative { "-" } else { "" };
    match parts.days.abs() {
        _ if has_months => format!("{minus}{}-{}", parts.years.abs(), parts.months.abs()),
        0 => format!("{minus}{}", parts.clock(1)),
        days => format!("{minus}{days} {}", parts.clock(1)),
    }
}

/// `P1Y2M3DT4H5M6S`
fn iso_8601(parts: Parts) -> String {
    let part = |value: i64, unit: char| if value == 0 { String::new() } else { format!("{value}{unit}") };
    if parts.all() == [0; 7] {
        return "PT0S".to_owned();
    }
    let mut text = format!("P{}{}{}", part(parts.years, 'Y'), part(parts.months, 'M'), part(parts.days, 'D'));
    if parts.has_time() {
        text += &format!("T{}{}", part(parts.hours, 'H'), part(parts.minutes, 'M'));
    }
    if parts.seconds != 0 || parts.micros != 0 {
        let minus = if parts.seconds < 0 || parts.micros < 0 { "-" } else { "" };
        text += &format!("{minus}{}S", parts.written_seconds(1));
    }
    text
}

/// `1 year 2 mons -3 days +04:05:06`: a sign where it differs from that of the part before.
fn postgres(parts: Parts) -> String {
    let mut text = String::new();
    let mut negative_before = false;
    for (value, unit) in [(parts.years, "year"), (parts.months, "mon"), (parts.days, "day")] {
        if value == 0 {
            continue;
        }
        let space = if text.is_empty() { "" } else { " " };
        let plus = if negative_before && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        text += &format!("{space}{plus}{value} {unit}{plural}");
        negative_before = value < 0;
    }
    if text.is_empty() || parts.has_time() {
        let space = if text.is_empty() { "" } else { " " };
        let sign = match (parts.time_is_negative(), negative_before) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        text += &format!("{space}{sign}{}", parts.clock(2));
    }
    text
}

/// `@ 1 year 2 mons -3 days ago`: the first part decides the direction.
fn verbose(parts: Parts) -> String {
    let mut text = "@".to_owned();
    let mut ago = None;
    let units = [
        (parts.years, "year"),
        (parts.months, "mon"),
        (parts.days, "day"),
        (parts.hours, "hour"),
        (parts.minutes, "min"),
    ];
    for (value, unit) in units.into_iter().filter(|(value, _)| *value != 0) {
        let value = if *ago.get_or_insert(value < 0) { -value } else { value };
        text += &format!(" {value} {unit}{}", if value == 1 { "" } else { "s" });
    }
    if parts.seconds != 0 || parts.micros != 0 {
        let negative = parts.seconds < 0 || parts.micros < 0;
        let minus = if *ago.get_or_insert(negative) == negative { "" } else { "-" };
        let plural = if parts.seconds.abs() == 1 && parts.micros == 0 { "" } else { "s" };
        text += &format!(" {minus}{} sec{plural}", parts.written_seconds(1));
    }
    match ago {
        None => text + " 0",
        Some(true) => text + " ago",
        Some(false) => text,
    }
}
