//! What the operating system says of this process.

/// Bytes of memory in RAM; `None` where `/proc` is not there.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let number: u64 = kilobytes.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// The machine's (or container's) name.
pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
