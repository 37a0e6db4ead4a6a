//! A gateway as a store: evaluation keys and payloads go in, outputs come out.

use std::time::Duration;

use cipherscore_common::{
    Blob, BlobInfo, BlobKind, BlobName, BlobStore, CHUNK_BYTES, JobId, Lease, MAX_BLOB_BYTES,
    OwnerStore, Progress, Put, StoreError, Tenant,
};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, RANGE};
use hyper::{Method, Response, StatusCode};

use super::GatewayClient;
use super::problem::Trouble;
use super::wire::{Concern, read};

/// How long the gateway shall keep it.
const LEASE: &str = "cs-lease";
/// Size, in bytes.
const BYTES: &str = "cs-bytes";
/// Time until it is gone, in seconds.
const EXPIRES_IN: &str = "cs-expires-in";
/// Version of the program that put it there.
const CREATED_BY: &str = "cs-created-by";

impl BlobStore for GatewayClient {
    /// A key that is there is renewed, and not sent. Encrypted rows are sent at once: none are there twice.
    async fn put(
        &self,
        blob: &Blob,
        lease: Option<Lease>,
        progress: Progress<'_>,
    ) -> Result<Put, StoreError> {
        let name = blob.name();
        let path = self.writable(name)?;
        let lease = self.require_lease(lease)?;
        if name.kind == BlobKind::Key {
            match self.renew(name, lease).await {
                Ok(()) => return Ok(Put::AlreadyThere),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let request = self
            .wire()
            .request(Method::PUT, &path)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(LEASE, lease.to_string());
        let answer = self.wire().upload(Concern::Blobs, request, blob.bytes(), progress).await;
        match answer.map_err(|trouble| trouble.of_store(self.wire().server()))?.status() {
            StatusCode::CREATED => Ok(Put::Stored),
            _ => Ok(Put::AlreadyThere),
        }
    }

    async fn info(&self, name: &BlobName) -> Result<BlobInfo, StoreError> {
        let path = self.path(name)?;
        let answer = self.ask_of(name, Method::HEAD, &path).await?;
        let headers = answer.headers();
        let bytes = number(headers, BYTES).filter(|bytes| (1..=MAX_BLOB_BYTES).contains(bytes));
        let bytes = bytes.ok_or_else(|| self.nonsense(format!("{BYTES} of {name} is no size")))?;
        let created_by = headers.get(CREATED_BY).and_then(|text| text.to_str().ok());
        let expires_in = number(headers, EXPIRES_IN).map(Duration::from_secs);
        let created_by = created_by.unwrap_or_default().to_owned();
        Ok(BlobInfo::of_digest(name, bytes, created_by, expires_in))
    }

    /// Of outputs only: a gateway hands out nothing else.
    async fn chunk(&self, info: &BlobInfo, index: u64) -> Result<Vec<u8>, StoreError> {
        let name = &info.name;
        if name.kind != BlobKind::Reply {
            return Err(
                self.refuse(format!("a gateway does not hand out the bytes of a {}", name.kind))
            );
        }
        let first = index * CHUNK_BYTES as u64;
        let length = info.bytes.saturating_sub(first).min(CHUNK_BYTES as u64);
        if length == 0 {
            return Err(self.refuse(format!("{name} has no chunk {index}")));
        }
        let last = first + length - 1;
        let request = self
            .wire()
            .request(Method::GET, &self.path(name)?)
            .header(RANGE, format!("bytes={first}-{last}"));
        let read = async {
            let answer = self.wire().ask(Concern::Blobs, request).await?;
            if answer.status() != StatusCode::PARTIAL_CONTENT && length < info.bytes {
                return Err(Trouble::Nonsense("all bytes, where a range was asked for".into()));
            }
            read(answer, CHUNK_BYTES).await
        };
        read.await.map_err(|trouble| trouble.of_blob(self.wire().server(), name))
    }

    async fn touch(&self, name: &BlobName, lease: Option<Lease>) -> Result<(), StoreError> {
        self.writable(name)?;
        self.renew(name, self.require_lease(lease)?).await
    }

    /// A key must be there. Whether payloads and outputs were is not told: they may have gone with their
    /// job.
    async fn remove(&self, name: &BlobName) -> Result<(), StoreError> {
        let path = self.path(name)?;
        if name.kind == BlobKind::Key {
            self.ask_of(name, Method::HEAD, &path).await?;
        }
        self.ask_of(name, Method::DELETE, &path).await.map(drop)
    }

    async fn list(&self, _: &Tenant, kind: BlobKind) -> Result<Vec<BlobInfo>, StoreError> {
        Err(self.refuse(format!("a gateway has no list of blobs of kind {kind}")))
    }
}

impl OwnerStore for GatewayClient {
    async fn check(&self, tenant: &Tenant) -> Result<(), StoreError> {
        self.require_own(tenant)?;
        self.ask_who().await.map_err(|trouble| trouble.of_store(self.wire().server()))
    }

    /// A job that the gateway does not know is an error: nobody is asked.
    async fn cancel(&self, tenant: &Tenant, job: JobId) -> Result<(), StoreError> {
        self.require_own(tenant)?;
        let request = self.wire().request(Method::POST, &format!("/v1/jobs/{job}/cancel"));
        match self.wire().ask(Concern::Jobs, request).await {
            Ok(_) => Ok(()),
            Err(Trouble::Refused(problem)) if problem.is_settled() => Ok(()),
            Err(trouble) => Err(trouble.of_store(self.wire().server())),
        }
    }
}

impl GatewayClient {
    fn path(&self, name: &BlobName) -> Result<String, StoreError> {
        self.require_own(&name.tenant)?;
        let place = match name.kind {
            BlobKind::Key => "keys",
            BlobKind::Job => "payloads",
            BlobKind::Reply => "outputs",
            kind => return Err(self.refuse(format!("a gateway has no blobs of kind {kind}"))),
        };
        Ok(format!("/v1/{place}/{}", name.id))
    }

    /// Outputs are put there by workers.
    fn writable(&self, name: &BlobName) -> Result<String, StoreError> {
        match name.kind {
            BlobKind::Reply => Err(self.refuse("a gateway takes no outputs from a data owner")),
            _ => self.path(name),
        }
    }

    fn require_lease(&self, lease: Option<Lease>) -> Result<Lease, StoreError> {
        lease.ok_or_else(|| self.refuse("a gateway keeps nothing for good: give a lease"))
    }

    async fn renew(&self, name: &BlobName, lease: Lease) -> Result<(), StoreError> {
        let path = format!("{}/lease", self.path(name)?);
        let request = self.wire().request(Method::POST, &path).header(LEASE, lease.to_string());
        match self.wire().ask(Concern::Blobs, request).await {
            Ok(_) => Ok(()),
            Err(trouble) => Err(trouble.of_blob(self.wire().server(), name)),
        }
    }

    async fn ask_of(
        &self,
        name: &BlobName,
        method: Method,
        path: &str,
    ) -> Result<Response<Incoming>, StoreError> {
        let answer = self.wire().ask(Concern::Blobs, self.wire().request(method, path)).await;
        answer.map_err(|trouble| match trouble {
            // The head of an answer has no code.
            Trouble::Refused(problem) if problem.status == StatusCode::NOT_FOUND => {
                StoreError::NotFound { name: name.clone() }
            }
            other => other.of_blob(self.wire().server(), name),
        })
    }

    fn refuse(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Refused { server: self.wire().server().to_owned(), reason: reason.into() }
    }

    fn nonsense(&self, reason: String) -> StoreError {
        StoreError::Unexpected { server: self.wire().server().to_owned(), reason }
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
