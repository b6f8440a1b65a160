//! Day numbers of the proleptic Gregorian calendar. Years are astronomical: 0 is 1 BC.

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) year: i64,
    pub(super) month: u8,
    pub(super) day: u8,
}

/// Days from 0000-03-01 to 2000-01-01.
const EPOCH: i64 = 730_425;
const DAYS_IN_400_YEARS: i64 = 146_097;

impl Day {
    /// Days since 2000-01-01.
    pub(super) fn number(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = self.year - i64::from(month <= 2);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        year * 365 + leap_days + day_of_year - EPOCH
    }

    /// The day this many days after 2000-01-01.
    pub(super) fn from_number(number: i64) -> Day {
        let days = number + EPOCH;
        let (era, rest) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
        let year_of_era = (rest - rest / 1460 + rest / 36_524 - rest / 146_096) / 365;
        let day_of_year = rest - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = (shifted + 2) % 12 + 1;
        Day { year: era * 400 + year_of_era + i64::from(month <= 2), month: month as u8, day: day as u8 }
    }

    /// Does the month have such a day?
    pub(super) fn exists(self) -> bool {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let length = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        (1..=length).contains(&self.day)
    }
}
