//! The date as chat templates ask for it: the numeric and English parts of C's `strftime`, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `now` written by `pattern`; a directive it does not know is an error. Times before 1970 count as 1970.
pub(super) fn format(now: SystemTime, pattern: &str) -> Result<String, String> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[((days + 4) % 7) as usize]);

    let mut text = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &two(year % 100),
            Some('m') => text += &two(month),
            Some('d') => text += &two(day),
            Some('B') => text += month_name,
            Some('b') => text += &month_name[..3],
            Some('A') => text += day_name,
            Some('a') => text += &day_name[..3],
            Some('H') => text += &two(hour),
            Some('I') => text += &two((hour + 11) % 12 + 1),
            Some('M') => text += &two(minute),
            Some('S') => text += &two(second),
            Some('p') => text += if hour < 12 { "AM" } else { "PM" },
            Some('%') => text.push('%'),
            Some(other) => return Err(format!("strftime_now does not know %{other}")),
            None => return Err("strftime_now: the format ends in %".to_owned()),
        }
    }
    Ok(text)
}

fn two(number: u64) -> String {
    format!("{number:02}")
}

/// Year, month and day in the Gregorian calendar, counted in years that begin in March so that the leap
/// day is the last of its year; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year_of_era + year, month, day)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests panic on failure")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(seconds: u64, pattern: &str, expected: &str) {
        assert_eq!(format(UNIX_EPOCH + Duration::from_secs(seconds), pattern).unwrap(), expected);
    }

    #[test]
    fn dates_are_right() {
        check(0, "%A %d %B %Y %H:%M:%S", "Thursday 01 January 1970 00:00:00");
        check(951_782_400, "%Y-%m-%d", "2000-02-29");
        check(1_709_251_199, "%a %d %b %y %I:%M %p 100%%", "Thu 29 Feb 24 11:59 PM 100%");
        check(4_107_542_400, "%Y-%m-%d", "2100-03-01");
    }

    #[test]
    fn unknown_directives_are_refused() {
        assert!(format(UNIX_EPOCH, "%Q").unwrap_err().contains("%Q"));
        assert!(format(UNIX_EPOCH, "%").is_err());
    }
}
