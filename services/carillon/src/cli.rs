//! The command line, as clap sees it.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use crate::{
    conservation::Conservation,
    dead::Dead,
    doctor::Doctor,
    people::{Devices, Users},
    templates::Templates,
};

/// Reaches each person on the right channel, once, and says why (not).
///
/// Start with `carillon standalone --sandbox --demo`, or see the README.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Settings (TOML); they override the defaults, and the environment (`CARILLON__KAFKA__BROKERS=…`) overrides them.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// `text` is for people, `json` for scripts.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything in one process, on an embedded log and embedded stores; all data under `--data`.
    Standalone(Standalone),
    /// The HTTP API: takes notifications over and answers questions.
    Ingress,
    /// Decides who is reached where.
    Router,
    /// Sends on one or several channels.
    Gateway {
        /// For instance `webhook`; several are separated by commas.
        #[arg(long, value_delimiter = ',', required = true)]
        channel: Vec<String>,
    },
    /// Writes the search index.
    Indexer,
    /// The fake providers alone.
    Sandbox,
    /// Creates missing topics and shows all of them.
    Topics,
    /// Brings the schemas of Cassandra (or ScyllaDB) and Elasticsearch up to this version.
    Schema,
    /// Shows the effective settings, secrets hidden.
    Settings,
    /// Sends a notification.
    #[command(
        after_help = "Examples:\n  carillon send --to ana --category orders --title Hello --body 'It is on its way.' --wait\n  \
        carillon send --to ana --category shipping --template shipped --data order=17 --locale de"
    )]
    Send(Send),
    /// Shows the whole trace of a notification: every decision, attempt and answer, with times.
    #[command(after_help = "Example: carillon trace 01930c3e-7c1a-7e3b-9d57-0242ac120002 --wait")]
    Trace {
        /// As `send` has printed it.
        id: String,
        /// Waits until every delivery has reached its end, at most 60 s.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Searches deliveries, the newest first; everything that is given must hold.
    #[command(after_help = "Example: carillon search --user ana --state failed --since 24h")]
    Search(Search),
    /// Says why a user did (not) get something: their latest deliveries, each with the reason in words.
    #[command(after_help = "Example: carillon why ben --category marketing")]
    Why {
        /// A user's id, or the id of a notification.
        who: String,
        /// Only of this category.
        #[arg(long)]
        category: Option<String>,
        /// Accepted then or later: a time (RFC 3339), or how long ago, such as `24h`.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<String>,
        /// How many deliveries at most.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        #[command(flatten)]
        server: Server,
    },
    /// Prints completions for a shell: `source <(carillon completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Shows what services gave up and a person has to look at, and sends it on its way again.
    #[command(subcommand)]
    Dead(Dead),
    /// Checks that everything that was accepted is accounted for; fails (1) if something is missing.
    #[command(after_help = "Example: carillon conservation --until 1h")]
    Conservation(Conservation),
    /// Checks settings, dependencies, topics, configuration, and says what to do about what is wrong.
    ///
    /// Ends with 69 if a dependency cannot be reached, with 1 if something else has to be mended.
    #[command(after_help = "Examples:\n  carillon doctor\n  \
        carillon doctor --direct --config carillon.toml --admin http://router:9464 --admin http://gateway:9464")]
    Doctor(Doctor),
    /// Shows and writes people: their language and addresses.
    #[command(subcommand)]
    Users(Users),
    /// Shows a person's devices, or removes one. Apps register them: POST /v1/users/USER/devices.
    #[command(after_help = "Example: carillon devices ana")]
    Devices(Devices),
    /// Shows, writes, publishes and previews templates.
    #[command(subcommand)]
    Templates(Templates),
    /// Puts configuration from files in place: tenants, keys, categories, accounts, sources, templates.
    ///
    /// A file has tables such as `[[tenants]]` and `[[accounts]]`, each with `name` and `tenant`, and `[[templates]]` with `key`, which are
    /// published when they change. What is there already stays as it is; what is not in the file is left alone.
    #[command(after_help = "Example: carillon apply -f acme.toml --dry-run")]
    Apply {
        /// TOML or JSON; may be given several times.
        #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only shows the difference.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Shows configuration entries; secrets are hidden.
    #[command(after_help = "Example: carillon get accounts email --tenant acme")]
    Get {
        /// `tenants`, `keys`, `categories`, `accounts`, `sources` or `templates`.
        kind: String,
        /// One entry; left out, all of the kind.
        name: Option<String>,
        /// Whose; left out, the key's own tenant.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Plays the demo against a running `standalone --sandbox --demo --kafka-listen 9092` and explains it.
    Demo(DemoOptions),
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// The sandbox's control address.
    #[arg(long, default_value = "http://127.0.0.1:8082", value_name = "URL")]
    pub(crate) sandbox: String,
    /// Where events are published.
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "ADDR")]
    pub(crate) kafka: String,
    /// The gRPC API.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_name = "URL")]
    pub(crate) grpc: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Standalone {
    /// Where everything is kept.
    #[arg(long, default_value = "data", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Starts the fake providers too, and lets the gateways reach them.
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// Adds a tenant with a key, categories and users, so that there is something to try.
    #[arg(long, requires = "sandbox")]
    pub(crate) demo: bool,
    /// Lets ordinary Kafka clients publish events and read what is public: ADDR:PORT, or a port of this machine only.
    #[arg(long, value_name = "ADDR", value_parser = listen)]
    pub(crate) kafka_listen: Option<SocketAddr>,
}

/// Where the API is and who asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Where the API is.
    #[arg(long, env = "CARILLON_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) url: String,
    /// The API key.
    #[arg(long, env = "CARILLON_KEY", default_value = "", hide_env_values = true, hide_default_value = true)]
    pub(crate) key: String,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// Of this user.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Of this notification.
    #[arg(long, value_name = "ID")]
    pub(crate) notification: Option<String>,
    /// On this channel.
    #[arg(long)]
    pub(crate) channel: Option<String>,
    /// In this state, for instance `failed`.
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// For this reason, for instance `address_gone`.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Of this category.
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// Sent by this provider.
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// Made from this template, for instance `order-shipped`, or of one version of it: `order-shipped@3`.
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// With all of these words in metadata, answers of providers, ids, user, template or category.
    #[arg(long, value_name = "WORDS")]
    pub(crate) text: Option<String>,
    /// Accepted then or later: a time (RFC 3339), or how long ago, such as `24h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<String>,
    /// Accepted before.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<String>,
    /// Deliveries of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
    /// Where to go on, as the page before has printed it.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// A user, or CHANNEL:ADDRESS such as `webhook:https://example.com/hook`; may be given several times.
    #[arg(long, required_unless_present = "file", value_name = "USER")]
    pub(crate) to: Vec<String>,
    /// What the user can opt out of.
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// A channel or a type; may be given several times. Left out, the category's list applies.
    #[arg(long)]
    pub(crate) channel: Vec<String>,
    /// The first line; with --body instead of a template.
    #[arg(long, default_value = "")]
    pub(crate) title: String,
    /// What to say.
    #[arg(long, default_value = "")]
    pub(crate) body: String,
    /// Says it with this template.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["title", "body"])]
    pub(crate) template: Option<String>,
    /// For the template: NAME=VALUE, or a JSON object; may be given several times.
    #[arg(long, value_name = "DATA", requires = "template")]
    pub(crate) data: Vec<String>,
    /// The language, instead of the recipient's own.
    #[arg(long)]
    pub(crate) locale: Option<String>,
    /// 1 to 10.
    #[arg(long)]
    pub(crate) priority: Option<i64>,
    /// RFC 3339; not delivered from then on.
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<String>,
    /// The whole request as JSON, `-` for standard input, instead of the options above.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "to", "category", "channel", "title", "body", "template", "data", "locale",
        "priority", "expires_at"])]
    pub(crate) file: Option<PathBuf>,
    /// Waits for the end and shows the trace.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// A time as RFC 3339 has it, or how long ago it was: `90s`, `10m`, `24h`, `7d`.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    moment_before(text, Timestamp::now())
}

fn moment_before(text: &str, now: Timestamp) -> Result<String, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.to_string());
    }
    let ago = || {
        let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return None,
        };
        let count = i64::from(count.parse::<u32>().ok()?);
        now.checked_sub(SignedDuration::from_secs(count * seconds)).ok()
    };
    let at = ago().ok_or("a time like 2026-12-01T09:00:00Z, or how long ago: 90s, 10m, 24h, 7d")?;
    Ok(at.to_string())
}

/// `127.0.0.1:9092`, or `9092` for this machine only.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let own = text.parse::<u16>().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    own.or_else(|_| text.parse()).map_err(|_| "an address like 127.0.0.1:9092, or a port".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_says_what_it_does() {
        let root = Cli::command();
        root.clone().debug_assert();
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} says what it does");
                for arg in sub.get_arguments() {
                    assert!(arg.get_help().is_some(), "{path}: {} says what it is", arg.get_id());
                }
                let is_group = sub.get_subcommands().next().is_some();
                let asks = sub.get_arguments().any(|a| a.get_id() == "url");
                assert!(
                    is_group || !asks || path.ends_with(" demo") || sub.get_after_help().is_some(),
                    "{path} has an example"
                );
                check(sub, &path);
            }
        }
        check(&root, "carillon");
    }

    #[test]
    fn every_example_parses() {
        fn examples(command: &clap::Command, found: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            found.extend(help.lines().filter_map(|l| l.split_once("carillon ").map(|(_, rest)| rest.to_owned())));
            command.get_subcommands().for_each(|sub| examples(sub, found));
        }
        let mut found = Vec::new();
        examples(&Cli::command(), &mut found);
        assert!(found.len() > 15, "{found:?}");
        for example in found {
            // the only quotes are those of --body
            let quoted = example.replace("'It is on its way.'", "It_is_on_its_way.");
            let words = std::iter::once("carillon").chain(quoted.split_whitespace());
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{example}: {e}"));
        }
    }

    #[test]
    fn a_time_is_absolute_or_ago() {
        let now: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        for (text, at) in [
            ("2026-11-21T10:00:00+02:00", "2026-11-21T08:00:00Z"),
            ("90s", "2026-11-21T08:58:30Z"),
            ("10m", "2026-11-21T08:50:00Z"),
            ("24h", "2026-11-20T09:00:00Z"),
            ("7d", "2026-11-14T09:00:00Z"),
        ] {
            assert_eq!(moment_before(text, now), Ok(at.to_owned()));
        }
        for bad in ["", "h", "1y", "-1h", "yesterday", "1ü", "99999999999d"] {
            assert!(moment_before(bad, now).is_err(), "{bad}");
        }
        assert_eq!(listen("9092").unwrap().to_string(), "127.0.0.1:9092");
        assert_eq!(listen("0.0.0.0:9092").unwrap().to_string(), "0.0.0.0:9092");
        assert!(listen("host").is_err());
    }
}
