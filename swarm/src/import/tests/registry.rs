//! Entries of the MCP registry API.

use super::*;

/// One entry whose server is `server`, beside a name and version.
fn entry_of(server: &str) -> Import {
    import(&format!(
        r#"{{"servers": [{{"server": {{"name": "io.github.me/weather", "version": "1.0.0", {server}}}}}]}}"#
    ))
}

fn reason_of(server: &str) -> String {
    let import = entry_of(server);
    assert_eq!(import.entries, [], "{server}");
    import.rejected[0].reason.clone()
}

#[test]
fn a_remote_over_http_becomes_a_url() {
    let import = entry_of(
        r#""remotes": [
            {"type": "sse", "url": "http://h/sse"},
            {"type": "streamable-http", "url": "http://{host}:{port}/mcp", "variables": {
                "host": {"default": "localhost"}, "port": {"value": "9"}},
             "headers": [{"name": "X-Key", "value": "k-{port}"}, {"name": "X-Opt"}, {"name": "X-D", "default": "d"}]}]"#,
    );
    assert_eq!(names(&import), ["weather"]);
    assert_eq!(http(&import.entries[0]).url, "http://localhost:9/mcp");
    // Braces that name no variable of the header stay as they are.
    let headers = [("X-D", "d"), ("X-Key", "k-{port}")];
    assert_eq!(http(&import.entries[0]).headers, headers.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn npm_packages_run_by_npx_and_pypi_packages_by_uvx() {
    let npm = entry_of(
        r#""packages": [{"registryType": "npm", "identifier": "@me/weather", "version": "1.2.3",
            "registryBaseUrl": "https://registry.npmjs.org/", "transport": {"type": "stdio"},
            "packageArguments": [
                {"type": "positional", "value": "serve"}, {"type": "named", "name": "--port", "default": "1"},
                {"type": "named", "name": "--optional"}, {"type": "positional", "valueHint": "more"}],
            "environmentVariables": [{"name": "TOKEN", "isRequired": true, "isSecret": true},
                {"name": "LEVEL", "default": "info"}, {"name": "UNSET"}]}]"#,
    );
    let weather = stdio(&npm.entries[0]);
    assert_eq!(weather.command, "npx");
    assert_eq!(weather.args, ["-y", "@me/weather@1.2.3", "serve", "--port", "1"]);
    assert_eq!(weather.env["TOKEN"], "s3cret");
    assert_eq!((weather.env["LEVEL"].as_str(), weather.env.len()), ("info", 2));
    let pypi = entry_of(
        r#""packages": [{"registryType": "pypi", "identifier": "weather", "runtimeHint": "uvx",
            "runtimeArguments": [{"type": "named", "name": "--python", "value": "3.12"}],
            "transport": {"type": "stdio"}}]"#,
    );
    let weather = stdio(&pypi.entries[0]);
    assert_eq!((weather.command.as_str(), weather.args.join(" ").as_str()), ("uvx", "--python 3.12 weather"));
}

#[test]
fn what_cannot_be_served_says_why() {
    assert_eq!(reason_of(r#""description": "x""#), "it has neither remotes nor packages");
    let https = r#""remotes": [{"type": "streamable-http", "url": "https://h/mcp"}]"#;
    assert_eq!(reason_of(https), "https backends are not supported yet (http:// only)");
    let package = |rest: &str| format!(r#""packages": [{{"transport": {{"type": "stdio"}}, {rest}}}]"#);
    assert_eq!(
        reason_of(&format!(r#"{https}, {}"#, package(r#""registryType": "oci", "identifier": "img""#))),
        "https backends are not supported yet (http:// only); package `img` is of type `oci`; npm and pypi are \
         those that are run"
    );
    let npm = |rest: &str| package(&format!(r#""registryType": "npm", {rest}"#));
    assert_eq!(
        reason_of(&npm(r#""identifier": "a", "registryBaseUrl": "https://evil.example""#)),
        "package `a` comes from https://evil.example, not from https://registry.npmjs.org"
    );
    assert_eq!(
        reason_of(&npm(r#""identifier": "--eval=x""#)),
        "`--eval=x` is not the name and version of a package"
    );
    assert_eq!(reason_of(&npm(r#""identifier": """#)), "`` is not the name and version of a package");
    assert_eq!(
        reason_of(&npm(r#""identifier": "a", "environmentVariables":
            [{"name": "KEY", "isRequired": true, "description": "from the site"}]"#)),
        "it needs the environment variable `KEY` (from the site)"
    );
    assert_eq!(
        reason_of(&npm(r#""identifier": "a", "runtimeHint": "bunx", "runtimeArguments":
            [{"type": "positional", "value": "x"}]"#)),
        "package `a` has arguments for `bunx`, not `npx`"
    );
    let streamed = r#""packages": [{"registryType": "npm", "identifier": "a",
        "transport": {"type": "streamable-http", "url": "http://localhost:1"}}]"#;
    assert_eq!(reason_of(streamed), "package `a` does not speak stdio");
    let asks = r#""remotes": [{"type": "streamable-http", "url": "http://{host}/mcp",
        "variables": {"host": {"isRequired": true, "description": "yours"}}}]"#;
    assert_eq!(reason_of(asks), "it needs the variable `host` (yours)");
}

#[test]
fn older_versions_are_passed_over_and_deleted_ones_are_named() {
    let official = |status: &str, latest: bool| {
        format!(
            r#""_meta": {{"io.modelcontextprotocol.registry/official": {{"status": "{status}", "isLatest": {latest}}}}}"#
        )
    };
    let server = |name: &str, url: &str| {
        format!(
            r#""server": {{"name": "{name}", "version": "1", "remotes": [{{"type": "streamable-http", "url": "{url}"}}]}}"#
        )
    };
    let import = import(&format!(
        r#"{{"servers": [{{{}, {}}}, {{{}, {}}}, {{{}, {}}}, {{{}}}, {{}}]}}"#,
        server("a.b/one", "http://h/old"),
        official("active", false),
        server("a.b/one", "http://h/new"),
        official("active", true),
        server("a.b/gone", "http://h/gone"),
        official("deleted", true),
        server("c.d/one", "http://h/other"),
    ));
    assert_eq!(http(&import.entries[0]).url, "http://h/new");
    let expected = [
        ("gone", "a.b/gone is marked as deleted there"),
        ("one", "the name is used twice in the file, for different servers"),
        ("(no name)", "the entry has no name"),
    ];
    assert_eq!(rejected(&import), expected);
}

#[test]
fn names_that_cannot_be_ours_are_given_in_full() {
    let import =
        import(r#"{"servers": [{"server": {"name": "a.b/we ather"}}, {"server": {"name": "a.b/"}}]}"#);
    let rejected = rejected(&import);
    assert_eq!((rejected[0].0, rejected[1].0), ("a.b/we ather", "a.b/"));
    assert!(rejected[0].1.contains("has ' ' at position 2"), "{}", rejected[0].1);
    assert!(rejected[1].1.starts_with("name is empty"), "{}", rejected[1].1);
}

#[test]
fn one_entry_and_a_server_json_are_read_alone() {
    let remotes = r#""remotes": [{"type": "streamable-http", "url": "http://h/mcp"}]"#;
    let server_json = format!(r#"{{"name": "a.b/c", "description": "x", "version": "1", {remotes}}}"#);
    assert_eq!(names(&import(&server_json)), ["c"]);
    assert_eq!(names(&import(&format!(r#"{{"server": {server_json}}}"#))), ["c"]);
}
