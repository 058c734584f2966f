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
        let (known, more) = header.split_first_chunk::<55>()?;
        if [known[2], known[35], known[52]] != [b'-'; 3] {
            return None;
        }
        // all digits at once, for every record has them
        let mut digits = [0; 52];
        digits[..2].copy_from_slice(&known[..2]);
        digits[2..34].copy_from_slice(&known[3..35]);
        digits[34..50].copy_from_slice(&known[36..52]);
        digits[50..].copy_from_slice(&known[53..]);
        let mut bytes = [0; 26];
        HEXLOWER.decode_mut(&digits, &mut bytes).ok()?;
        let (version, trace_id) = (bytes[0], bytes[1..17].try_into().ok()?);
        let (span_id, flags) = (bytes[17..25].try_into().ok()?, bytes[25]);
        // a later version may have more parts
        let ended = more.is_empty() || version != 0 && more[0] == b'-';
        if version == 0xff || !ended {
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
            &format!("{text}x"),
            &text.replace("-b7", "xb7"),
            &text.replacen("00", "ff", 1),
            &format!("{}x", text.replacen("00", "01", 1)),
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
        // a version that is not known yet may have more parts
        let later = format!("{}-x", text.replacen("00", "01", 1));
        assert_eq!(TraceContext::parse(later.as_bytes()), Some(context));
    }
}
