//! Rewrites a text of a template so that all it makes passes the meter, and refuses what the language does not have.
//!
//! The engine bounds steps, not sizes: `'x' * 1e8`, `x ~ x` again and again, a list in a list in a list, a long chain of
//! operators each cost few steps and much memory, time or stack. So the syntax tree is read (it alone is the engine's
//! unstable interface; the `match` on expressions is exhaustive), and written again with each operand passed through
//! `_bounded` or `_number`. What an operator or a filter of the language makes is linear in its operands, so
//! all values are bounded. Line numbers stay the same.

mod expressions;
mod scan;

use std::collections::BTreeSet;

use minijinja::machinery::{
    Span,
    ast::{Expr, Stmt},
    parse,
};

use self::scan::scan;
use crate::{language::syntax, merge::Merge, meter::KEEP};

/// Most problems that are told of one text.
const MAX_PROBLEMS: usize = 10;
/// Most characters of one.
const MAX_DETAIL: usize = 500;

/// A text that may be run.
pub(crate) struct Guarded {
    /// What the engine gets.
    pub(crate) source: String,
    /// It keeps the value's type.
    pub(crate) keeps: bool,
    /// The same for whoever can do without the engine; nothing in it is escaped.
    pub(crate) merge: Option<Merge>,
}

/// Rewrites `source`. With `typed`, a text that is one expression and nothing else keeps the value.
/// The errors begin with the line.
pub(crate) fn guard(source: &str, declared: &BTreeSet<&str>, typed: bool) -> Result<Guarded, Vec<String>> {
    scan(source).map_err(|e| vec![e])?;
    let tree = parse(source, "", syntax()).map_err(|e| vec![explain(&e)])?;
    let Stmt::Template(template) = &tree else { return Err(vec!["line 1: not a template".into()]) };
    let keeps = typed && matches!(template.children.as_slice(), [Stmt::EmitExpr(_)]);
    let mut rewriter = Rewriter {
        out: String::with_capacity(source.len() * 2),
        line: 1,
        scopes: vec![],
        declared,
        keeps,
        problems: vec![],
    };
    rewriter.scoped([], |r| r.body(&template.children));
    if rewriter.problems.is_empty() {
        Ok(Guarded { source: rewriter.out, keeps, merge: Merge::of(&template.children) })
    } else {
        Err(rewriter.problems)
    }
}

/// An error of the engine's, with its line.
pub(crate) fn explain(error: &minijinja::Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    line(error.line().unwrap_or(1), &detail)
}

fn line(number: usize, detail: &str) -> String {
    format!("line {number}: {}", detail.chars().take(MAX_DETAIL).collect::<String>())
}

struct Rewriter<'s, 'd> {
    out: String,
    /// Of the end of `out`.
    line: u16,
    /// What `for`, `with` and `set` name.
    scopes: Vec<BTreeSet<&'s str>>,
    declared: &'d BTreeSet<&'d str>,
    keeps: bool,
    problems: Vec<String>,
}

impl<'s> Rewriter<'s, '_> {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn problem(&mut self, span: Span, detail: &str) {
        let problem = line(span.start_line.into(), detail);
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Inside of tags, line feeds mean nothing: so the next word stands where it stood.
    fn align(&mut self, span: Span) {
        while self.line < span.start_line {
            self.out.push('\n');
            self.line += 1;
        }
    }

    fn scoped(&mut self, names: impl IntoIterator<Item = &'s str>, inner: impl FnOnce(&mut Self)) {
        self.scopes.push(names.into_iter().collect());
        inner(self);
        self.scopes.pop();
    }

    fn body(&mut self, statements: &[Stmt<'s>]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt<'s>) {
        match statement {
            Stmt::EmitRaw(raw) => self.raw(raw.raw),
            Stmt::EmitExpr(emit) => {
                self.push("{{ ");
                self.align(emit.span());
                self.operand(&emit.expr, 0);
                if self.keeps {
                    self.push("|");
                    self.push(KEEP);
                }
                self.push(" }}");
            }
            Stmt::IfCond(condition) => {
                self.tag("if ", condition.span(), |r| r.expression(&condition.expr, 0));
                self.body(&condition.true_body);
                let mut rest = condition.false_body.as_slice();
                while let [Stmt::IfCond(next)] = rest {
                    self.tag("elif ", next.span(), |r| r.expression(&next.expr, 0));
                    self.body(&next.true_body);
                    rest = &next.false_body;
                }
                if !rest.is_empty() {
                    self.push("{% else %}");
                    self.body(rest);
                }
                self.push("{% endif %}");
            }
            Stmt::ForLoop(_) | Stmt::WithBlock(_) | Stmt::Set(_) => self.binding(statement),
            other => {
                let (span, what) = refused(other);
                self.problem(span, &format!("templates have no {what}; they have `if`, `for`, `set` and `with`"));
            }
        }
    }

    /// Statements that name values.
    fn binding(&mut self, statement: &Stmt<'s>) {
        match statement {
            Stmt::ForLoop(each) => {
                if each.recursive {
                    self.problem(each.span(), "loops are not `recursive` here");
                }
                let names = names(&each.target);
                self.tag("for ", each.span(), |r| {
                    r.target(&each.target);
                    r.push(" in ");
                    r.operand(&each.iter, 0);
                    if let Some(filter) = &each.filter_expr {
                        r.push(" if ");
                        r.scoped(names.clone(), |r| r.expression(filter, 0));
                    }
                });
                self.scoped(names.iter().copied().chain(["loop"]), |r| r.body(&each.body));
                if !each.else_body.is_empty() {
                    self.push("{% else %}");
                    self.body(&each.else_body);
                }
                self.push("{% endfor %}");
            }
            Stmt::WithBlock(with) => {
                self.scopes.push(BTreeSet::new());
                self.tag("with ", with.span(), |r| {
                    for (i, (target, value)) in with.assignments.iter().enumerate() {
                        r.push(if i > 0 { ", " } else { "" });
                        r.assign(target, value);
                    }
                });
                self.body(&with.body);
                self.scopes.pop();
                self.push("{% endwith %}");
            }
            Stmt::Set(set) => self.tag("set ", set.span(), |r| r.assign(&set.target, &set.expr)),
            _ => {}
        }
    }

    fn tag(&mut self, keyword: &str, span: Span, inner: impl FnOnce(&mut Self)) {
        self.push("{% ");
        self.align(span);
        self.push(keyword);
        inner(self);
        self.push(" %}");
    }

    fn assign(&mut self, target: &Expr<'s>, value: &Expr<'s>) {
        self.target(target);
        self.push(" = ");
        self.operand(value, 0);
        if let Some(scope) = self.scopes.last_mut() {
            scope.extend(names(target));
        }
    }

    fn target(&mut self, target: &Expr<'s>) {
        match target {
            Expr::Var(var) => self.push(var.id),
            Expr::List(list) => {
                self.push("(");
                for item in &list.items {
                    self.target(item);
                    self.push(", ");
                }
                self.push(")");
            }
            other => self.problem(other.span(), "only names can be set"),
        }
    }

    /// Text outside of tags. A brace could open a tag with what comes after it, so then it goes as a literal.
    fn raw(&mut self, text: &str) {
        if text.contains('{') {
            self.push("{{ ");
            self.text(text);
            self.push("|safe }}");
        } else {
            self.push(text);
            self.line = self.line.saturating_add(u16::try_from(text.matches('\n').count()).unwrap_or(u16::MAX));
        }
    }
}

/// The names that a target sets.
fn names<'s>(target: &Expr<'s>) -> Vec<&'s str> {
    match target {
        Expr::Var(var) => vec![var.id],
        Expr::List(list) => list.items.iter().flat_map(names).collect(),
        _ => vec![],
    }
}

fn refused(statement: &Stmt<'_>) -> (Span, &'static str) {
    match statement {
        Stmt::SetBlock(s) => (s.span(), "blocks of `set`"),
        Stmt::AutoEscape(s) => (s.span(), "`autoescape`"),
        Stmt::FilterBlock(s) => (s.span(), "blocks of `filter`"),
        Stmt::Do(s) => (s.span(), "`do`"),
        // macros, includes and inheritance, if another crate should switch these features of the engine on
        _ => (Span { start_line: 1, ..Span::default() }, "such statement"),
    }
}

#[cfg(test)]
mod tests;
