//! What is secret in a backend: every value of an environment and of a header, what belongs to an
//! option whose name says so, and the password of a URL. Plans mask it, exports name a variable.

use proto::registry::{BackendSpec, backend_spec::Transport};

/// Stands for a value that is not shown.
pub const MASK: &str = "***";
/// An option with one of these in its name has a secret.
const WORDS: [&str; 7] = ["token", "secret", "password", "passwd", "apikey", "api-key", "header"];

/// Whether values of secrets are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As they are.
    Plain,
    /// As [`MASK`].
    Masked,
}

impl Shown {
    /// From the operator's option.
    pub fn of(show: bool) -> Shown {
        if show { Shown::Plain } else { Shown::Masked }
    }

    /// A value that may be secret. One that only names a variable is none.
    pub fn value(self, value: &str) -> String {
        let plain = self == Shown::Plain || value.is_empty() || is_placeholder(value);
        if plain { value.to_owned() } else { MASK.to_owned() }
    }

    /// A command line or URL, for people.
    pub fn target(self, spec: &BackendSpec) -> String {
        match &spec.transport {
            Some(Transport::Stdio(stdio)) => {
                let args = self.line(&stdio.args);
                if args.is_empty() { stdio.command.clone() } else { format!("{} {args}", stdio.command) }
            }
            Some(Transport::Http(http)) => self.url(&http.url),
            None => String::new(),
        }
    }

    /// Arguments of a command line.
    pub fn line(self, args: &[String]) -> String {
        hidden_args(args, &mut |_, value| self.value(value)).join(" ")
    }

    /// A URL.
    pub fn url(self, url: &str) -> String {
        hidden_url(url, &mut |_, value| self.value(value))
    }
}

/// What is put in the place of a secret: from what it belongs to, and its value.
pub type Hide<'a> = dyn FnMut(&str, &str) -> String + 'a;

/// Arguments with their secrets replaced.
pub fn hidden_args(args: &[String], hide: &mut Hide<'_>) -> Vec<String> {
    let mut option: Option<&str> = None;
    let mut hidden = Vec::with_capacity(args.len());
    for arg in args {
        hidden.push(match (option, arg.split_once('=')) {
            (Some(option), _) => hide(option, arg),
            (None, Some((option, value))) if is_secret_option(option) => {
                format!("{option}={}", hide(option, value))
            }
            (None, _) if arg.contains("://") => hidden_url(arg, hide),
            (None, _) => arg.clone(),
        });
        option =
            Some(arg.as_str()).filter(|arg| option.is_none() && is_secret_option(arg) && !arg.contains('='));
    }
    hidden
}

/// A URL with its password replaced.
pub fn hidden_url(url: &str, hide: &mut Hide<'_>) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
        let (user, host) = authority.rsplit_once('@')?;
        Some((scheme, user.split_once(':')?, host, path))
    });
    match parts {
        Some((scheme, (user, password), host, path)) => {
            format!("{scheme}://{user}:{}@{host}{path}", hide("password", password))
        }
        None => url.to_owned(),
    }
}

/// `${NAME}`, with or without the scheme of an `Authorization` header before it.
pub fn is_placeholder(value: &str) -> bool {
    let value = value.split_once(' ').map_or(value, |(_scheme, rest)| rest);
    value.starts_with("${") && value.ends_with('}') && value.matches('}').count() == 1
}

fn is_secret_option(option: &str) -> bool {
    let lower = option.to_ascii_lowercase().replace('_', "-");
    option.starts_with('-') && WORDS.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_masked_unless_they_name_a_variable_or_are_asked_for() {
        assert_eq!(Shown::Masked.value("s3cret"), "***");
        assert_eq!(Shown::Plain.value("s3cret"), "s3cret");
        assert_eq!(Shown::Masked.value("${TOKEN}"), "${TOKEN}");
        assert_eq!(Shown::Masked.value("Bearer ${TOKEN}"), "Bearer ${TOKEN}");
        assert_eq!(Shown::Masked.value("${A}secret${B}"), "***");
        assert_eq!(Shown::Masked.value(""), "");
    }

    #[test]
    fn a_command_line_keeps_its_words_and_hides_its_secrets() {
        let line = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            Shown::Masked.line(&words)
        };
        assert_eq!(line("git --repo /r"), "git --repo /r");
        assert_eq!(line("x --api-key abc --port 1"), "x --api-key *** --port 1");
        assert_eq!(line("x --access_token=abc tokens"), "x --access_token=*** tokens");
        assert_eq!(line("x --token --secret y"), "x --token *** y");
        assert_eq!(line("postgres://me:pw@db/x"), "postgres://me:***@db/x");
        assert_eq!(Shown::Plain.line(&["--token".into(), "abc".into()]), "--token abc");
        assert_eq!(Shown::Masked.url("http://host:1/mcp"), "http://host:1/mcp");
    }
}
