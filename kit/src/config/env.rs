//! One environment variable as a layer.

use figment::{
    Error, Metadata, Profile, Provider,
    providers::Env,
    util::nest,
    value::{Dict, Map, Value},
};

/// Environment variables that count: `SWARM__SESSION__RF` sets `rf` of `[session]`.
pub const ENV_PREFIX: &str = "SWARM__";

/// A variable; its name is the layer's, so that errors can tell it.
pub(super) struct Variable {
    key: String,
    value: Value,
}

/// The variables of this process. Lists and tables are read as TOML-like text (`[a, b]`); all
/// else stays text, which extraction turns into the number or flag that the key wants: a node
/// may be called "1".
pub(super) fn variables() -> impl Iterator<Item = Variable> {
    let all: Vec<_> = Env::prefixed(ENV_PREFIX).split("__").iter().collect();
    all.into_iter().map(|(key, text)| {
        let value = match text.parse() {
            Ok(list_or_table @ (Value::Array(..) | Value::Dict(..))) => list_or_table,
            _ => Value::from(text),
        };
        Variable { key: key.as_str().to_lowercase(), value }
    })
}

impl Variable {
    fn name(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "__").to_uppercase())
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let nested = nest(&self.key, self.value.clone()).into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(nested))
    }
}
