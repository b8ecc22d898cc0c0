//! Pages: of what a filter lets through, and of who holds a property or a counter.

use crate::{
    core::{
        check::{Malformed, within},
        cursor,
        key::{self, OWNER_MAX},
        select::Selector,
        table::{Entry, Page},
    },
    error::Failure,
    handle::Handle,
};
use proto::{
    ids::check_name,
    registry::{HoldersRequest, HoldersResponse, Kind, ListRequest, ListResponse, Registration},
};
use std::sync::Arc;

const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;
/// Encoded bytes of one page, well below the longest message.
const PAGE_BYTES: usize = 4 << 20;

/// One page of a filter.
pub(crate) fn list(handle: &Handle, request: ListRequest) -> Result<ListResponse, Failure> {
    let (limit, token) = (limit(request.page_size), request.page_token.clone());
    let selector = Selector::new(request)?;
    let after = after(selector.scope(), &token)?;
    if after.is_none() {
        handle.check_labels(&selector)?;
    }
    let revision = handle.feed().head();
    let page = handle.select(&selector, after.as_deref(), limit);
    let (registrations, next_page_token) =
        finish(selector.scope(), page, |entry| without_tools(handle, entry));
    Ok(ListResponse { registrations, next_page_token, revision })
}

/// One page of the owners of a property or a counter.
pub(crate) fn holders(handle: &Handle, request: HoldersRequest) -> Result<HoldersResponse, Failure> {
    let kind = check_shared(&request)?;
    let prefix = format!("{}{}:{}", key::prefix(kind), request.name, request.owner);
    let scope = cursor::scope([prefix.as_str(), "holders"]);
    let after = after(scope, &request.page_token)?;
    let revision = handle.feed().head();
    let page = if request.owner.is_empty() {
        handle.page(after.as_deref(), &prefix, limit(request.page_size), |_| true)
    } else {
        // With the owner it is the whole key.
        Page { entries: handle.lookup(&prefix).into_iter().collect(), next: None }
    };
    let (registrations, next_page_token) = finish(scope, page, |entry| handle.with_status(entry));
    Ok(HoldersResponse { registrations, next_page_token, revision })
}

fn check_shared(request: &HoldersRequest) -> Result<Kind, Malformed> {
    check_name(&request.name)?;
    within("owner", &request.owner, OWNER_MAX)?;
    match request.kind() {
        kind @ (Kind::Property | Kind::Counter) => Ok(kind),
        other => Err(Malformed::value("kind", other.as_str_name(), "4 (property) or 5 (counter)")),
    }
}

fn limit(page_size: u32) -> usize {
    (if page_size == 0 { PAGE_DEFAULT } else { page_size.min(PAGE_MAX) }) as usize
}

fn after(scope: u64, token: &str) -> Result<Option<String>, Failure> {
    if token.is_empty() { Ok(None) } else { Ok(Some(cursor::decode(scope, token)?)) }
}

/// As many as fit one message, and the token of the next page.
fn finish(scope: u64, page: Page, show: impl Fn(&Entry) -> Registration) -> (Vec<Registration>, String) {
    let Page { entries, mut next } = page;
    let (mut bytes, mut fit) = (0, Vec::new());
    let mut last: Option<&Arc<Entry>> = None;
    for entry in &entries {
        let registration = show(entry);
        bytes += prost::Message::encoded_len(&registration);
        if let Some(last) = last.filter(|_| bytes > PAGE_BYTES) {
            next = Some(last.registration.name.clone());
            break;
        }
        fit.push(registration);
        last = Some(entry);
    }
    let token = next.map(|next| cursor::encode(scope, &next)).unwrap_or_default();
    (fit, token)
}

/// The names of tools are for Lookup: there may be a thousand for each edge.
fn without_tools(handle: &Handle, entry: &Entry) -> Registration {
    let mut registration = handle.with_status(entry);
    for status in registration.statuses.iter_mut().chain(registration.status.as_deref_mut()) {
        status.tool_names.clear();
    }
    registration
}
