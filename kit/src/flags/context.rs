//! For whom a flag is asked.

/// The subject of a question. Borrowed, so that asking allocates nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EvalContext<'a> {
    /// What percentages are taken of: a tenant, a session id, a server's name.
    pub targeting_key: Option<&'a str>,
    /// What rules look at, such as `("tenant", "a".into())`.
    pub attributes: &'a [(&'a str, Attribute<'a>)],
}

impl<'a> EvalContext<'a> {
    /// Nobody in particular.
    pub const NOBODY: EvalContext<'static> = EvalContext { targeting_key: None, attributes: &[] };

    /// A targeting key.
    pub fn key(targeting_key: &'a str) -> Self {
        Self { targeting_key: Some(targeting_key), attributes: &[] }
    }

    /// The same with attributes.
    #[must_use]
    pub fn with(self, attributes: &'a [(&'a str, Attribute<'a>)]) -> Self {
        Self { attributes, ..self }
    }

    pub(super) fn get(&self, name: &str) -> Option<Attribute<'a>> {
        if name == "targetingKey" {
            return self.targeting_key.map(Attribute::Text);
        }
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// A value of the context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attribute<'a> {
    /// Text.
    Text(&'a str),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

impl<'a> From<&'a str> for Attribute<'a> {
    fn from(text: &'a str) -> Self {
        Attribute::Text(text)
    }
}

impl<'a> Attribute<'a> {
    /// A JSON scalar; anything else is no attribute.
    pub fn of_json(value: &'a serde_json::Value) -> Option<Self> {
        Some(match value {
            serde_json::Value::String(text) => Attribute::Text(text),
            serde_json::Value::Number(number) => Attribute::Number(number.as_f64()?),
            serde_json::Value::Bool(value) => Attribute::Bool(*value),
            _ => return None,
        })
    }
}
