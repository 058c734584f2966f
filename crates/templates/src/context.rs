//! What the texts of a template can name.

use std::sync::Arc;

use domain::template::Template;
use minijinja::{Value, value::Object};
use serde_json::Map;

use crate::{
    compile::of_json,
    meter::{self, Meter},
};

/// The variables that a template declares, in the order of their names.
#[derive(Debug, Clone)]
pub(crate) struct Variables(Arc<[Variable]>);

#[derive(Debug)]
struct Variable {
    name: String,
    default: Option<Value>,
}

impl Variables {
    pub(crate) fn of(template: &Template) -> Self {
        let variables = template.variables.iter();
        Self(
            variables
                .map(|(name, v)| Variable { name: name.clone(), default: v.default.as_ref().map(of_json) })
                .collect(),
        )
    }

    /// The value that the data or the declaration gives a variable, if that is a text.
    pub(crate) fn text<'v>(&'v self, name: &str, data: &'v Map<String, serde_json::Value>) -> Option<&'v str> {
        match data.get(name) {
            Some(value) => value.as_str(),
            None => self.0[self.place(name)?].default.as_ref()?.as_str(),
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|v| v.name.as_str().cmp(name)).ok()
    }
}

/// What a rendering has of them, and its meter. It is made for each delivery, so the names are not copied into it.
#[derive(Debug)]
pub(crate) struct Context {
    variables: Variables,
    /// As many as there are variables.
    values: Vec<Option<Value>>,
    meter: Value,
}

impl Context {
    pub(crate) fn new(variables: &Variables, data: &Map<String, serde_json::Value>, meter: &Arc<Meter>) -> Self {
        let value = |v: &Variable| data.get(&v.name).map(of_json).or_else(|| v.default.clone());
        Self {
            variables: variables.clone(),
            values: variables.0.iter().map(value).collect(),
            meter: Value::from_dyn_object(Arc::clone(meter)),
        }
    }
}

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        if name == meter::NAME {
            return Some(self.meter.clone());
        }
        self.values[self.variables.place(name)?].clone()
    }
}
