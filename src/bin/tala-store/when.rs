//! Points in time as people write them, and as they are shown.

use jiff::{Span, Timestamp, Zoned, civil, tz::TimeZone};

/// Numbers below this are seconds since the epoch, from it on nanoseconds. As seconds it is the
/// year 5138, as nanoseconds the first two minutes of 1970.
const SECONDS_END: u64 = 100_000_000_000;

/// The point in time that `text` means, in nanoseconds since the epoch.
///
/// RFC 3339, a date or a date and time (in the time zone of `now`), seconds or nanoseconds since
/// the epoch, `now`, `today`, `yesterday`, or a span ago such as `2h ago`.
pub(crate) fn parse(text: &str, now: &Zoned) -> Result<u64, String> {
    let text = text.trim();
    if let Some(ns) = number(text) {
        return ns;
    }
    let zoned = match text.to_ascii_lowercase().as_str() {
        "now" => Ok(now.clone()),
        "today" => now.start_of_day(),
        "yesterday" => now.yesterday().and_then(|day| day.start_of_day()),
        other if other.ends_with("ago") => {
            other.parse::<Span>().and_then(|span| now.checked_add(span))
        }
        _ => absolute(text, now.time_zone()),
    };
    let zoned = zoned.map_err(|_| {
        format!(
            "`{text}` is no time: use RFC 3339, a date, seconds or nanoseconds since the epoch, \
             `yesterday` or a span such as `2h ago`"
        )
    })?;
    u64::try_from(zoned.timestamp().as_nanosecond())
        .map_err(|_| format!("`{text}` is before 1970 or after 2554, which no store can hold"))
}

/// A plain number, or one with `ns` behind it that says so.
fn number(text: &str) -> Option<Result<u64, String>> {
    let (digits, is_ns) = match text.strip_suffix("ns") {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(match digits.parse::<u64>() {
        Err(_) => Err(format!("`{text}` is beyond the year 2554, the end of time here")),
        Ok(number) if is_ns || number >= SECONDS_END => Ok(number),
        // Below the bound the product is too large for u64 in the far future only.
        Ok(seconds) => seconds
            .checked_mul(1_000_000_000)
            .ok_or_else(|| format!("`{text}` is beyond the year 2554, the end of time here")),
    })
}

fn absolute(text: &str, zone: &TimeZone) -> Result<Zoned, jiff::Error> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.to_zoned(zone.clone()));
    }
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned);
    }
    text.parse::<civil::DateTime>()?.to_zoned(zone.clone())
}

/// `ns` since the epoch for people: local date and time, to the second.
pub(crate) fn for_people(ns: u64, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(timestamp) => timestamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{ns} ns"),
    }
}

/// `ns` since the epoch for programs: RFC 3339 in UTC.
pub(crate) fn for_programs(ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| String::new(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2026-03-15T12:00:00+00:00[UTC]".parse().unwrap()
    }

    fn ns(text: &str) -> u64 {
        parse(text, &now()).unwrap()
    }

    #[test]
    fn understands_what_people_write() {
        let noon = 1_773_576_000_000_000_000;
        let hour = 3_600_000_000_000;
        assert_eq!(ns("now"), noon);
        assert_eq!(ns("1773576000"), noon);
        assert_eq!(ns("1773576000000000000"), noon);
        assert_eq!(ns("2026-03-15T12:00:00Z"), noon);
        assert_eq!(ns("2026-03-15T13:00:00+01:00"), noon);
        assert_eq!(ns("2026-03-15 12:00"), noon);
        assert_eq!(ns("2026-03-15"), noon - 12 * hour);
        assert_eq!(ns("today"), noon - 12 * hour);
        assert_eq!(ns("Yesterday"), noon - 36 * hour);
        assert_eq!(ns("2h ago"), noon - 2 * hour);
        assert_eq!(ns("1 day 2 hours ago"), noon - 26 * hour);
        assert_eq!(ns("0"), 0);
        assert_eq!(ns("42ns"), 42);
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "soon",
            "12:00:00:00",
            "-5",
            "1969-01-01",
            "99999999999999999999999",
            "99999999999",
        ] {
            let error = parse(text, &now()).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn shows_the_whole_range_of_a_timestamp() {
        assert_eq!(for_people(0, &TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(for_programs(1), "1970-01-01T00:00:00.000000001Z");
        assert!(for_people(u64::MAX, &TimeZone::UTC).starts_with("2554-"));
        assert_eq!(ns(&for_programs(u64::MAX)), u64::MAX);
    }
}
