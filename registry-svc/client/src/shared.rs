//! Properties and counters: what many owners hold under one name, each its own.
//!
//! They are registered, kept and batched as names are, with `Kind::Property` or `Kind::Counter`.

use crate::{Error, RegistryClient, client::Stub};
use kit::rpc::with_deadline;
use proto::{
    ids,
    registry::{
        DeregisterRequest, DeregisterResponse, HoldersRequest, Kind, Registration, TotalRequest,
        TotalResponse, UpdateCounterRequest,
    },
};

const PAGE_SIZE: u32 = 500;

impl RegistryClient {
    /// Who holds a property or a counter, each with its value, in order of owner.
    pub async fn holders(&self, kind: Kind, name: &str) -> Result<Vec<Registration>, Error> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let (name, owner, page_size) = (name.to_owned(), String::new(), PAGE_SIZE);
            let request = HoldersRequest { kind: kind.into(), name, owner, page_size, page_token };
            let page = self.holders_page(request).await?;
            all.extend(page.registrations);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One owner's property or counter.
    pub async fn held(&self, kind: Kind, name: &str, owner: &str) -> Result<Registration, Error> {
        let request = HoldersRequest {
            kind: kind.into(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            ..HoldersRequest::default()
        };
        let held = self.holders_page(request).await?.registrations.into_iter().next();
        held.ok_or_else(|| Error::NotFound(format!("{name:?} of {owner:?} is not registered")))
    }

    /// Frees one owner's property or counter.
    pub async fn deregister_held(
        &self,
        kind: Kind,
        name: &str,
        owner: &str,
    ) -> Result<DeregisterResponse, Error> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        let (request_id, kind) = (ids::request_id(), kind.into());
        self.free(DeregisterRequest { request_id, name, owner, force: false, kind }).await
    }

    /// Adds to an owner's counter, once, however often it has to be asked; answers its value.
    /// Out of its bounds is [`Error::Invalid`], and nothing was added.
    pub async fn update_counter(&self, name: &str, owner: &str, delta: i64) -> Result<i64, Error> {
        let (name, owner) = (name.to_owned(), owner.to_owned());
        let request = UpdateCounterRequest { request_id: ids::request_id(), name, owner, delta };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.update_counter(request).await }
        };
        Ok(self.anywhere(call).await?.value)
    }

    /// A counter summed over its owners.
    pub async fn total(&self, name: &str) -> Result<TotalResponse, Error> {
        let request = TotalRequest { name: name.to_owned() };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.total(request).await }
        };
        self.anywhere(call).await
    }

    async fn holders_page(&self, request: HoldersRequest) -> Result<proto::registry::HoldersResponse, Error> {
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.holders(request).await }
        };
        self.anywhere(call).await
    }
}
