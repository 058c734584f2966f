//! The states of a delivery and the reasons for them: two closed lists, and the table of allowed transitions.

/// Declares a closed enum with its `snake_case` codes.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[doc = $vdoc:literal])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[doc = $vdoc])* $variant,)* }

        impl $name {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code in answers, events and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means, for people.
            pub fn explain(self) -> &'static str {
                match self { $(Self::$variant => concat!($($vdoc),*).trim_start(),)* }
            }

            /// Parses a code; the error lists what there is.
            pub fn parse(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    format!(concat!($what, " is one of {}"), all.join(", "))
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes!(
    /// Where a delivery stands.
    State, "a state" {
        /// The request was taken over; nothing is decided yet.
        Accepted = "accepted",
        /// Waits for its `send_at`.
        Scheduled = "scheduled",
        /// Waits for something else: quiet hours, a budget, a retry.
        Deferred = "deferred",
        /// Decided, on its way to its gateway.
        Queued = "queued",
        /// A request to the provider is on its way.
        Sending = "sending",
        /// The provider took it.
        Sent = "sent",
        /// The provider says that it arrived.
        Delivered = "delivered",
        /// The person opened it.
        Read = "read",
        /// The person followed a link in it.
        Clicked = "clicked",
        /// Not sent, on purpose; the reason says why.
        Suppressed = "suppressed",
        /// Its `expires_at` came first.
        Expired = "expired",
        /// Called off by the client.
        Cancelled = "cancelled",
        /// Cannot be delivered; the reason says why.
        Failed = "failed",
        /// It may or may not have been delivered, and must not be sent again.
        Unknown = "unknown",
    }
);

codes!(
    /// Why a delivery stands where it stands.
    Reason, "a reason" {
        /// The user wants nothing at all (`preferences.all` is false).
        OptedOutAll = "opted_out_all",
        /// The user does not want this category.
        OptedOutCategory = "opted_out_category",
        /// The user does not want this channel.
        OptedOutChannel = "opted_out_channel",
        /// The category is opt-in and the user has not opted in.
        NotOptedIn = "not_opted_in",
        /// The user has no address on this channel.
        NoAddress = "no_address",
        /// There is no such user.
        UnknownUser = "unknown_user",
        /// `expires_at` has passed.
        Expired = "expired",
        /// The address does not exist any more; the provider said so.
        AddressGone = "address_gone",
        /// The address lies in a network that this installation does not send to.
        AddressForbidden = "address_forbidden",
        /// The provider refused this message for good.
        ProviderRejected = "provider_rejected",
        /// The account or its credentials are wrong or missing.
        Misconfigured = "misconfigured",
        /// Every attempt failed.
        RetriesExhausted = "retries_exhausted",
        /// The template could not be rendered with this data; `carillon templates` and the answer say where.
        TemplateFailed = "template_failed",
        /// An operator sent the dead letter on its way again.
        Redriven = "redriven",
    }
);

impl State {
    /// Nothing more is sent for a delivery in this state. `sent`, `delivered` and `read` may still be followed by what the
    /// provider or the person reports.
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Accepted | Self::Scheduled | Self::Deferred | Self::Queued | Self::Sending => false,
            Self::Sent | Self::Delivered | Self::Read | Self::Clicked => true,
            Self::Suppressed | Self::Expired | Self::Cancelled | Self::Failed | Self::Unknown => true,
        }
    }

    /// The provider took it, or more.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Sent | Self::Delivered | Self::Read | Self::Clicked)
    }

    /// The transition table.
    pub const fn may_become(self, next: Self) -> bool {
        use State::{
            Accepted, Cancelled, Clicked, Deferred, Delivered, Expired, Failed, Queued, Read, Scheduled, Sending, Sent,
            Suppressed, Unknown,
        };
        match self {
            Accepted => matches!(next, Scheduled | Deferred | Queued | Suppressed | Expired | Cancelled | Failed),
            Scheduled | Deferred => matches!(next, Deferred | Queued | Suppressed | Expired | Cancelled | Failed),
            Queued => matches!(next, Deferred | Sending | Sent | Suppressed | Expired | Cancelled | Failed | Unknown),
            // a receipt may overtake the answer
            Sending => matches!(next, Sent | Delivered | Deferred | Expired | Failed | Unknown),
            // a bounce may follow an acceptance
            Sent => matches!(next, Delivered | Read | Clicked | Failed),
            Delivered => matches!(next, Read | Clicked | Failed),
            Read => matches!(next, Clicked),
            // a late receipt can still settle what was unknown
            Unknown => matches!(next, Queued | Sent | Delivered | Read | Clicked | Failed),
            // only an operator who re-drives a dead letter does that, and what is not known to be unsent only when told so
            Failed => matches!(next, Queued),
            Clicked | Suppressed | Expired | Cancelled => false,
        }
    }
}

/// A notification's state, from the states of its deliveries. `open` says that recipients are still undecided.
pub fn derive(states: impl IntoIterator<Item = State>, open: bool) -> State {
    let states: Vec<State> = states.into_iter().collect();
    if let Some(waiting) = states.iter().copied().filter(|s| !s.is_settled()).max() {
        return waiting;
    }
    if open {
        return if states.is_empty() { State::Accepted } else { State::Queued };
    }
    if let Some(best) = states.iter().copied().filter(|s| s.is_success()).max() {
        return best;
    }
    // what needs somebody's eye comes first
    [State::Failed, State::Unknown, State::Expired, State::Cancelled, State::Suppressed]
        .into_iter()
        .find(|s| states.contains(s))
        .unwrap_or(State::Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_table() {
        let table: String = State::ALL
            .iter()
            .map(|from| {
                let next: Vec<_> = State::ALL.iter().filter(|to| from.may_become(**to)).map(|s| s.as_str()).collect();
                format!("{from}: {}\n", next.join(" "))
            })
            .collect();
        assert_eq!(
            table,
            "accepted: scheduled deferred queued suppressed expired cancelled failed\n\
             scheduled: deferred queued suppressed expired cancelled failed\n\
             deferred: deferred queued suppressed expired cancelled failed\n\
             queued: deferred sending sent suppressed expired cancelled failed unknown\n\
             sending: deferred sent delivered expired failed unknown\n\
             sent: delivered read clicked failed\n\
             delivered: read clicked failed\n\
             read: clicked\n\
             clicked: \n\
             suppressed: \n\
             expired: \n\
             cancelled: \n\
             failed: queued\n\
             unknown: queued sent delivered read clicked failed\n"
        );
    }

    #[test]
    fn nothing_settled_goes_back_to_waiting() {
        for from in State::ALL.iter().filter(|s| s.is_settled()) {
            let waiting = State::ALL.iter().filter(|to| !to.is_settled() && from.may_become(**to)).count();
            // only a dead letter that is re-driven does
            assert_eq!(waiting, usize::from(matches!(from, State::Failed | State::Unknown)), "{from}");
        }
        for code in State::ALL {
            assert_eq!(State::parse(code.as_str()), Ok(*code));
            assert!(code.explain().ends_with('.'), "{code}: {}", code.explain());
        }
        assert_eq!(Reason::NoAddress.explain(), "The user has no address on this channel.");
        assert!(Reason::parse("nope").expect_err("unknown").contains("opted_out_category"));
    }

    #[test]
    fn a_notification_is_as_far_as_its_deliveries() {
        assert_eq!(derive([], true), State::Accepted);
        assert_eq!(derive([State::Sent], true), State::Queued);
        assert_eq!(derive([State::Sent, State::Queued], false), State::Queued);
        assert_eq!(derive([State::Sent, State::Failed, State::Suppressed], false), State::Sent);
        assert_eq!(derive([State::Suppressed, State::Failed], false), State::Failed);
        assert_eq!(derive([State::Suppressed], false), State::Suppressed);
    }
}
