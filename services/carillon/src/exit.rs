//! Exit codes: 0 done, 1 failed, 2 wrong usage, 64 bad settings, 69 a dependency cannot be reached.

use std::process::ExitCode;

use service_kit::{Unreachable, settings::Problems};

/// Bad settings (`EX_USAGE` of sysexits.h).
const BAD_SETTINGS: u8 = 64;
/// A dependency cannot be reached (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;

/// Says on stderr what went wrong, one line per problem, and picks the code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        eprintln!("{problems}");
        return ExitCode::from(BAD_SETTINGS);
    }
    eprintln!("error: {error:#}");
    let unreachable = error.is::<Unreachable>() || error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect);
    if unreachable { ExitCode::from(UNAVAILABLE) } else { ExitCode::FAILURE }
}
