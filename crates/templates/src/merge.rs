//! Merge fields: most texts only name variables between fixed words, and need no engine.

use minijinja::machinery::ast::{Expr, Stmt};
use serde_json::{Map, Value};

use crate::{context::Variables, meter::cost, render::TYPICAL};

/// A text in which nothing is computed.
#[derive(Debug)]
pub(crate) struct Merge(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Words(String),
    /// The name of a variable.
    Field(String),
}

impl Merge {
    /// Takes a text's statements, if it has nothing but words and names.
    pub(crate) fn of(statements: &[Stmt<'_>]) -> Option<Self> {
        let piece = |statement: &Stmt<'_>| match statement {
            Stmt::EmitRaw(words) => Some(Piece::Words(words.raw.to_owned())),
            Stmt::EmitExpr(emit) => match &emit.expr {
                Expr::Var(variable) => Some(Piece::Field(variable.id.to_owned())),
                _ => None,
            },
            _ => None,
        };
        statements.iter().map(piece).collect::<Option<_>>().map(Self)
    }

    /// What the engine would write, and what its meter would count. None if a field is missing or is no text, or all of it has
    /// more than `limit` bytes: then the engine says what comes of it.
    pub(crate) fn text(&self, variables: &Variables, data: &Map<String, Value>, limit: usize) -> Option<(String, u64)> {
        let (mut text, mut work) = (String::with_capacity(TYPICAL), 0);
        for piece in &self.0 {
            let words = match piece {
                Piece::Words(words) => words,
                Piece::Field(name) => {
                    let field = variables.text(name, data)?;
                    work += cost(field);
                    field
                }
            };
            if words.len() > limit - text.len() {
                return None;
            }
            text.push_str(words);
        }
        Some((text, work))
    }
}
