//! W3C Trace Context: one `traceparent` follows a notification through every topic.

/// The version-00 `traceparent`: which trace, and which span sent this on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: u128,
    /// 8 bytes, not all zero.
    pub span_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceContext {
    /// The header's name, on HTTP and on Kafka.
    pub const HEADER: &'static str = "traceparent";

    /// Begins a trace.
    pub fn start() -> Self {
        let id = uuid::Uuid::new_v4().as_u128();
        Self { trace_id: id, span_id: new_span(), flags: 1 }
    }

    /// The same trace, a new span: what is handed on.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: new_span(), ..self }
    }

    /// Parses a header; anything malformed is treated as absent, as the recommendation says.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |s: &str, n| s.len() == n && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !lower_hex(version, 2)
            || version == "ff"
            || !lower_hex(trace, 32)
            || !lower_hex(span, 16)
            || !lower_hex(flags, 2)
        {
            return None;
        }
        if version == "00" && parts.next().is_some() {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Tells the spans of a trace apart; nobody has to be kept from guessing it.
fn new_span() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommendation_s_own_example() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(text.as_bytes()).expect("valid");
        assert_eq!(context.to_string(), text);
        assert_eq!(context.child().trace_id, context.trace_id);
        assert_ne!(context.child().span_id, context.span_id);
        for bad in [
            "",
            "00",
            &text[..54],
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            &text.to_uppercase(),
            &format!("{text}-x"),
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
