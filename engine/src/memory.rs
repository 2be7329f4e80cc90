//! How much memory this process may still take.

use std::fs;

/// What is assumed where nothing can be read.
const FALLBACK: usize = 4 << 30;

/// Bytes free: of the machine, or of the control group if that has less.
pub(crate) fn available() -> usize {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let group = read_number("/sys/fs/cgroup/memory.max")
        .map(|max| max.saturating_sub(read_number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => FALLBACK,
    }
}

fn meminfo(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

fn read_number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        assert_eq!(meminfo("MemTotal: 9 kB\nMemAvailable:   23 kB\n"), Some(23 * 1024));
        assert_eq!(meminfo("MemTotal: 9 kB\n"), None);
    }
}
