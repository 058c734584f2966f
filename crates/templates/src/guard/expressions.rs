//! Writes expressions again, each operand with its bound.

use minijinja::{
    Value,
    machinery::{
        Span,
        ast::{BinOpKind, CallArg, CompareOpKind, Expr, Filter, Test, UnaryOpKind},
    },
    value::ValueKind,
};

use super::Rewriter;
use crate::{
    language::{FILTERS, TESTS, some},
    meter::{BOUNDED, NUMBER},
};

/// How deep an expression may be nested.
const MAX_DEPTH: usize = 32;
/// Most bytes of a literal that names an attribute.
const MAX_PATH: usize = 64;

impl<'s> Rewriter<'s, '_> {
    pub(super) fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.push("\\\""),
                '\\' => self.push("\\\\"),
                '\n' => self.push("\\n"),
                '\r' => self.push("\\r"),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn constant(&mut self, value: &Value, span: Span) {
        match value.as_str() {
            Some(text) => self.text(text),
            None if value.kind() == ValueKind::Number && f64::try_from(value.clone()).is_ok_and(|n| !n.is_finite()) => {
                self.problem(span, "this number is too large");
            }
            None => self.push(&value.to_string()),
        }
    }

    /// An expression that something is made of. A literal is as long as its source, so it needs no bound.
    pub(super) fn operand(&mut self, expression: &Expr<'s>, depth: usize) {
        self.expression(expression, depth);
        if !matches!(expression, Expr::Const(_)) {
            self.push("|");
            self.push(BOUNDED);
        }
    }

    fn operands(&mut self, expressions: &[Expr<'s>], depth: usize) {
        for expression in expressions {
            self.operand(expression, depth);
            self.push(", ");
        }
    }

    /// An expression of which an attribute, an item or a part is taken.
    fn base(&mut self, expression: &Expr<'s>, depth: usize) {
        if matches!(expression, Expr::Const(_)) {
            self.push("(");
            self.expression(expression, depth);
            self.push(")");
        } else {
            self.expression(expression, depth);
        }
    }

    /// Written so that whatever comes after it applies to all of it: names, literals, or in parentheses.
    pub(super) fn expression(&mut self, expression: &Expr<'s>, depth: usize) {
        self.align(expression.span());
        if depth > MAX_DEPTH {
            self.problem(expression.span(), &format!("the expression is nested deeper than {MAX_DEPTH}; use `set`"));
            return;
        }
        let depth = depth + 1;
        match expression {
            Expr::Var(var) => self.variable(var.id, var.span()),
            Expr::Const(constant) => self.constant(&constant.value, constant.span()),
            Expr::GetAttr(get) => {
                self.base(&get.expr, depth);
                self.push(".");
                self.push(get.name);
            }
            Expr::GetItem(get) => {
                self.base(&get.expr, depth);
                self.push("[");
                self.operand(&get.subscript_expr, depth);
                self.push("]");
            }
            Expr::List(list) => {
                self.push("[");
                self.operands(&list.items, depth);
                self.push("]");
            }
            Expr::Map(map) => {
                self.push("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.operand(key, depth);
                    self.push(": ");
                    self.operand(value, depth);
                    self.push(", ");
                }
                self.push("}");
            }
            Expr::Call(call) => self.problem(call.span(), "templates call no functions or methods; use a filter"),
            Expr::Slice(_)
            | Expr::UnaryOp(_)
            | Expr::BinOp(_)
            | Expr::Compare(_)
            | Expr::IfExpr(_)
            | Expr::Filter(_)
            | Expr::Test(_)
            | Expr::Tuple(_) => {
                self.push("(");
                self.compound(expression, depth);
                self.push(")");
            }
        }
    }

    fn compound(&mut self, expression: &Expr<'s>, depth: usize) {
        match expression {
            Expr::Slice(slice) => {
                if let Some(step) = &slice.step {
                    self.problem(step.span(), "parts are taken without a step; `|reverse` turns round");
                }
                // the base in parentheses with its filter, so that the part is taken of what has passed it
                self.push("(");
                self.operand(&slice.expr, depth);
                self.push(")[");
                slice.start.iter().for_each(|start| self.operand(start, depth));
                self.push(":");
                slice.stop.iter().for_each(|stop| self.operand(stop, depth));
                self.push("]");
            }
            Expr::UnaryOp(unary) => match unary.op {
                UnaryOpKind::Not => {
                    self.push("not ");
                    self.expression(&unary.expr, depth);
                }
                UnaryOpKind::Neg => {
                    self.push("-");
                    self.base(&unary.expr, depth);
                }
            },
            Expr::BinOp(binary) => self.binary(binary.op, &binary.left, &binary.right, depth),
            Expr::Compare(compare) => {
                self.operand(&compare.expr, depth);
                for part in &compare.ops {
                    self.push(comparison(part.op));
                    self.operand(&part.expr, depth);
                }
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.true_expr, depth);
                self.push(" if ");
                self.expression(&choice.test_expr, depth);
                if let Some(other) = &choice.false_expr {
                    self.push(" else ");
                    self.expression(other, depth);
                }
            }
            Expr::Filter(filter) => self.filter(filter, filter.span(), depth),
            Expr::Test(test) => self.test(test, test.span(), depth),
            Expr::Tuple(tuple) => self.operands(&tuple.items, depth),
            _ => {}
        }
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr<'s>, right: &Expr<'s>, depth: usize) {
        match op {
            BinOpKind::Mul => {
                for (side, sign) in [(left, "*"), (right, "")] {
                    self.expression(side, depth);
                    self.push("|");
                    self.push(NUMBER);
                    self.push(sign);
                }
            }
            BinOpKind::ScAnd | BinOpKind::ScOr => {
                self.expression(left, depth);
                self.push(operator(op));
                self.expression(right, depth);
            }
            _ => {
                self.operand(left, depth);
                self.push(operator(op));
                self.operand(right, depth);
            }
        }
    }

    fn variable(&mut self, name: &str, span: Span) {
        if !self.declared.contains(name) && !self.scopes.iter().any(|s| s.contains(name)) {
            let detail = format!("variable `{}` is not declared; declared are {}", short(name), some(self.declared));
            self.problem(span, &detail);
        }
        self.push(name);
    }

    fn filter(&mut self, filter: &Filter<'s>, span: Span, depth: usize) {
        let Some(known) = FILTERS.iter().find(|f| f.name == filter.name) else {
            let names = FILTERS.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
            return self.problem(span, &format!("there is no filter `{}`; there are {names}", short(filter.name)));
        };
        let Some(subject) = &filter.expr else { return self.problem(span, "a filter needs a subject") };
        if known.name == "format" && !literal(subject).is_some_and(is_short_format) {
            self.problem(span, "`format` is used on a literal, with widths and precisions of at most two digits");
        }
        self.operand(subject, depth);
        self.push("|");
        self.push(known.name);
        self.push("(");
        let positional = filter.args.iter().filter(|a| matches!(a, CallArg::Pos(_))).count();
        if positional > known.positional {
            self.problem(span, &format!("filter `{}` takes at most {} arguments", known.name, known.positional));
        }
        for argument in &filter.args {
            match argument {
                CallArg::Pos(value) => self.argument(None, value, known.literal, depth),
                CallArg::Kwarg(name, value) if known.named.contains(name) => {
                    self.argument(Some(name), value, *name == "attribute", depth);
                }
                CallArg::Kwarg(name, _) => {
                    self.problem(span, &format!("filter `{}` has no argument `{}`", known.name, short(name)));
                }
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => self.problem(span, "arguments are written out"),
            }
        }
        self.push(")");
    }

    fn argument(&mut self, name: Option<&str>, value: &Expr<'s>, path: bool, depth: usize) {
        if path && literal(value).is_none_or(|p| p.len() > MAX_PATH) {
            self.problem(value.span(), &format!("an attribute is a literal of at most {MAX_PATH} bytes"));
        }
        if let Some(name) = name {
            self.push(name);
            self.push("=");
        }
        self.operand(value, depth);
        self.push(", ");
    }

    fn test(&mut self, test: &Test<'s>, span: Span, depth: usize) {
        let Some((name, arguments)) = TESTS.iter().find(|(name, _)| *name == test.name) else {
            let names = TESTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return self.problem(span, &format!("there is no test `{}`; there are {names}", short(test.name)));
        };
        if test.args.len() != *arguments {
            self.problem(span, &format!("test `{name}` takes {arguments} arguments"));
        }
        self.operand(&test.expr, depth);
        self.push(" is ");
        self.push(name);
        self.push("(");
        for argument in &test.args {
            match argument {
                CallArg::Pos(value) => self.argument(None, value, false, depth),
                CallArg::Kwarg(..) | CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    self.problem(span, "the arguments of a test are written out");
                }
            }
        }
        self.push(")");
    }
}

/// A name as errors show it.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

fn literal<'e>(expression: &'e Expr<'_>) -> Option<&'e str> {
    if let Expr::Const(constant) = expression { constant.value.as_str() } else { None }
}

/// No width or precision is given by an argument or has three digits.
fn is_short_format(format: &str) -> bool {
    !format.contains('*') && format.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= 2)
}

fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

fn operator(op: BinOpKind) -> &'static str {
    match op {
        BinOpKind::Eq => " == ",
        BinOpKind::Ne => " != ",
        BinOpKind::Lt => " < ",
        BinOpKind::Lte => " <= ",
        BinOpKind::Gt => " > ",
        BinOpKind::Gte => " >= ",
        BinOpKind::ScAnd => " and ",
        BinOpKind::ScOr => " or ",
        BinOpKind::Add => " + ",
        BinOpKind::Sub => " - ",
        BinOpKind::Mul => " * ",
        BinOpKind::Div => " / ",
        BinOpKind::FloorDiv => " // ",
        BinOpKind::Rem => " % ",
        BinOpKind::Pow => " ** ",
        BinOpKind::Concat => " ~ ",
        BinOpKind::In => " in ",
    }
}
