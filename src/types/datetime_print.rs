//! Dates and times as text under DateStyle and TimeZone, as Postgres writes them.
use super::calendar::Day;
use super::datetime::{DAY_MICROS, MICROS};
use super::time::ZonedTime;
use super::zone::Zone;
use super::{TextStyle, ValueError};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Iso,
    /// As in JSON.
    Xsd,
    Sql,
    Postgres,
    German,
}

/// `DateStyle`, read.
#[derive(Clone, Copy)]
struct DateStyle {
    layout: Layout,
    day_first: bool,
}

/// Longest abbreviation of a time zone that is printed.
const ABBREVIATION_MAX: usize = 10;
const WEEKDAYS: [&str; 7] = ["Sat", "Sun", "Mon", "Tue", "Wed", "Thu", "Fri"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends a date.
pub(super) fn date(days: i32, style: &TextStyle, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let (day, before) = with_era(Day::from_number(i64::from(days)));
            let style = DateStyle::read(&style.date_style);
            let dashed = style.layout == Layout::Postgres;
            let text = style.numbers(day);
            out.extend(text.bytes().map(|b| if dashed && b == b'/' { b'-' } else { b }));
            out.extend_from_slice(before);
        }
    }
}

/// Appends a timestamptz.
///
/// # Errors
/// [`ValueError::BadDatetime`] when the session's time zone is not known here.
pub(super) fn timestamptz(micros: i64, style: &TextStyle, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match micros {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let zone = Zone::find(&style.time_zone).and_then(|zone| zone.at(micros.div_euclid(MICROS)));
            let (offset, abbreviation) = zone.ok_or(ValueError::BadDatetime { ty: "timestamp with time zone" })?;
            let before = print_local(micros + offset * MICROS, style, out);
            print_zone(offset, &abbreviation, DateStyle::read(&style.date_style).layout, out);
            out.extend_from_slice(before);
        }
    }
    Ok(())
}

/// Appends a timestamp.
pub(super) fn timestamp(micros: i64, style: &TextStyle, out: &mut Vec<u8>) {
    match micros {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let before = print_local(micros, style, out);
            out.extend_from_slice(before);
        }
    }
}

/// Appends a time of day.
pub(super) fn time(micros: i64, out: &mut Vec<u8>) {
    out.extend(clock(micros).bytes());
}

/// Appends a time of day with its offset.
pub(super) fn timetz(time: ZonedTime, out: &mut Vec<u8>) {
    out.extend(clock(time.micros).bytes());
    print_offset(-i64::from(time.west), out);
}

/// Appends day and time; gives what follows the zone, if there is one.
fn print_local(local: i64, style: &TextStyle, out: &mut Vec<u8>) -> &'static [u8] {
    let (day, before) = with_era(Day::from_number(local.div_euclid(DAY_MICROS)));
    let clock = clock(local.rem_euclid(DAY_MICROS));
    let style = DateStyle::read(&style.date_style);
    let weekday = WEEKDAYS[usize::try_from(local.div_euclid(DAY_MICROS).rem_euclid(7)).unwrap_or(0)];
    let written = match style.layout {
        Layout::Postgres => format!("{weekday} {} {clock} {:04}", style.words(day), day.year),
        Layout::Xsd => format!("{}T{clock}", style.numbers(day)),
        Layout::Iso | Layout::Sql | Layout::German => format!("{} {clock}", style.numbers(day)),
    };
    out.extend(written.bytes());
    before
}

/// The year as it is written, and the ` BC` that then follows the whole.
fn with_era(day: Day) -> (Day, &'static [u8]) {
    if day.year > 0 { (day, b"") } else { (Day { year: 1 - day.year, ..day }, b" BC") }
}

impl DateStyle {
    /// `ISO, MDY` and the like; what is unknown reads as ISO.
    fn read(setting: &str) -> DateStyle {
        let mut style = DateStyle { layout: Layout::Iso, day_first: false };
        for word in setting.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            match word.as_str() {
                // No session can set this one.
                "xsd" => style.layout = Layout::Xsd,
                "sql" => style.layout = Layout::Sql,
                "postgres" => style.layout = Layout::Postgres,
                "german" => style.layout = Layout::German,
                "dmy" => style.day_first = true,
                _ => {}
            }
        }
        style
    }

    /// The date in numbers.
    fn numbers(self, day: Day) -> String {
        let Day { year, month, day } = day;
        match (self.layout, self.day_first) {
            (Layout::Iso | Layout::Xsd, _) => format!("{year:04}-{month:02}-{day:02}"),
            (Layout::German, _) => format!("{day:02}.{month:02}.{year:04}"),
            (Layout::Sql | Layout::Postgres, true) => format!("{day:02}/{month:02}/{year:04}"),
            (Layout::Sql | Layout::Postgres, false) => format!("{month:02}/{day:02}/{year:04}"),
        }
    }

    /// Day and month in words.
    fn words(self, day: Day) -> String {
        let month = MONTHS[usize::from(day.month.saturating_sub(1)) % 12];
        if self.day_first { format!("{:02} {month}", day.day) } else { format!("{month} {:02}", day.day) }
    }
}

/// `hh:mm:ss` with as many digits of the second as are needed.
fn clock(micros: i64) -> String {
    let (seconds, fraction) = (micros / MICROS, micros % MICROS);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    match fraction {
        0 => whole,
        _ => format!("{whole}.{}", format!("{fraction:06}").trim_end_matches('0')),
    }
}

fn print_zone(offset: i64, abbreviation: &str, layout: Layout, out: &mut Vec<u8>) {
    if !matches!(layout, Layout::Iso | Layout::Xsd) {
        out.push(b' ');
        out.extend(abbreviation.bytes().take(ABBREVIATION_MAX));
        return;
    }
    print_offset(offset, out);
    if layout == Layout::Xsd && offset % 3600 == 0 {
        out.extend_from_slice(b":00");
    }
}

/// Hours, and minutes and seconds where there are some.
fn print_offset(offset: i64, out: &mut Vec<u8>) {
    let sign = if offset < 0 { '-' } else { '+' };
    let size = offset.abs();
    let (hours, minutes, seconds) = (size / 3600, size / 60 % 60, size % 60);
    let written = match (minutes, seconds) {
        (0, 0) => format!("{sign}{hours:02}"),
        (_, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    };
    out.extend(written.bytes());
}
