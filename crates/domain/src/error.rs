//! What is wrong with an input: the field, and the remedy.

/// One problem with one field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the input, for instance `/to/3/user`; empty for the whole.
    pub pointer: String,
    /// What is wrong and what would be right, in one sentence.
    pub detail: String,
}

/// All that is wrong with one input; never empty when returned as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// Notes one more problem.
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.into(), detail: detail.into() });
    }

    /// Keeps the value, or notes why there is none.
    pub fn take<T>(&mut self, pointer: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|detail| self.add(pointer, detail)).ok()
    }

    /// `Ok` when nothing was noted.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            let pointer = if e.pointer.is_empty() { "/" } else { &e.pointer };
            write!(f, "{}{pointer}: {}", if i > 0 { "; " } else { "" }, e.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}
