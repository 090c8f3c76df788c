//! Wall-clock time as C prints it.

use nix::libc;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Local time in the form of ctime(3), without its newline: `Fri Nov 20 21:34:00 2026`.
pub fn local_timestamp() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let clock = seconds.try_into().unwrap_or(0);
    // SAFETY: `struct tm` is plain old data, for which all zeroes is a valid value.
    let mut broken: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals, and localtime_r keeps neither.
    unsafe { libc::localtime_r(&raw const clock, &raw mut broken) };
    let name = |names: &[&'static str], index: libc::c_int| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or("???")
    };
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {}",
        name(&DAYS, broken.tm_wday),
        name(&MONTHS, broken.tm_mon),
        broken.tm_mday,
        broken.tm_hour,
        broken.tm_min,
        broken.tm_sec,
        broken.tm_year.saturating_add(1900)
    )
}

#[cfg(test)]
mod tests {
    use super::local_timestamp;

    #[test]
    fn it_reads_as_ctime_does() {
        let stamp = local_timestamp();
        let fields: Vec<&str> = stamp.split_whitespace().collect();
        assert_eq!(stamp.len(), 24);
        assert_eq!(fields.len(), 5);
        assert!(fields[3].split(':').all(|part| part.len() == 2));
    }
}
