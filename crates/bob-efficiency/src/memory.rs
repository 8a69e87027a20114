//! Resident memory of this process, from Linux's `/proc`.
//!
//! It is host memory: on a GPU backend the parameters and activations lie elsewhere and are not counted.

use std::fs;

/// Largest resident memory of this process in bytes since its start or the last [`reset_peak`] (`VmHWM`);
/// `None` where there is no `/proc`.
pub fn peak_resident_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Resident memory of this process in bytes now (`VmRSS`); `None` where there is no `/proc`.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// Let the peak start again from what is resident now; whether the kernel did so.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn status(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_follows_a_block_and_is_reset() {
        const BLOCK: usize = 64 << 20;
        let before = peak_resident_bytes().expect("Linux has /proc");
        let block = vec![1_u8; BLOCK];
        assert!(block.iter().map(|&byte| byte as usize).sum::<usize>() == BLOCK);
        let with = peak_resident_bytes().expect("Linux has /proc");
        drop(block);
        assert!(with >= before.max(BLOCK as u64));
        assert!(reset_peak());
        let after = peak_resident_bytes().expect("Linux has /proc");
        assert!(after < with, "{after} is below {with}");
        assert!(resident_bytes().expect("Linux has /proc") <= with);
    }
}
