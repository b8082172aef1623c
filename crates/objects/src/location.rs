//! Where a store is, as people write it: a folder's path, `s3://bucket/prefix`, `https://...`.

use std::path::Path;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, RetryConfig};

use crate::{Features, Folder, ObjectError, Objects, Patience, Remote};

/// Opens a store that exists.
///
/// * A path (absolute, relative or `file:///...`) is a folder.
/// * `s3://bucket/prefix`: credentials, region and endpoint come from `AWS_ACCESS_KEY_ID`,
///   `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`.
/// * `http://` and `https://`: a static web server, read-only, without listing.
pub fn open(location: &str) -> Result<Arc<dyn Objects>, ObjectError> {
    open_with(location, Patience::default())
}

/// [`open`] with other timeouts and retries for stores across a network.
pub fn open_with(location: &str, patience: Patience) -> Result<Arc<dyn Objects>, ObjectError> {
    resolve(location, patience, false)
}

/// [`open`], but makes a folder that is not there yet.
pub fn create(location: &str) -> Result<Arc<dyn Objects>, ObjectError> {
    resolve(location, Patience::default(), true)
}

fn resolve(
    location: &str,
    patience: Patience,
    make: bool,
) -> Result<Arc<dyn Objects>, ObjectError> {
    match location.split_once("://") {
        Some(("s3", rest)) => s3(location, rest, patience),
        Some(("http" | "https", _)) => web(location, patience),
        Some(("file", path)) => folder(path, make),
        Some(_) => Err(ObjectError::Invalid {
            text: location.to_owned(),
            expected: "a folder, s3://bucket/prefix or http(s)://host/path",
        }),
        None => folder(location, make),
    }
}

fn folder(path: &str, make: bool) -> Result<Arc<dyn Objects>, ObjectError> {
    if path.is_empty() {
        let (text, expected) = (path.to_owned(), "a folder's path");
        return Err(ObjectError::Invalid { text, expected });
    }
    let path = Path::new(path);
    let folder = if make { Folder::create(path) } else { Folder::open(path) };
    Ok(Arc::new(folder?))
}

/// Timeouts and retries are [`Remote`]'s; `object_store` is told to have none of its own.
fn client(patience: Patience, allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(patience.silence)
        .with_allow_http(allow_http)
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn invalid(location: &str) -> impl FnOnce(object_store::Error) -> ObjectError {
    let location = location.to_owned();
    move |error| ObjectError::Unavailable { location, detail: error.to_string() }
}

fn s3(location: &str, rest: &str, patience: Patience) -> Result<Arc<dyn Objects>, ObjectError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        let (text, expected) = (location.to_owned(), "s3://bucket/prefix");
        return Err(ObjectError::Invalid { text, expected });
    }
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let plain = endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(patience, plain))
        .with_retry(no_retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let store = builder.build().map_err(invalid(location))?;
    let features = Features { list: true, write: true };
    Ok(Arc::new(Remote::new(Arc::new(store), prefix, location, features, patience)))
}

fn web(location: &str, patience: Patience) -> Result<Arc<dyn Objects>, ObjectError> {
    let store = HttpBuilder::new()
        .with_url(location)
        .with_client_options(client(patience, true))
        .with_retry(no_retries())
        .build()
        .map_err(invalid(location))?;
    let features = Features { list: false, write: false };
    Ok(Arc::new(Remote::new(Arc::new(store), "", &without_secret(location), features, patience)))
}

/// A location as it may be shown: without `user:password@`.
fn without_secret(location: &str) -> String {
    match location.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{host}{path}")
        }
        None => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_location_is_refused() {
        for bad in ["", "ftp://host/x", "s3://", "s3:///prefix", "/nonexistent/folder"] {
            assert!(open(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(without_secret("https://u:p@host/a@b"), "https://host/a@b");
    }
}
