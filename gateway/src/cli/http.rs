//! What the commands that ask a running gateway share: the client, the runtime, and what to say
//! when nobody answers.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, Url};

/// How long a connection to the gateway may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for `base`. Proxies from the environment are used, but never for this machine.
pub(crate) fn client(base: &Url) -> Result<Client, String> {
    let mut builder = Client::builder().connect_timeout(CONNECT_TIMEOUT);
    if is_local(base) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| format!("can't set up HTTP: {}", causes(&error)))
}

/// Whether it is on this machine.
pub(crate) fn is_local(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Reads `http://host:port[/prefix]`, for clap.
pub(crate) fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error} (e.g. http://127.0.0.1:8080)"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("only http:// and https:// URLs will do".to_owned());
    }
    Ok(url)
}

/// `base` with `segments` appended to its path, each percent-encoded.
pub(crate) fn join(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.path_segments_mut().expect("http URLs have a path").pop_if_empty().extend(segments);
    url
}

/// An error with its causes, outermost first, without repeating what a cause already said.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Runs one command's future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start: {error}"))?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_and_prefixes_kept() {
        let base = base_url("http://127.0.0.1:8080/yard/").unwrap();
        let url = join(&base, &["agents", "a/b?c", "invoke"]);
        assert_eq!(url.as_str(), "http://127.0.0.1:8080/yard/agents/a%2Fb%3Fc/invoke");
    }

    #[test]
    fn only_http_urls_are_taken() {
        assert!(base_url("ftp://127.0.0.1").is_err());
        assert!(base_url("127.0.0.1:8080").is_err());
        assert!(is_local(&base_url("http://[::1]:1").unwrap()));
        assert!(!is_local(&base_url("http://example.com").unwrap()));
    }
}
