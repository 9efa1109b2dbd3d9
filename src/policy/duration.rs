//! Durations as the custom resources spell them: a whole number and `s`, `m`, `h` or `d`.

use jiff::SignedDuration;

/// Parses a duration such as `10m` or `90d`; `None` where the text is none, or is zero.
#[must_use]
pub fn parse(text: &str) -> Option<SignedDuration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if !digits
        .bytes()
        .next()
        .is_some_and(|b| (b'1'..=b'9').contains(&b))
    {
        return None;
    }
    let number: i64 = digits.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let total = number.checked_mul(seconds)?;
    (number <= 9_999_999).then(|| SignedDuration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse("90d"), Some(SignedDuration::from_hours(90 * 24)));
        assert_eq!(parse("10m"), Some(SignedDuration::from_mins(10)));
        for text in [
            "",
            "d",
            "0s",
            "-1h",
            "+1h",
            "01h",
            "1w",
            "1.5h",
            "1 h",
            "99999999999999999999d",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
