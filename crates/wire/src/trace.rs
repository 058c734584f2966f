//! W3C Trace Context: one `traceparent` follows a notification through every topic.

use data_encoding::HEXLOWER;

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
        let mut parts = header.split(|byte| *byte == b'-');
        let [version] = bytes(parts.next()?)?;
        let (trace_id, span_id, [flags]) = (bytes(parts.next()?)?, bytes(parts.next()?)?, bytes(parts.next()?)?);
        if version == 0xff || version == 0 && parts.next().is_some() {
            return None;
        }
        let context = Self { trace_id: u128::from_be_bytes(trace_id), span_id: u64::from_be_bytes(span_id), flags };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The header: as `Display` writes it.
    pub fn header(self) -> [u8; 55] {
        let mut header = *b"00-................................-................-..";
        HEXLOWER.encode_mut(&self.trace_id.to_be_bytes(), &mut header[3..35]);
        HEXLOWER.encode_mut(&self.span_id.to_be_bytes(), &mut header[36..52]);
        HEXLOWER.encode_mut(&[self.flags], &mut header[53..]);
        header
    }
}

/// What so many lower-case digits say.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (digits.len() == 2 * N && HEXLOWER.decode_mut(digits, &mut bytes).is_ok()).then_some(bytes)
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.header()))
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
