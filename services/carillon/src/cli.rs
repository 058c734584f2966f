//! The command line, as clap sees it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    Send(Send),
    /// Shows the whole trace of a notification.
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
    Search(Search),
    /// Says why a user did (not) get something: their latest deliveries, each with the reason in words.
    Why {
        /// A user's id, or the id of a notification.
        who: String,
        /// Only of this category.
        #[arg(long)]
        category: Option<String>,
        /// Accepted then or later (RFC 3339).
        #[arg(long, value_name = "TIME")]
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
    /// Puts configuration from files in place: tenants, keys, categories, accounts, sources.
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
    /// Shows configuration entries.
    Get {
        /// `tenants`, `keys`, `categories`, `accounts` or `sources`.
        kind: String,
        /// One entry; left out, all of the kind.
        name: Option<String>,
        /// Whose; left out, the key's own tenant.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        server: Server,
    },
    /// Plays the demo against a running `standalone --sandbox --demo` and explains it.
    Demo {
        /// The sandbox's control address.
        #[arg(long, default_value = "http://127.0.0.1:8082", value_name = "URL")]
        sandbox: String,
        #[command(flatten)]
        server: Server,
    },
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
    /// Accepted then or later (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Accepted before (RFC 3339).
    #[arg(long, value_name = "TIME")]
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
    #[arg(long, default_value = "")]
    pub(crate) title: String,
    #[arg(long, default_value = "")]
    pub(crate) body: String,
    /// 1 to 10.
    #[arg(long)]
    pub(crate) priority: Option<i64>,
    /// RFC 3339; not delivered from then on.
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<String>,
    /// The whole request as JSON, `-` for standard input, instead of the options above.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "category", "channel", "title", "body", "priority", "expires_at"])]
    pub(crate) file: Option<PathBuf>,
    /// Waits for the end and shows the trace.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}
