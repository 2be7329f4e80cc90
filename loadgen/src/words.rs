//! Figures as people read them: digits worth reading, nouns that agree.

/// As many digits as are worth reading.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        value if value < 10.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Milliseconds with their unit.
pub fn ms(value: f64) -> String {
    format!("{} ms", number(value))
}

/// A share as a whole percentage; a small one is not shown as none.
pub fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.005 { "<1%".into() } else { format!("{:.0}%", share * 100.0) }
}

/// A count with its noun, in the plural where that is right.
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_worth_reading() {
        for (value, expected) in [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (999.96, "1000.0"), (1234.5, "1234")]
        {
            assert_eq!(number(value), expected);
        }
        for (share, expected) in [(0.0, "0%"), (0.001, "<1%"), (0.006, "1%"), (0.5, "50%"), (1.0, "100%")] {
            assert_eq!(percent(share), expected);
        }
    }
}
