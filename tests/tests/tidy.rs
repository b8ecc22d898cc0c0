//! Style that matters is a test (STYLE.md rule 15).
//!
//! Each check is a function from text to findings, has a test of its own that shows it can fail,
//! and names the place and the remedy. A line that must break a rule says why: `// tidy: because ...`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Longest source file in lines.
const FILE_MAX: usize = 500;
/// Longest `main.rs` of a service in lines.
const MAIN_MAX: usize = 30;
const FOUNDATION: [&str; 3] = ["proto", "phases", "kit"];
const SERVICES: [&str; 5] =
    ["registry-svc", "gossip-svc", "session-svc", "coordinator-svc", "transport-edge"];
/// The only crates that may name two services.
const COMPOSERS: [&str; 3] = ["swarm", "tests", "bench"];

#[derive(Debug, PartialEq)]
struct Finding {
    place: String,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.advice)
    }
}

fn finding(path: &str, line: usize, advice: impl Into<String>) -> Finding {
    Finding { place: format!("{path}:{line}"), advice: advice.into() }
}

fn assert_tidy(findings: Vec<Finding>) {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} finding(s)\n{}", lines.len(), lines.join("\n"));
}

// ---- the workspace ---------------------------------------------------------------------------

#[test]
fn crates_import_only_what_their_kind_may() {
    let crates = crates();
    let ours: Vec<_> = crates.iter().map(|(name, _)| name.clone()).collect();
    let check = |(name, dir): &(String, PathBuf)| {
        let manifest = dir.join("Cargo.toml");
        import_findings(&show(&manifest), name, &read(&manifest), &ours)
    };
    assert_tidy(crates.iter().flat_map(check).collect());
}

#[test]
fn cores_are_pure() {
    assert_tidy(in_sources(|path| path.contains("/src/core/"), purity_findings));
}

#[test]
fn cores_do_not_depend_on_the_order_of_a_hash_map() {
    assert_tidy(in_sources(|path| path.contains("/src/core/"), hash_order_findings));
}

#[test]
fn files_are_short() {
    assert_tidy(in_sources(|_| true, |path, text| length_findings(path, text, FILE_MAX)));
}

#[test]
fn mains_of_services_are_boring() {
    let is_main = |path: &str| SERVICES.iter().any(|service| path == format!("{service}/src/main.rs"));
    assert_tidy(in_sources(is_main, |path, text| length_findings(path, text, MAIN_MAX)));
}

#[test]
fn nothing_is_process_wide() {
    let product = |path: &str| !path.starts_with("tests/") && !path.starts_with("bench/");
    assert_tidy(in_sources(product, global_findings));
}

#[test]
fn every_service_has_a_readme() {
    let missing = SERVICES.iter().filter(|service| !root().join(service).join("README.md").is_file());
    let advice = "is missing: say what it owns, its RPCs, events, config, metrics, and what happens when a peer is missing";
    assert_tidy(missing.map(|service| finding(&format!("{service}/README.md"), 1, advice)).collect());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn show(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Name and folder of every member of the workspace.
fn crates() -> Vec<(String, PathBuf)> {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().expect("the root manifest");
    let members = manifest["workspace"]["members"].as_array().expect("members").clone();
    let folder = |member: &toml::Value| root().join(member.as_str().expect("a path"));
    let named = members.iter().map(folder).map(|dir| {
        let manifest: toml::Table = read(&dir.join("Cargo.toml")).parse().expect("a manifest");
        (manifest["package"]["name"].as_str().expect("a name").to_owned(), dir)
    });
    named.collect()
}

fn in_sources(wanted: impl Fn(&str) -> bool, check: impl Fn(&str, &str) -> Vec<Finding>) -> Vec<Finding> {
    let files = crates().into_iter().flat_map(|(_, dir)| rust_files(&dir.join("src")));
    let files: Vec<_> = files.map(|file| (show(&file), file)).filter(|(path, _)| wanted(path)).collect();
    assert!(!files.is_empty(), "nothing was looked at");
    files.iter().flat_map(|(path, file)| check(path, &read(file))).collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

// ---- the import rule -------------------------------------------------------------------------

fn import_findings(path: &str, name: &str, manifest: &str, ours: &[String]) -> Vec<Finding> {
    let parsed: toml::Table = manifest.parse().expect("a manifest");
    let named = dependencies(&parsed).into_iter().filter(|dependency| ours.contains(dependency));
    let refused = named.filter_map(|dependency| Some((refusal(name, &dependency)?, dependency)));
    let place = |dependency: &str| {
        let line = manifest.lines().position(|line| line.trim_start().starts_with(dependency));
        line.map_or(1, |line| line + 1)
    };
    refused.map(|(why, dependency)| finding(path, place(&dependency), why)).collect()
}

/// Package names of all dependencies: of the code, its tests, its build, and any target.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            let package = |value: &toml::Value| value.get("package")?.as_str().map(ToOwned::to_owned);
            names.extend(table.iter().map(|(name, value)| package(value).unwrap_or_else(|| name.clone())));
        } else if key == "target" {
            names.extend(table.values().filter_map(toml::Value::as_table).flat_map(dependencies));
        }
    }
    names
}

fn refusal(name: &str, dependency: &str) -> Option<String> {
    let allowed = if COMPOSERS.contains(&name) {
        true
    } else if FOUNDATION.contains(&name) {
        // STYLE.md: "import nothing of ours (nor each other, but for ids)", and proto holds the ids.
        dependency == "proto"
    } else {
        FOUNDATION.contains(&dependency) || dependency.ends_with("-client")
    };
    let advice = if FOUNDATION.contains(&name) {
        "proto, phases and kit import nothing of ours; move the code up, or pass the thing in"
    } else {
        "import its client crate instead, or move what is shared to kit or proto; only swarm, tests and bench name services"
    };
    (!allowed).then(|| format!("{name} imports {dependency}: {advice}"))
}

// ---- code without comments, strings and tests ------------------------------------------------

/// Line number and code of every line before the tests, without comments and string contents.
/// Lines with a `// tidy:` excuse are blank.
fn code(path: &str, text: &str) -> Vec<(usize, String)> {
    let file = path.rsplit('/').next().unwrap_or(path);
    if file.ends_with("tests.rs") || file.ends_with("test.rs") {
        return Vec::new();
    }
    let mut scanner = Scanner::default();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = scanner.strip(line);
        if code.trim_start().starts_with("#[cfg(test)]") && ends_with_tests(text, index) {
            break;
        }
        lines.push((index + 1, if line.contains("// tidy:") { String::new() } else { code }));
    }
    lines
}

/// Whether the attribute at `index` is on a module (`#[path]` may stand between).
fn ends_with_tests(text: &str, index: usize) -> bool {
    let after = text.lines().skip(index + 1).map(str::trim).find(|line| !line.starts_with("#["));
    after.is_some_and(|line| line.trim_start_matches("pub(crate) ").starts_with("mod "))
}

#[derive(Default)]
struct Scanner {
    state: Inside,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Inside {
    #[default]
    Code,
    Comment,
    Text,
    /// A raw string and its number of hashes.
    Raw(usize),
}

impl Scanner {
    fn strip(&mut self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let (kept, eaten) = self.step(rest, first);
            out.push_str(kept);
            rest = &rest[eaten..];
        }
        out
    }

    /// What to keep of the head of `rest`, and how many bytes it is.
    fn step<'a>(&mut self, rest: &'a str, first: char) -> (&'a str, usize) {
        let width = first.len_utf8();
        match self.state {
            Inside::Comment if rest.starts_with("*/") => self.enter(Inside::Code, "", 2),
            Inside::Text if first == '\\' => {
                ("", width + rest[width..].chars().next().map_or(0, char::len_utf8))
            }
            Inside::Text if first == '"' => self.enter(Inside::Code, "\"", 1),
            Inside::Raw(hashes) if rest.starts_with(&format!("\"{}", "#".repeat(hashes))) => {
                self.enter(Inside::Code, "\"", 1 + hashes)
            }
            Inside::Comment | Inside::Text | Inside::Raw(_) => ("", width),
            Inside::Code if rest.starts_with("//") => ("", rest.len()),
            Inside::Code if rest.starts_with("/*") => self.enter(Inside::Comment, "", 2),
            Inside::Code if rest.starts_with("'\"'") => ("", 3),
            Inside::Code if first == '"' => self.enter(Inside::Text, "\"", 1),
            Inside::Code if rest.starts_with("r#") || rest.starts_with("r\"") => self.raw(rest),
            Inside::Code => (&rest[..width], width),
        }
    }

    fn raw<'a>(&mut self, rest: &'a str) -> (&'a str, usize) {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            return self.enter(Inside::Raw(hashes), "\"", 2 + hashes);
        }
        (&rest[..1], 1)
    }

    fn enter<'a>(&mut self, state: Inside, kept: &'a str, eaten: usize) -> (&'a str, usize) {
        self.state = state;
        (kept, eaten)
    }
}

fn has_word(code: &str, word: &str) -> bool {
    let edge = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        let open = word.ends_with(|c: char| !c.is_alphanumeric());
        edge(code[..at].chars().next_back()) && (open || edge(code[at + word.len()..].chars().next()))
    })
}

// ---- checks on code --------------------------------------------------------------------------

fn purity_findings(path: &str, text: &str) -> Vec<Finding> {
    const IMPURE: [(&str, &str); 20] = [
        ("tokio", "the driver owns tasks, timers and channels; give the core inputs and take outputs"),
        ("await", "a core does not wait; split it into an input and an output"),
        ("Instant::now", "take `now: Instant` as an argument"),
        ("SystemTime", "take a kit::clock::Timestamp as an argument"),
        ("TcpStream", "sockets belong to the driver"),
        ("TcpListener", "sockets belong to the driver"),
        ("UdpSocket", "sockets belong to the driver"),
        ("std::fs", "disks belong to store.rs"),
        ("std::thread", "threads belong to service.rs"),
        ("std::env", "settings come in through Config"),
        ("rand::random", "take a seeded generator as an argument"),
        ("rand::rng", "take a seeded generator as an argument"),
        ("thread_rng", "take a seeded generator as an argument"),
        ("static mut", "keep state in a value that the driver owns"),
        ("thread_local!", "keep state in a value that the driver owns"),
        ("println!", "answer what happened; the driver tells it by tracing"),
        ("eprintln!", "answer what happened; the driver tells it by tracing"),
        ("print!", "answer what happened; the driver tells it by tracing"),
        ("eprint!", "answer what happened; the driver tells it by tracing"),
        ("dbg!", "remove it"),
    ];
    let lines = code(path, text);
    let hits = lines.iter().flat_map(|(line, code)| {
        let impure = IMPURE.iter().filter(|(word, _)| has_word(code, word));
        impure.map(|(word, advice)| finding(path, *line, format!("`{word}` in a pure core: {advice}")))
    });
    hits.collect()
}

/// A heuristic: names declared as a hash map or set in the file, and the ways to walk them.
fn hash_order_findings(path: &str, text: &str) -> Vec<Finding> {
    let lines = code(path, text);
    let names: Vec<_> = lines.iter().filter_map(|(_, code)| declared_hash(code)).collect();
    let walks = lines.iter().filter(|(_, code)| names.iter().any(|name| walks(code, name)));
    let advice = "walks a hash map, whose order differs from run to run: use a BTreeMap, or sort first";
    walks.map(|(line, _)| finding(path, *line, advice)).collect()
}

fn declared_hash(code: &str) -> Option<String> {
    let at = ["HashMap<", "HashSet<", "HashMap::", "HashSet::"].iter().find_map(|kind| code.find(kind))?;
    let before =
        code[..at].trim_end_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '<' | '&'));
    let before = before.trim_end().trim_end_matches([':', '=']).trim_end();
    let name: String = before.chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty() && !before.starts_with("use ")).then(|| name.chars().rev().collect())
}

fn walks(code: &str, name: &str) -> bool {
    let methods =
        [".iter()", ".iter_mut()", ".keys()", ".values()", ".values_mut()", ".into_iter()", ".drain("];
    let by_method = methods.iter().any(|method| has_word(code, &format!("{name}{method}")));
    let target = code.split(" in ").nth(1).filter(|_| code.trim_start().starts_with("for "));
    let by_loop = target.is_some_and(|target| {
        let target = target.trim_start_matches(['&']).trim_start_matches("mut ").trim_start_matches("self.");
        target.trim_end_matches([' ', '{']) == name
    });
    by_method || by_loop
}

fn global_findings(path: &str, text: &str) -> Vec<Finding> {
    const CELLS: [&str; 9] =
        ["Mutex", "RwLock", "Atomic", "OnceLock", "OnceCell", "LazyLock", "LazyCell", "Cell<", "ArcSwap"];
    let is_global = |code: &str| {
        let item = code.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let cell = item.starts_with("static ") && CELLS.iter().any(|cell| code.contains(cell));
        cell || item.starts_with("static mut ") || item.starts_with("lazy_static!")
    };
    let lines = code(path, text);
    let hits = lines.iter().filter(|(_, code)| is_global(code));
    let advice =
        "process-wide state: N nodes run in one process; keep it in a value that comes in through Context";
    hits.map(|(line, _)| finding(path, *line, advice)).collect()
}

fn length_findings(path: &str, text: &str, max: usize) -> Vec<Finding> {
    let lines = text.lines().count();
    let advice = format!("{lines} lines; at most {max}: split it by idea");
    if lines > max { vec![finding(path, max + 1, advice)] } else { Vec::new() }
}

// ---- every check can fail --------------------------------------------------------------------

mod checks {
    use super::*;

    fn ours() -> Vec<String> {
        ["proto", "kit", "gossip-svc", "gossip-client", "session-svc", "swarm"].map(str::to_owned).to_vec()
    }

    fn imports(name: &str, manifest: &str) -> Vec<Finding> {
        import_findings("x/Cargo.toml", name, manifest, &ours())
    }

    #[test]
    fn a_service_that_imports_a_service_is_found_with_its_line() {
        let manifest = "[dependencies]\nkit.workspace = true\nsession-svc.workspace = true\n";
        let found = imports("gossip-svc", manifest);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "x/Cargo.toml:3");
        assert!(imports("swarm", manifest).is_empty());
        let fine = "[dependencies]\nkit.workspace = true\ngossip-client.workspace = true\nserde = \"1\"\n";
        assert!(imports("session-svc", fine).is_empty());
    }

    #[test]
    fn a_test_a_target_or_a_renamed_dependency_is_no_way_around() {
        assert_eq!(imports("gossip-svc", "[dev-dependencies]\nsession-svc = { path = \"..\" }\n").len(), 1);
        assert_eq!(
            imports("gossip-svc", "[target.'cfg(unix)'.dependencies]\nsession-svc.workspace = true\n").len(),
            1
        );
        assert_eq!(imports("gossip-svc", "[dependencies]\nother = { package = \"session-svc\" }\n").len(), 1);
    }

    #[test]
    fn the_foundation_imports_nothing_of_ours_but_ids() {
        assert_eq!(imports("kit", "[dependencies]\ngossip-client.workspace = true\n").len(), 1);
        assert_eq!(imports("proto", "[build-dependencies]\nkit.workspace = true\n").len(), 1);
        assert!(imports("kit", "[dependencies]\nproto.workspace = true\n").is_empty());
    }

    #[test]
    fn impurity_is_found_in_code_but_not_in_comments_strings_tests_or_with_an_excuse() {
        let text = "use tokio::sync;\nlet t = Instant::now();\n// tokio\nlet s = \"println!\";\n\
                    let r = r#\"tokio \" tokio\"#;\nlet x = tokio::x(); // tidy: because of y\n/* tokio\ntokio */\n\
                    #[cfg(test)]\nmod tests { fn f() { println!(); } }\n";
        let found: Vec<_> = purity_findings("a/src/core/b.rs", text).into_iter().map(|f| f.place).collect();
        assert_eq!(found, ["a/src/core/b.rs:1", "a/src/core/b.rs:2"]);
        assert!(purity_findings("a/src/core/b_tests.rs", text).is_empty());
        assert!(purity_findings("a/src/core/b.rs", "let my_tokio_like = 1; awaiting();").is_empty());
    }

    #[test]
    fn walking_a_hash_map_is_found_and_looking_into_it_is_not() {
        let text = "use std::collections::HashMap;\nstruct S { seen: HashMap<u8, u8>, all: BTreeMap<u8, u8> }\n\
                    let n = self.seen.get(&1);\nfor x in self.all.iter() {}\nfor x in &self.seen {\n\
                    let y = seen.values().next();\nlet mut set = HashSet::new();\nfor s in set.drain() {}\n";
        let lines: Vec<_> = hash_order_findings("c.rs", text).into_iter().map(|f| f.place).collect();
        assert_eq!(lines, ["c.rs:5", "c.rs:6", "c.rs:8"]);
    }

    #[test]
    fn a_static_cell_is_found_and_a_constant_table_is_not() {
        let text = "static A: Mutex<u8> = Mutex::new(1);\npub(crate) static B: AtomicU64 = X;\nstatic mut C: u8 = 0;\n\
                    static D: &[u8] = &[1];\nconst E: u8 = 1;\nfn f(a: &'static Mutex<u8>) {}\n";
        let lines: Vec<_> = global_findings("g.rs", text).into_iter().map(|f| f.place).collect();
        assert_eq!(lines, ["g.rs:1", "g.rs:2", "g.rs:3"]);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(length_findings("l.rs", &"\n".repeat(31), 30)[0].place, "l.rs:31");
        assert!(length_findings("l.rs", &"\n".repeat(30), 30).is_empty());
    }
}
