//! What the machine says of itself and of its processes: CPU time, memory, cores, versions.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Clock ticks in a second, as Linux tells them to programs.
const TICKS: u64 = 100;

/// Bytes over which [`far_read`] tells who else is on the host: more than a core's own cache holds, less than the one that all
/// cores share, if it were ours alone.
pub const FAR: usize = 24_000_000;

/// CPU time that a process has used so far, in user and kernel mode; to 10 ms.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // the name in parentheses may hold anything; behind it the 12th and 13th field
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let mut tick = || fields.next().context("/proc/PID/stat is too short")?.context("/proc/PID/stat holds no number");
    Ok(Duration::from_millis((tick()? + tick()?) * 1000 / TICKS))
}

/// CPU time of the threads that a process has now, to a nanosecond.
pub fn ran(pid: u32) -> anyhow::Result<Duration> {
    let mut ran = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has ended"))? {
        // it may have ended since
        let schedstat = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let on_cpu = schedstat.split(' ').next().and_then(|ns| ns.parse().ok());
        ran += Duration::from_nanos(on_cpu.unwrap_or_default());
    }
    Ok(ran)
}

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Ticks that a hypervisor has kept from this machine since it started.
pub fn stolen() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().next().and_then(|cpu| cpu.split_whitespace().nth(8)?.parse().ok()).unwrap_or_default()
}

/// How long a read waits that depends on the read before it, all over `bytes` of memory; in nanoseconds. With more than a core's
/// own cache holds, that says what the other users of the host leave of the one that all cores share.
pub fn far_read(bytes: usize) -> f64 {
    const READS: u32 = 200_000;
    // a line of the cache each
    let count = (bytes / 64).max(2);
    let mut lines = vec![[0_usize; 8]; count];
    for (line, next) in lines.iter_mut().zip(cycle(count)) {
        line[0] = next;
    }
    let mut at = 0;
    for _ in 0..count {
        at = lines[at][0];
    }
    let began = Instant::now();
    for _ in 0..READS {
        at = lines[at][0];
    }
    let took = began.elapsed();
    std::hint::black_box(at);
    took.as_secs_f64() * 1e9 / f64::from(READS)
}

/// What comes after each of so many, so that all of them come before one does again (Sattolo's shuffle); no prefetching can
/// guess it.
fn cycle(count: usize) -> Vec<usize> {
    let mut next: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        next.swap(i, fastrand::usize(..i));
    }
    next
}

/// Core 0 for this process and the others for what it starts, until it is dropped. Only what is compared one at a time, each
/// on one core, is pinned; and only where there are two cores and the command `taskset`.
#[derive(Debug)]
pub struct Pinned {
    others: Option<String>,
}

impl Pinned {
    /// Pins this process.
    pub fn pin() -> Self {
        let last = last_core();
        let others = (last > 0 && pin_to("0")).then(|| format!("1-{last}"));
        Self { others }
    }

    /// The cores of the others.
    pub fn others(&self) -> Option<&str> {
        self.others.as_deref()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.others.is_some() && !pin_to(&format!("0-{}", last_core())) {
            eprintln!("this process stays on core 0");
        }
    }
}

/// The number of the last core; 0 if there is one.
fn last_core() -> usize {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    online.trim().rsplit(['-', ',']).next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// All threads that there are; those that they start inherit it.
fn pin_to(cores: &str) -> bool {
    let pid = std::process::id().to_string();
    let mut command = Command::new("taskset");
    command.args(["-a", "-p", "-c", cores, &pid]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A line on the machine, a line on the versions.
pub fn describe() -> Vec<(&'static str, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default().trim_matches([' ', '\t', ':']);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    vec![
        ("processor", format!("{} x {cpu}", last_core() + 1)),
        ("memory", format!("{} GB", memory.unwrap_or_default() / 1_000_000)),
        ("kernel", kernel.trim().to_owned()),
        ("load before", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ("rustc", said("rustc", &["-V"])),
        ("commit", said("git", &["describe", "--always", "--dirty"])),
        ("build", if cfg!(debug_assertions) { "debug: the figures mean nothing" } else { "release" }.to_owned()),
    ]
}

fn said(command: &str, args: &[&str]) -> String {
    let out = Command::new(command).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output();
    out.map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn work_shows_up_as_cpu_time_and_memory() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let mut n = 1_u64;
        while cpu_time(me).unwrap() - before < Duration::from_millis(50) {
            n = std::hint::black_box(n.wrapping_mul(3));
            assert!(Instant::now() < until, "no CPU time shows up");
        }
        assert!(resident(me).unwrap() > 1_000_000);
    }

    #[test]
    fn far_reads_come_by_every_line() {
        let next = cycle(1000);
        let all: Vec<usize> = std::iter::successors(Some(0), |at| Some(next[*at])).take(1001).collect();
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!((once.len(), all[1000]), (1000, 0), "every line once, and then from the first on again");
        assert!(far_read(1_000_000) > 0.0);
    }
}
