use super::*;
use serde_json::{Value, json};

fn server(tools: &[&str]) -> Arc<ServerEntry> {
    let item = |name: &&str| {
        let raw = json!({"title": "name", "name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}});
        Item::parse(List::Tools, raw.to_string().as_bytes()).unwrap()
    };
    Arc::new(ServerEntry {
        state: ServerState::Ready,
        tools: tools.iter().map(item).collect(),
        ..ServerEntry::starting()
    })
}

fn catalog(servers: &[(&str, &[&str])]) -> Catalog {
    Catalog::new(1, servers.iter().map(|(name, tools)| ((*name).into(), server(tools))).collect())
}

fn page(catalog: &Catalog, scope: Option<&str>, cursor: Option<&str>) -> Value {
    let members = catalog.page(List::Tools, scope, cursor).unwrap().unwrap();
    serde_json::from_slice(&[b"{", &members[..], b"}"].concat()).unwrap()
}

fn names(page: &Value) -> Vec<&str> {
    page["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[test]
fn tools_are_prefixed_sorted_and_scoped() {
    let catalog = catalog(&[("time", &["now", "convert"]), ("git", &["log"])]);
    assert_eq!(names(&page(&catalog, None, None)), ["git_log", "time_convert", "time_now"]);
    assert_eq!(names(&page(&catalog, Some("time"), None)), ["convert", "now"]);
    let target = catalog.tool(None, "time_now").unwrap();
    assert_eq!((&*target.server, &*target.name, target.hints.repeatable()), ("time", "now", true));
    assert!(catalog.tool(Some("time"), "now").is_some());
    assert!(catalog.tool(Some("git"), "now").is_none());
    assert!(catalog.page(List::Tools, Some("none"), None).unwrap().is_none());
}

#[test]
fn names_that_collide_are_both_told_apart() {
    let both = catalog(&[("a", &["b_c"]), ("a_b", &["c"])]);
    assert_eq!(names(&page(&both, None, None)), ["a__b_c", "a_b__c"]);
    assert!(both.tool(None, "a_b_c").is_none());
}

#[test]
fn pages_cover_the_list_once() {
    let many: Vec<String> = (0..2500).map(|n| format!("t{n:04}")).collect();
    let tools: Vec<&str> = many.iter().map(String::as_str).collect();
    let catalog = catalog(&[("s", &tools)]);
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = page(&catalog, None, cursor.as_deref());
        seen.extend(names(&page).iter().map(|name| (*name).to_string()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.into()),
            None => break,
        }
    }
    assert_eq!(seen, many.iter().map(|name| format!("s_{name}")).collect::<Vec<_>>());
    assert_eq!(catalog.page(List::Tools, None, Some("nonsense")), Err(BadCursor));
}

#[test]
fn templates_route_resources() {
    for (template, uri, matches) in [
        ("file:///{path}", "file:///a/b", true),
        ("note://{id}/text", "note://7/text", true),
        ("note://{id}/text", "note://7/other", false),
        ("note://x", "note://x", true),
        ("note://x", "note://xy", false),
        ("a{b}c{d}", "aXcY", true),
    ] {
        assert_eq!(template_matches(template, uri), matches, "{template} {uri}");
    }
}

#[test]
fn header_params_are_read_or_void() {
    let hints = |schema: Value| {
        let raw = json!({"name": "t", "inputSchema": schema}).to_string();
        Item::parse(List::Tools, raw.as_bytes()).unwrap().hints.headers
    };
    let good = hints(json!({"properties": {"a": {"type": "string", "x-mcp-header": "Region"}}}));
    assert_eq!(good.first().map(|param| param.token.as_str()), Some("Region"));
    assert!(
        hints(json!({"properties": {"a": {"x-mcp-header": "X"}, "b": {"x-mcp-header": "x"}}})).is_empty()
    );
    assert!(hints(json!({"properties": {"a": {"x-mcp-header": "no token"}}})).is_empty());
}
