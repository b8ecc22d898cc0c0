//! A page of entries as it fills from pages of the registry: without a filter it costs as many
//! registrations as it shows and one, with one it goes on until it is full. Pure.

use super::{
    cursor::Place,
    entry::{Maker, Metadata, ServerList, ServerResponse},
    query::Query,
};
use proto::registry::Registration;

/// Registrations that are read at once where most of them may be passed over.
const SEARCH_SIZE: usize = 500;

/// A page on its way.
pub(super) struct Filling<'a> {
    query: &'a Query,
    maker: &'a Maker<'a>,
    found: Vec<ServerResponse>,
    last: Option<String>,
    /// Names that earlier pages held are still to come.
    behind: bool,
    /// Page token of the registry's page that comes next.
    token: String,
}

/// What comes after a page of the registry.
pub(super) enum Step<'a> {
    /// Another one.
    More(Filling<'a>),
    /// This is the answer.
    Done(ServerList),
}

impl<'a> Filling<'a> {
    /// A page for a query, nothing read yet.
    pub(super) fn new(query: &'a Query, maker: &'a Maker<'a>) -> Self {
        let token = query.from.as_ref().map(|from| from.token.clone()).unwrap_or_default();
        let behind = query.from.is_some() && token.is_empty();
        Filling { query, maker, found: Vec::new(), last: None, behind, token }
    }

    /// The same from the registry's first page on: nothing is lost when it refuses a token.
    pub(super) fn from_the_start(query: &'a Query, maker: &'a Maker<'a>) -> Self {
        Filling { behind: true, token: String::new(), ..Filling::new(query, maker) }
    }

    /// Where the registry is to be read.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// How many registrations are to be read there: beside those that are missing, only whether
    /// there is one more counts.
    pub(super) fn size(&self) -> u32 {
        let missing = self.query.limit.saturating_sub(self.found.len()).max(1);
        let few = self.query.takes_all() && !self.behind;
        u32::try_from(if few { missing } else { SEARCH_SIZE }).unwrap_or(u32::MAX)
    }

    /// Takes what was read there, and the token of what follows.
    pub(super) fn take(mut self, registrations: &[Registration], next: Option<String>) -> Step<'a> {
        for registration in registrations {
            if !self.is_new(registration) {
                continue;
            }
            self.behind = false;
            if !self.query.wants(self.maker, registration) {
                continue;
            }
            if self.found.len() == self.query.limit {
                return Step::Done(self.list(true));
            }
            self.found.push(self.maker.entry(registration));
            self.last = Some(registration.name.clone());
        }
        match next {
            Some(token) => Step::More(Filling { token, ..self }),
            None => Step::Done(self.list(false)),
        }
    }

    fn is_new(&self, registration: &Registration) -> bool {
        self.query.from.as_ref().is_none_or(|from| registration.name > from.name)
    }

    fn list(self, more: bool) -> ServerList {
        let place = self.last.filter(|_| more).map(|name| Place { name, token: self.token });
        let next_cursor = place.map(|place| place.cursor());
        ServerList { metadata: Metadata { next_cursor, count: self.found.len() }, servers: self.found }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Config, query::Raw},
        *,
    };

    fn query(pairs: &[(&str, &str)]) -> Query {
        let object = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
        let raw: Raw = serde_json::from_value(serde_json::Value::Object(object.collect())).expect("a query");
        raw.check().expect("valid")
    }

    /// Names, and how many registrations were read of them.
    struct Registry {
        names: Vec<String>,
        read: usize,
        pages: usize,
    }

    impl Registry {
        fn new<const N: usize>(names: [&str; N]) -> Registry {
            Registry { names: names.map(str::to_owned).to_vec(), read: 0, pages: 0 }
        }

        fn many(count: usize) -> Registry {
            Registry { names: (0..count).map(|n| format!("s{n:05}")).collect(), read: 0, pages: 0 }
        }

        /// As registry-svc does it: up to `size` names after that of the token.
        fn page(&mut self, token: &str, size: u32) -> (Vec<Registration>, Option<String>) {
            let behind = self.names.iter().filter(|name| name.as_str() > token);
            let page: Vec<String> = behind.clone().take(size as usize).cloned().collect();
            let next = (behind.count() > page.len()).then(|| page.last().cloned()).flatten();
            self.read += page.len();
            self.pages += 1;
            (page.into_iter().map(|name| Registration { name, ..Registration::default() }).collect(), next)
        }

        fn ask(&mut self, pairs: &[(&str, &str)]) -> (Vec<String>, Option<String>) {
            let (query, config) = (query(pairs), Config::default());
            let maker = Maker { config: &config, edge: "http://h/mcp" };
            let mut filling = Filling::new(&query, &maker);
            (self.read, self.pages) = (0, 0);
            let list = loop {
                let (registrations, next) = self.page(filling.token(), filling.size());
                match filling.take(&registrations, next) {
                    Step::More(more) => filling = more,
                    Step::Done(list) => break list,
                }
            };
            assert_eq!(list.metadata.count, list.servers.len());
            let names = list.servers.into_iter().map(|entry| entry.server.title).collect();
            (names, list.metadata.next_cursor)
        }

        /// Every page, by the cursors.
        fn all(&mut self, pairs: &[(&str, &str)], check: impl Fn(&Registry)) -> Vec<String> {
            let (mut names, mut next) = self.ask(pairs);
            while let Some(cursor) = next {
                check(self);
                let page;
                (page, next) = self.ask(&[pairs, &[("cursor", cursor.as_str())]].concat());
                names.extend(page);
            }
            names
        }
    }

    #[test]
    fn pages_hold_every_name_once_while_others_come_and_go() {
        let mut registry = Registry::new(["a", "b", "c", "d", "e"]);
        let (first, next) = registry.ask(&[("limit", "2")]);
        assert_eq!(first, ["a", "b"]);
        let next = next.expect("more follow");
        // The one that the cursor names goes, and a new one comes before it.
        registry.names.remove(1);
        registry.names.insert(0, "0".to_owned());
        let (second, next) = registry.ask(&[("limit", "2"), ("cursor", &next)]);
        assert_eq!(second, ["c", "d"]);
        let (third, next) = registry.ask(&[("limit", "2"), ("cursor", &next.expect("more"))]);
        assert_eq!((third, next), (vec!["e".to_owned()], None));
    }

    #[test]
    fn a_page_that_is_just_full_has_no_next_one() {
        let (page, next) = Registry::new(["a", "b"]).ask(&[("limit", "2")]);
        assert_eq!((page.len(), next), (2, None));
        assert_eq!(Registry::new([]).ask(&[]), (vec![], None));
        let (page, next) = Registry::new(["a1", "b", "c1", "d"]).ask(&[("limit", "2"), ("search", "1")]);
        assert_eq!((page.len(), next), (2, None));
    }

    #[test]
    fn a_page_without_a_filter_reads_itself_and_one_more() {
        let mut registry = Registry::many(3000);
        let names = registry.all(&[("limit", "70")], |page| assert_eq!((page.read, page.pages), (71, 2)));
        assert_eq!(names, registry.names);
    }

    #[test]
    fn a_search_goes_on_until_its_page_is_full() {
        let mut registry = Registry::many(3000);
        let wanted: Vec<String> = registry.names.iter().filter(|n| n.contains("99")).cloned().collect();
        assert!(wanted.len() > 30, "{wanted:?}");
        let names = registry.all(&[("limit", "7"), ("search", "99")], |page| assert!(page.pages < 6));
        assert_eq!(names, wanted);
        assert_eq!(registry.ask(&[("search", "nope")]), (vec![], None));
    }

    #[test]
    fn a_name_alone_leads_to_the_same_page() {
        let mut registry = Registry::many(3000);
        let (_, next) = registry.ask(&[("limit", "5"), ("search", "s027")]);
        let with_token = next.expect("more");
        let name = Place::of(&with_token).expect("a place").name;
        let old =
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, format!("1{name}"));
        for filter in [&[("limit", "5")][..], &[("limit", "5"), ("search", "s027")]] {
            let page = registry.ask(&[filter, &[("cursor", with_token.as_str())]].concat());
            let same = registry.ask(&[filter, &[("cursor", old.as_str())]].concat());
            assert_eq!((page.0.len(), &page.0), (5, &same.0));
            // From the start, but in large steps.
            assert!(registry.pages < 10, "{}", registry.pages);
        }
    }
}
