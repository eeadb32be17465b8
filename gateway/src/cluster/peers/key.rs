//! Where the key that gateways share comes from: the environment, or a Secret of the cluster that
//! the first of them makes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::sign::{Key, hex};
use crate::discovery::kubernetes::Credentials;

/// Where a key may be given; whatever it is, all gateways have to have the same.
const ENVIRONMENT: &str = "SWITCHYARD_PEER_KEY";
/// The entry of the Secret.
const ENTRY: &str = "key";
/// Random bytes of an instance's name and of a key.
const INSTANCE_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const SHORT: &str = "it has fewer than 16 bytes";

/// What the environment says; `None`: nothing.
pub(super) fn of_environment() -> Option<Result<Key, String>> {
    use std::os::unix::ffi::OsStrExt;
    let given = std::env::var_os(ENVIRONMENT).filter(|given| !given.is_empty())?;
    Some(Key::new(given.as_bytes()).ok_or_else(|| format!("{ENVIRONMENT}: {SHORT}")))
}

/// What the Secret says, which is made where there is none.
///
/// # Errors
/// When it can't be had; the text says why, and never what the key is.
pub(super) async fn of_secret(credentials: Credentials, namespace: &str) -> Result<Key, String> {
    let name = k8s::PEERS_SERVICE;
    let secrets: Api<Secret> = Api::namespaced(credentials.client().await?, namespace);
    let told = |error: kube::Error| format!("Secret {name} in {namespace}: {}", plain(&error));
    let found = match secrets.get(name).await {
        Err(error) if code(&error) == 404 => {
            match secrets.create(&PostParams::default(), &made(namespace)?).await {
                // Another was first.
                Err(error) if code(&error) == 409 => secrets.get(name).await,
                created => created,
            }
        }
        found => found,
    };
    let found = found.map_err(told)?;
    let entry = found.data.and_then(|mut data| data.remove(ENTRY));
    let entry = entry.ok_or_else(|| format!("Secret {name} in {namespace} has no {ENTRY}"))?;
    Key::new(&entry.0).ok_or_else(|| format!("{ENTRY} of Secret {name} in {namespace}: {SHORT}"))
}

/// The API's word as a number; 0: it didn't say any.
fn code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

/// As text, so that it can also be put into a variable.
fn made(namespace: &str) -> Result<Secret, String> {
    let mut bytes = [0; KEY_BYTES];
    random(&mut bytes).map_err(|error| format!("no random bytes for a key: {error}"))?;
    let labels = [("app", k8s::GATEWAY), ("app.kubernetes.io/managed-by", k8s::GATEWAY)];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(k8s::PEERS_SERVICE.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ENTRY.to_owned(), ByteString(hex(&bytes).into_bytes()))])),
        ..Secret::default()
    })
}

/// A name that no other gateway has.
pub(super) fn instance() -> String {
    let mut bytes = [0; INSTANCE_BYTES];
    // It has to differ, not to be a secret.
    if random(&mut bytes).is_err() {
        bytes.fill_with(|| fastrand::u8(..));
    }
    hex(&bytes)
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}
