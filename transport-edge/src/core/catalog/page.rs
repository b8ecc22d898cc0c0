//! Pages of a merged list, with cursors that stay valid when the list changes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};

/// Many clients read one page only, so pages are large.
const PAGE_ITEMS: usize = 1000;
const PAGE_BYTES: usize = 2 << 20;

/// A list of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum List {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
}

impl List {
    /// All of them.
    pub const ALL: [List; 4] = [List::Tools, List::Prompts, List::Resources, List::Templates];

    /// Its method.
    pub fn method(self) -> &'static str {
        match self {
            List::Tools => "tools/list",
            List::Prompts => "prompts/list",
            List::Resources => "resources/list",
            List::Templates => "resources/templates/list",
        }
    }

    /// The list that a method asks for.
    pub fn of(method: &str) -> Option<List> {
        List::ALL.into_iter().find(|list| list.method() == method)
    }

    /// The member of the result that holds it.
    pub fn member(self) -> &'static str {
        match self {
            List::Tools => "tools",
            List::Prompts => "prompts",
            List::Resources => "resources",
            List::Templates => "resourceTemplates",
        }
    }

    /// The capability that a server with such a list declares.
    pub fn capability(self) -> &'static str {
        match self {
            List::Tools => "tools",
            List::Prompts => "prompts",
            List::Resources | List::Templates => "resources",
        }
    }
}

/// A cursor that this list did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid cursor")]
pub struct BadCursor;

/// A sorted list.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    items: Vec<(String, Bytes)>,
    first: Bytes,
}

impl Shelf {
    /// `items` sorted by key.
    pub(super) fn new(list: List, items: Vec<(String, Bytes)>) -> Self {
        let mut shelf = Shelf { items, first: Bytes::new() };
        shelf.first = shelf.render(list, 0);
        shelf
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn items(&self) -> Vec<Bytes> {
        self.items.iter().map(|(_, raw)| raw.clone()).collect()
    }

    /// A cursor is the key of the last item seen; what comes after it is the next page,
    /// whatever was added or removed meanwhile.
    pub(super) fn page(&self, list: List, cursor: Option<&str>) -> Result<Bytes, BadCursor> {
        let Some(cursor) = cursor else {
            return Ok(self.first.clone());
        };
        let decoded = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor)?;
        let cursor = String::from_utf8(decoded).map_err(|_| BadCursor)?;
        let (member, after) = cursor.split_once(':').ok_or(BadCursor)?;
        if member != list.member() {
            return Err(BadCursor);
        }
        Ok(self.render(list, self.items.partition_point(|(key, _)| key.as_str() <= after)))
    }

    fn render(&self, list: List, from: usize) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(format!("\"{}\":[", list.member()).as_bytes());
        let mut last = None;
        let rest = self.items.get(from..).unwrap_or_default();
        for (count, (key, raw)) in rest.iter().enumerate() {
            if count >= PAGE_ITEMS || (count > 0 && out.len() + raw.len() > PAGE_BYTES) {
                break;
            }
            if count > 0 {
                out.put_u8(b',');
            }
            out.put_slice(raw);
            last = Some((count, key));
        }
        out.put_u8(b']');
        if let Some((count, key)) = last
            && count + 1 < rest.len()
        {
            let cursor = URL_SAFE_NO_PAD.encode(format!("{}:{key}", list.member()));
            out.put_slice(format!(",\"nextCursor\":\"{cursor}\"").as_bytes());
        }
        out.freeze()
    }
}
