//! The model that sharding replaces: every name in one ordered map. It takes what becomes visible
//! and answers lookups and pages; that it stands behind one lock is its owner's affair.

use crate::core::{
    name::Name,
    table::{Entry, Page, start},
};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

#[derive(Default)]
pub(crate) struct Single {
    names: BTreeMap<Name, Arc<Entry>>,
}

impl Single {
    pub(crate) fn put(&mut self, entry: Arc<Entry>) {
        self.names.insert(Name::new(&entry.registration.name), entry);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.names.remove(name.as_bytes());
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.names.get(name.as_bytes())
    }

    /// As [`Page::of`].
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
        scan: usize,
        keep: impl Fn(&Entry) -> bool,
    ) -> Page {
        let from = start(after, prefix).map(str::as_bytes);
        let names = self.names.range::<[u8], _>((from, Bound::Unbounded));
        let names = names.take_while(|(name, _)| name.as_bytes().starts_with(prefix.as_bytes()));
        Page::of(names.map(|(_, entry)| entry.clone()), limit, scan, keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::table::Table;
    use proptest::{collection::vec, prelude::*};
    use proto::registry::Registration;

    type Pages = Vec<Vec<u64>>;

    fn pages(page: impl Fn(Option<&str>) -> Page) -> Pages {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = page(after.as_deref());
            all.push(page.entries.iter().map(|entry| entry.revision).collect());
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }

    proptest! {
        #[test]
        fn the_one_map_answers_as_the_shards_do(
            steps in vec((any::<bool>(), "[a-c]{1,3}|[a-c]{30,33}"), 0..100),
            prefix in "[a-c]{0,2}", limit in 1usize..7, scan in 7usize..20,
        ) {
            let (table, mut single) = (Table::new(4), Single::default());
            for (revision, (put, name)) in (1u64..).zip(&steps) {
                let registration = Registration { name: name.clone(), version: revision, ..Default::default() };
                let entry = Arc::new(Entry { registration, revision });
                if *put {
                    table.list(vec![Name::new(name)]);
                    table.put(&entry);
                    single.put(entry);
                } else {
                    table.remove(name);
                    single.remove(name);
                }
            }
            for (_, name) in &steps {
                prop_assert_eq!(single.get(name).cloned(), table.get(name));
            }
            let odd = |entry: &Entry| entry.revision % 2 == 1;
            let flat = |pages: Pages| pages.into_iter().flatten().collect::<Vec<_>>();
            let of_table = pages(|after| table.page(after, &prefix, limit, scan, odd));
            let of_single = pages(|after| single.page(after, &prefix, limit, scan, odd));
            prop_assert_eq!(flat(of_single), flat(of_table));
        }
    }
}
