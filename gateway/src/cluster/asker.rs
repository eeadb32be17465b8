//! Asking the cluster's API one thing at a time: a client that is kept while it works, a bound on
//! the time, and what an answer means.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

use crate::discovery::kubernetes::Credentials;

/// For one answer. Requests wait behind some of these questions.
const ANSWER: Duration = Duration::from_secs(5);

/// Why the API didn't do what it was asked.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Its status; `None`: it was not reached.
    pub status: Option<u16>,
    /// For the log.
    pub text: String,
}

impl Failed {
    /// What was not even asked.
    #[must_use]
    pub fn because(text: impl Into<String>) -> Self {
        Self { status: None, text: text.into() }
    }

    /// Whether somebody else was quicker.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    /// Whether there is no such object.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.status == Some(404)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        self.status.map_or(Ok(()), |status| write!(f, " ({status})"))
    }
}

/// One who asks.
pub struct Asker {
    credentials: Credentials,
    client: Mutex<Option<Client>>,
}

impl Asker {
    /// With these credentials, read when something is asked first.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, client: Mutex::new(None) }
    }

    /// Asks once. After a failure that may lie in the credentials they are read anew.
    ///
    /// # Errors
    /// What the API says instead of doing it, or why it couldn't be asked in time.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(Client) -> kube::Result<T>,
    ) -> Result<T, Failed> {
        let asked = async {
            let client = self.client().await.map_err(Failed::because)?;
            question(client).await.map_err(failed)
        };
        let late = || Failed::because(format!("no answer within {} s", ANSWER.as_secs()));
        let answer = timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(late()));
        if answer.as_ref().is_err_and(|failed| matches!(failed.status, None | Some(401))) {
            self.keep(None);
        }
        answer
    }

    async fn client(&self) -> Result<Client, String> {
        let kept = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = kept {
            return Ok(client);
        }
        let client = self.credentials.client().await?;
        self.keep(Some(client.clone()));
        Ok(client)
    }

    fn keep(&self, client: Option<Client>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

fn failed(error: kube::Error) -> Failed {
    match error {
        kube::Error::Api(status) => {
            Failed { status: Some(status.code), text: status.message.clone() }
        }
        other => Failed::because(other.to_string()),
    }
}
