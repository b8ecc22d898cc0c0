//! Which instance owns which shard, as far as this one knows.

use proto::ids::ShardId;
use std::{collections::BTreeMap, sync::Arc};

/// Every instance with the same epoch has the same owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardMap {
    epoch: u64,
    shards: u16,
    // By shard; empty when every instance answers for every shard.
    owners: Vec<Arc<str>>,
}

/// Who is asked instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotOwner {
    pub(crate) shard: ShardId,
    /// Empty when the caller knows a later map than this instance.
    pub(crate) owner: Arc<str>,
    pub(crate) epoch: u64,
}

impl ShardMap {
    /// Reads node names with their shards, such as `n1 = "0-7,9"`. No owners at all means that
    /// every instance answers for every shard; else each shard has exactly one.
    pub(crate) fn parse(epoch: u64, shards: u16, owners: &BTreeMap<String, String>) -> Result<Self, String> {
        if epoch == 0 {
            return Err("owners_epoch is 0; at least 1 is needed".into());
        }
        if owners.is_empty() {
            return Ok(Self { epoch, shards, owners: Vec::new() });
        }
        let mut by_shard: Vec<Option<Arc<str>>> = vec![None; usize::from(shards)];
        for (node, text) in owners {
            let node: Arc<str> = node.as_str().into();
            for shard in shards_in(text)? {
                let place = by_shard
                    .get_mut(usize::from(shard))
                    .ok_or_else(|| format!("owners.{node} names shard {shard}; there are {shards}"))?;
                if let Some(other) = place.replace(node.clone()) {
                    return Err(format!(
                        "shard {shard} is owned by {other:?} and {node:?}; one owner is needed"
                    ));
                }
            }
        }
        let missing = by_shard.iter().position(Option::is_none);
        match missing {
            Some(shard) => Err(format!("shard {shard} has no owner in owners")),
            None => Ok(Self { epoch, shards, owners: by_shard.into_iter().flatten().collect() }),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    pub(crate) fn owners(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|owner| &**owner)
    }

    /// Whether `node` may answer for a name to a caller that chose it by the map of `asked`; a
    /// caller without a map (0) is answered by whoever has the name. A later map than this one
    /// may have taken the shard away.
    pub(crate) fn check(&self, node: &str, name: &str, asked: u64) -> Result<(), NotOwner> {
        if asked == 0 {
            return Ok(());
        }
        let shard = ShardId::of(name, self.shards);
        let owner = self.owners.get(usize::from(shard.0));
        let (is_behind, is_owner) = (asked > self.epoch, owner.is_none_or(|owner| **owner == *node));
        if is_owner && !is_behind {
            return Ok(());
        }
        let owner = owner.filter(|_| !is_behind).cloned().unwrap_or_else(|| "".into());
        Err(NotOwner { shard, owner, epoch: self.epoch })
    }
}

/// `0-7,9` as numbers.
fn shards_in(text: &str) -> Result<Vec<u16>, String> {
    let wrong = || format!("{text:?} is not a list of shards such as \"0-7,9\"");
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(number(first)?..=number(last)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(epoch: u64, owners: &[(&str, &str)]) -> Result<ShardMap, String> {
        let owners = owners.iter().map(|(node, shards)| ((*node).into(), (*shards).into())).collect();
        ShardMap::parse(epoch, 4, &owners)
    }

    #[test]
    fn every_shard_has_one_owner_or_the_map_is_refused_with_the_shard() {
        let owners: Vec<_> = map(1, &[("n1", "0-1,3"), ("n2", "2")]).unwrap().owners.to_vec();
        assert_eq!(owners, ["n1", "n1", "n2", "n1"].map(Arc::from));
        assert!(map(1, &[("n1", "0-2")]).unwrap_err().contains("shard 3 has no owner"));
        assert!(map(1, &[("n1", "0-3"), ("n2", "2")]).unwrap_err().contains("shard 2 is owned by \"n1\""));
        assert!(map(1, &[("n1", "0-4")]).unwrap_err().contains("names shard 4; there are 4"));
        assert!(map(1, &[("n1", "all")]).unwrap_err().contains("not a list of shards"));
        assert!(map(0, &[]).unwrap_err().contains("owners_epoch"));
    }

    #[test]
    fn without_owners_every_instance_answers_unless_the_caller_knows_a_later_map() {
        let all = map(3, &[]).unwrap();
        assert!([0, 1, 3].into_iter().all(|asked| all.check("n9", "a", asked).is_ok()));
        assert_eq!(all.check("n9", "a", 4).unwrap_err().owner, "".into());
    }

    #[test]
    fn who_does_not_own_the_shard_names_the_owner() {
        let parted = map(2, &[("n1", "0,1"), ("n2", "2,3")]).unwrap();
        for name in ["a", "b", "c", "time", "git"] {
            let (owner, other) = if ShardId::of(name, 4).0 < 2 { ("n1", "n2") } else { ("n2", "n1") };
            assert_eq!(parted.check(owner, name, 2), Ok(()));
            assert_eq!(parted.check(owner, name, 1), Ok(()), "an older map chose the right one");
            assert_eq!(parted.check(other, name, 0), Ok(()), "a caller without a map");
            let refused = parted.check(other, name, 2).unwrap_err();
            assert_eq!((&*refused.owner, refused.epoch), (owner, 2));
        }
    }
}
