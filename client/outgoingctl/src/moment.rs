//! Times as people write and read them. The daemon's are Unix seconds.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// The moment that lies `duration` after now: `90m`, `24h`, `7d`, `2w`.
pub(crate) fn after(duration: &str) -> Result<u64, String> {
    after_moment(&Zoned::now(), duration)
}

fn after_moment(now: &Zoned, duration: &str) -> Result<u64, String> {
    let end = now
        .checked_add(span(duration)?)
        .map_err(|_| "expected a duration that ends before the year 10000".to_owned())?
        .timestamp();
    // So long at least: times have whole seconds, and one that began long ago has ended already.
    Ok(seconds(end)? + u64::from(end.subsec_nanosecond() > 0))
}

/// The moment that lies `duration` before now.
pub(crate) fn before(duration: &str) -> Result<u64, String> {
    let begin = Zoned::now()
        .checked_sub(span(duration)?)
        .map_err(|_| "expected a duration that begins after the year 1970".to_owned())?;
    seconds(begin.timestamp())
}

fn span(duration: &str) -> Result<Span, String> {
    let span: Span = duration.parse().map_err(|_| "expected a duration such as 90m, 24h or 7d".to_owned())?;
    if span.is_positive() { Ok(span) } else { Err("expected a duration longer than none".to_owned()) }
}

/// Now, in Unix seconds.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

/// For people: how long ago, in the largest unit that is not nothing, as Exim's listings have it.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment: RFC 3339, or a date with or without a time of day, in the local zone.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    parse_in(&TimeZone::system(), text)
}

fn parse_in(zone: &TimeZone, text: &str) -> Result<u64, String> {
    let local = || text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from)).ok();
    let moment = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| local()?.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp()))
        .ok_or_else(|| "expected a time such as 2030-01-31, \"2030-01-31 08:00\" or 2030-01-31T08:00:00Z".to_owned())?;
    seconds(moment)
}

/// For people: local time.
pub(crate) fn local(seconds: u64) -> String {
    moment(seconds).map_or_else(
        || seconds.to_string(),
        |moment| moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// For programs: RFC 3339 in UTC.
pub(crate) fn rfc3339(seconds: u64) -> String {
    moment(seconds).map_or_else(|| seconds.to_string(), |moment| moment.to_string())
}

fn moment(seconds: u64) -> Option<Timestamp> {
    i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok())
}

fn seconds(moment: Timestamp) -> Result<u64, String> {
    u64::try_from(moment.as_second()).map_err(|_| "expected a time after 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_local() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(parse_in(&zone, "2030-01-31T08:00:00Z"), Ok(1_896_076_800));
        assert_eq!(parse_in(&zone, "2030-01-31 10:00"), Ok(1_896_076_800));
        assert_eq!(parse_in(&zone, "2030-01-31"), Ok(1_896_040_800));
        assert!(parse_in(&zone, "tomorrow").unwrap_err().contains("2030-01-31"));
        assert!(parse_in(&zone, "1969-01-31").is_err());
        assert_eq!(rfc3339(1_896_076_800), "2030-01-31T08:00:00Z");
    }

    #[test]
    fn a_duration_has_units_and_lies_ahead() {
        let now = Timestamp::from_second(1_000_000).unwrap().to_zoned(TimeZone::UTC);
        assert_eq!(after_moment(&now, "90m"), Ok(1_005_400));
        assert_eq!(after_moment(&now, "1h 30m"), Ok(1_005_400));
        assert_eq!(after_moment(&now, "7d"), Ok(1_604_800));
        let late = Timestamp::new(1_000_000, 999_999_999).unwrap().to_zoned(TimeZone::UTC);
        assert_eq!(after_moment(&late, "1s"), Ok(1_000_002));
        for wrong in ["", "7", "-1h", "0s", "soon", "99999999w"] {
            assert!(after_moment(&now, wrong).is_err(), "{wrong}");
            assert!(before(wrong).is_err(), "{wrong}");
        }
        assert!(before("2d").is_ok_and(|moment| moment < super::now()));
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages = [0, 59, 3_599, 3_600, 172_799, 172_800, 8_640_000].map(age);
        assert_eq!(ages, ["0m", "0m", "59m", "1h", "47h", "2d", "100d"]);
    }
}
