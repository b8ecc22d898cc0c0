//! One file for all services: a service reads `[node]` and its own section of it.

use super::NodeConfig;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use std::{fmt, marker::PhantomData};

/// Every section that a file may have.
pub const SECTIONS: [&str; 8] =
    ["node", "registry", "gossip", "session", "coordinator", "edge", "catalog", "flags"];

/// A service's config, which is a section of the file.
pub trait Section: Serialize + DeserializeOwned + Default {
    /// The section's name, one of [`SECTIONS`].
    const NAME: &'static str;

    /// Refuses what parses but makes no sense, in words that name the key.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// `[node]` and one service's section; the sections of other services are skipped.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceFile<S> {
    /// Section `[node]`.
    pub node: NodeConfig,
    /// The service's own section.
    pub service: S,
}

impl<S: Section> Serialize for ServiceFile<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("node", &self.node)?;
        map.serialize_entry(S::NAME, &self.service)?;
        map.end()
    }
}

impl<'de, S: Section> Deserialize<'de> for ServiceFile<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FileVisitor(PhantomData))
    }
}

struct FileVisitor<S>(PhantomData<S>);

impl<'de, S: Section> Visitor<'de> for FileVisitor<S> {
    type Value = ServiceFile<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sections")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut file = ServiceFile { node: NodeConfig::default(), service: S::default() };
        // A key is read as a struct's field would be, so that an error keeps its place.
        while let Some(Key(key)) = map.next_key()? {
            match key {
                "node" => file.node = map.next_value()?,
                key if key == S::NAME => file.service = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(file)
    }
}

struct Key(&'static str);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match SECTIONS.iter().find(|section| **section == name) {
            Some(section) => Ok(Key(section)),
            None => Err(D::Error::unknown_field(&name, &SECTIONS)),
        }
    }
}
