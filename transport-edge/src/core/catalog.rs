//! What all backends offer, as one list: names, collisions, pages, answers ready to be sent.
//!
//! A tool or prompt is exposed as `<server>_<name>`; resources keep their URIs. The catalogue is
//! a pure function of the backends' lists, so every edge with the same backends says the same.

mod page;
mod server;
#[cfg(test)]
mod tests;

pub use page::{BadCursor, List};
pub use server::{HeaderParam, Hints, Item, ServerEntry, ServerState};

use page::Shelf;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Where an exposed tool or prompt leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backend.
    pub server: Arc<str>,
    /// The name there.
    pub name: Arc<str>,
    /// What the tool says of itself.
    pub hints: Hints,
}

/// The aggregate of all backends. Immutable; a change makes another one.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Grows with every change on this edge.
    pub revision: u64,
    servers: BTreeMap<Arc<str>, Arc<ServerEntry>>,
    tools: HashMap<String, Target>,
    prompts: HashMap<String, Target>,
    resources: HashMap<String, Arc<str>>,
    shelves: HashMap<List, Shelf>,
    scoped: HashMap<Arc<str>, HashMap<List, Shelf>>,
}

impl Catalog {
    /// Builds the aggregate.
    pub fn new(revision: u64, servers: BTreeMap<Arc<str>, Arc<ServerEntry>>) -> Self {
        let (tools, tool_items) = expose(&servers, |server| &server.tools);
        let (prompts, prompt_items) = expose(&servers, |server| &server.prompts);
        let (resources, resource_items) = merge(&servers, |server| &server.resources);
        let (_, template_items) = merge(&servers, |server| &server.templates);
        let shelves = HashMap::from([
            (List::Tools, Shelf::new(List::Tools, tool_items)),
            (List::Prompts, Shelf::new(List::Prompts, prompt_items)),
            (List::Resources, Shelf::new(List::Resources, resource_items)),
            (List::Templates, Shelf::new(List::Templates, template_items)),
        ]);
        let own = |entry: &ServerEntry| List::ALL.map(|list| (list, entry.shelf(list))).into();
        let scoped = servers.iter().map(|(name, entry)| (name.clone(), own(entry))).collect();
        Catalog { revision, servers, tools, prompts, resources, shelves, scoped }
    }

    /// Every backend, with its state.
    pub fn servers(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<ServerEntry>)> {
        self.servers.iter()
    }

    /// One backend.
    pub fn server(&self, name: &str) -> Option<&Arc<ServerEntry>> {
        self.servers.get(name)
    }

    /// Where an exposed tool leads; within `scope` (the URL `/mcp/<scope>`) tools have the
    /// names that the backend gave them.
    pub fn tool(&self, scope: Option<&str>, name: &str) -> Option<Target> {
        match scope {
            None => self.tools.get(name).cloned(),
            Some(server) => self.scoped(server, name, |entry| &entry.tools),
        }
    }

    /// Where an exposed prompt leads.
    pub fn prompt(&self, scope: Option<&str>, name: &str) -> Option<Target> {
        match scope {
            None => self.prompts.get(name).cloned(),
            Some(server) => self.scoped(server, name, |entry| &entry.prompts),
        }
    }

    fn scoped(&self, server: &str, name: &str, items: impl Fn(&ServerEntry) -> &[Item]) -> Option<Target> {
        let (key, entry) = self.servers.get_key_value(server)?;
        let item = items(entry).iter().find(|item| &*item.key == name)?;
        Some(Target { server: key.clone(), name: item.key.clone(), hints: item.hints.clone() })
    }

    /// The backend that has a resource: one that lists it, else one with a matching template,
    /// else the only one that has resources at all.
    pub fn resource(&self, scope: Option<&str>, uri: &str) -> Option<Arc<str>> {
        if let Some(server) = scope {
            return self.servers.get_key_value(server).map(|(key, _)| key.clone());
        }
        if let Some(server) = self.resources.get(uri) {
            return Some(server.clone());
        }
        let matches =
            |entry: &ServerEntry| entry.templates.iter().any(|item| template_matches(&item.key, uri));
        if let Some((key, _)) = self.servers.iter().find(|(_, entry)| matches(entry)) {
            return Some(key.clone());
        }
        let mut able = self.servers.iter().filter(|(_, entry)| entry.has_capability("resources"));
        match (able.next(), able.next()) {
            (Some((only, _)), None) => Some(only.clone()),
            _ => None,
        }
    }

    /// One page of a list as the members of a result without braces, e.g.
    /// `"tools":[...],"nextCursor":"..."`. `None` for a scope that does not exist.
    pub fn page(
        &self,
        list: List,
        scope: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<Option<bytes::Bytes>, BadCursor> {
        let shelf = match scope {
            None => self.shelves.get(&list),
            Some(server) => self.scoped.get(server).and_then(|shelves| shelves.get(&list)),
        };
        shelf.map(|shelf| shelf.page(list, cursor)).transpose()
    }

    /// How many entries a list has.
    pub fn count(&self, list: List) -> usize {
        self.shelves.get(&list).map_or(0, Shelf::len)
    }

    /// Every exposed tool as `tools/list` gives it.
    pub fn tools(&self) -> Vec<bytes::Bytes> {
        self.shelves.get(&List::Tools).map(Shelf::items).unwrap_or_default()
    }

    /// True when some backend in scope declares the capability, e.g. `prompts`,
    /// `resources.subscribe`, `logging`, `completions`.
    pub fn has_capability(&self, scope: Option<&str>, path: &str) -> bool {
        let in_scope = |name: &str| scope.is_none_or(|scope| scope == name);
        self.servers.iter().any(|(name, entry)| in_scope(name) && entry.has_capability(path))
    }

    /// Backends that are not ready, each with its reason.
    pub fn troubles(&self, scope: Option<&str>) -> Vec<(Arc<str>, String)> {
        let in_scope = |name: &str| scope.is_none_or(|scope| scope == name);
        let bad =
            self.servers.iter().filter(|(name, entry)| in_scope(name) && entry.state != ServerState::Ready);
        bad.map(|(name, entry)| (name.clone(), entry.reason.clone())).collect()
    }
}

/// Entries by the key they are sorted and paged by.
type Listed = Vec<(String, bytes::Bytes)>;

/// Gives every item of every server its exposed name. Two that would get the same (`a_b`+`c`
/// and `a`+`b_c`) are both told apart by a double underscore, so that a name never changes
/// its meaning when the other server goes away: it changes itself.
fn expose(
    servers: &BTreeMap<Arc<str>, Arc<ServerEntry>>,
    items: impl Fn(&ServerEntry) -> &[Item],
) -> (HashMap<String, Target>, Listed) {
    let mut wanted: BTreeMap<String, Vec<(&Arc<str>, &Item)>> = BTreeMap::new();
    for (server, entry) in servers {
        for item in items(entry) {
            wanted.entry(joined(server, "_", &item.key)).or_default().push((server, item));
        }
    }
    let mut targets = HashMap::new();
    let mut listed = BTreeMap::new();
    for (name, claims) in &wanted {
        for (server, item) in claims {
            let name = match claims.len() {
                1 => name.clone(),
                _ => joined(server, "__", &item.key),
            };
            let target =
                Target { server: (*server).clone(), name: item.key.clone(), hints: item.hints.clone() };
            listed.insert(name.clone(), item.renamed(&name));
            targets.insert(name, target);
        }
    }
    (targets, listed.into_iter().collect())
}

/// Lists that are not renamed: the first server by name keeps a URI.
fn merge(
    servers: &BTreeMap<Arc<str>, Arc<ServerEntry>>,
    items: impl Fn(&ServerEntry) -> &[Item],
) -> (HashMap<String, Arc<str>>, Listed) {
    let mut owners = HashMap::new();
    let mut listed = BTreeMap::new();
    for (server, entry) in servers {
        for item in items(entry) {
            let key = item.key.to_string();
            if let std::collections::hash_map::Entry::Vacant(vacant) = owners.entry(key.clone()) {
                vacant.insert(server.clone());
                listed.insert(key, item.raw.clone());
            }
        }
    }
    (owners, listed.into_iter().collect())
}

/// Tool names are `[A-Za-z0-9_.-]`; a server name may hold nothing else already.
fn joined(server: &str, separator: &str, name: &str) -> String {
    [server, separator, name].concat()
}

/// RFC 6570 as far as routing needs it: literal parts in order, `{...}` stands for anything.
fn template_matches(template: &str, uri: &str) -> bool {
    let mut rest = uri;
    let mut parts = template.split('{');
    let Some(left) = parts.next().and_then(|prefix| rest.strip_prefix(prefix)) else {
        return false;
    };
    rest = left;
    let mut open_end = false;
    for part in parts {
        let literal = part.split_once('}').map_or("", |(_, literal)| literal);
        open_end = literal.is_empty();
        match rest.find(literal) {
            Some(at) => rest = rest.get(at + literal.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    open_end || rest.is_empty()
}
