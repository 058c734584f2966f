//! Exit codes: 0 done, 1 failed, 2 wrong usage, 64 bad settings, 69 a dependency cannot be reached.

use std::process::ExitCode;

use service_kit::{Problems, Unreachable};

/// Says on stderr what went wrong, one line per problem, and picks the code (those of sysexits.h).
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        eprintln!("{problems}");
        return ExitCode::from(64);
    }
    eprintln!("error: {error:#}");
    let server_away = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect);
    if server_away || error.is::<Unreachable>() { ExitCode::from(69) } else { ExitCode::FAILURE }
}
