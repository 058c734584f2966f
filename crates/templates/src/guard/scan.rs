//! Bounds what the engine recurses over, before it does.

use minijinja::machinery::{Token, tokenize};

use super::explain;
use crate::language::syntax;

/// Most tokens in one tag: parsing, compiling and dropping recurse by the token.
const MAX_TOKENS: usize = 256;
/// Most `elif` in one text: each nests.
const MAX_ELIF: usize = 64;

/// Refuses a text with too long tags.
pub(super) fn scan(source: &str) -> Result<(), String> {
    let (mut tokens, mut elifs, mut first) = (0, 0, false);
    for token in tokenize(source, false, syntax()) {
        let (token, span) = token.map_err(|e| explain(&e))?;
        if matches!(token, Token::TemplateData(_) | Token::VariableStart | Token::BlockStart) {
            (tokens, first) = (0, true);
            continue;
        }
        tokens += 1;
        elifs += usize::from(std::mem::take(&mut first) && matches!(token, Token::Ident("elif")));
        if tokens > MAX_TOKENS {
            return Err(format!(
                "line {}: a tag has more than {MAX_TOKENS} words and signs; split it",
                span.start_line
            ));
        }
        if elifs > MAX_ELIF {
            return Err(format!("line {}: a text has more than {MAX_ELIF} `elif`", span.start_line));
        }
    }
    Ok(())
}
