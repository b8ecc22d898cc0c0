//! Secrets of exported backends as variables: the file can be shown, and works again where the
//! variables are set.

use crate::{
    api::{ImportServer, ImportTarget},
    secret::{hidden_args, hidden_url, is_placeholder},
};
use std::collections::BTreeMap;

/// Replaces every secret by `${NAME}`. A variable of an environment keeps its name; when another
/// server has another value under it, and for headers and options, the server's name is part of it.
pub fn hide(servers: Vec<ImportServer>) -> Vec<ImportServer> {
    let mut variables = Variables::default();
    servers.into_iter().map(|server| variables.hide(server)).collect()
}

/// Values by the variable that stands for them.
#[derive(Default)]
struct Variables {
    values: BTreeMap<String, String>,
}

impl Variables {
    fn hide(&mut self, server: ImportServer) -> ImportServer {
        let name = server.name.as_str();
        let target = match server.target {
            ImportTarget::Stdio { command, args, env, cwd } => ImportTarget::Stdio {
                command,
                args: hidden_args(&args, &mut |option, value| self.of_server(name, option, value)),
                env: env.into_iter().map(|(key, value)| self.of_environment(name, key, &value)).collect(),
                cwd,
            },
            ImportTarget::Http { url, headers } => ImportTarget::Http {
                url: hidden_url(&url, &mut |option, value| self.of_server(name, option, value)),
                headers: headers.into_iter().map(|(key, value)| self.of_header(name, key, &value)).collect(),
            },
        };
        ImportServer { target, ..server }
    }

    fn of_environment(&mut self, server: &str, key: String, value: &str) -> (String, String) {
        let free = self.values.get(&key).is_none_or(|taken| taken == value);
        let hidden = if value.is_empty() || is_placeholder(value) {
            value.to_owned()
        } else if free && is_variable(&key) {
            self.placeholder(key.clone(), value)
        } else {
            self.of_server(server, &key, value)
        };
        (key, hidden)
    }

    /// The scheme of an `Authorization` is no secret.
    fn of_header(&mut self, server: &str, key: String, value: &str) -> (String, String) {
        let authorization = key.eq_ignore_ascii_case("authorization");
        let hidden = match value.split_once(' ').filter(|_| authorization) {
            Some((scheme, credentials)) => {
                format!("{scheme} {}", self.of_server(server, &key, credentials))
            }
            None => self.of_server(server, &key, value),
        };
        (key, hidden)
    }

    fn of_server(&mut self, server: &str, key: &str, value: &str) -> String {
        if value.is_empty() || is_placeholder(value) {
            return value.to_owned();
        }
        let base = variable(&format!("{server}_{}", key.trim_start_matches('-')));
        let mut names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}_{n}")));
        let free = |name: &String| self.values.get(name).is_none_or(|taken| taken == value);
        let name = names.find(free).unwrap_or(base);
        self.placeholder(name, value)
    }

    fn placeholder(&mut self, name: String, value: &str) -> String {
        let placeholder = format!("${{{name}}}");
        self.values.insert(name, value.to_owned());
        placeholder
    }
}

fn is_variable(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(allowed) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Letters in upper case, digits, and underscores for the rest.
fn variable(text: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = text.chars().map(upper).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}
