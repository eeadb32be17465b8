//! Who may ask: the cluster's API server, by the client certificate of its front proxy.
//!
//! It has told who the user is and whether they may before it passes a request on, so that is not
//! asked again.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::authority::common_name;

const AUTHORITY: &str = "requestheader-client-ca-file";
const NAMES: &str = "requestheader-allowed-names";

/// What the cluster says of its front proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrontProxy {
    authority: String,
    /// Common names of its certificate; none: any.
    names: Vec<String>,
}

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// The API server doesn't pass requests on.
    #[error("{AUTHORITY} is missing: the API server's aggregation layer is off")]
    Off,
    /// What it says is not what it should be.
    #[error("{0} can't be read")]
    Unread(&'static str),
}

impl FrontProxy {
    /// As the ConfigMap `extension-apiserver-authentication` has it.
    ///
    /// # Errors
    /// When it names no authority.
    pub(super) fn of(config_map: &ConfigMap) -> Result<Self, Unusable> {
        let data = config_map.data.as_ref();
        let get = |key: &str| data.and_then(|data| data.get(key));
        let authority = get(AUTHORITY).ok_or(Unusable::Off)?.clone();
        let names = get(NAMES).map_or("[]", String::as_str);
        let names = serde_json::from_str(names).map_err(|_| Unusable::Unread(NAMES))?;
        Ok(Self { authority, names })
    }

    /// What lets it in and nobody else.
    ///
    /// # Errors
    /// When the authority's certificates can't be read.
    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Verifier>, Unusable> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            let certificate = certificate.map_err(|_| Unusable::Unread(AUTHORITY))?;
            roots.add(certificate).map_err(|_| Unusable::Unread(AUTHORITY))?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let inner = builder.build().map_err(|_| Unusable::Unread(AUTHORITY))?;
        Ok(Arc::new(Verifier { inner, names: self.names.clone() }))
    }
}

/// Lets in who has a certificate of the front proxy.
#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        let name = common_name(certificate).unwrap_or_default();
        if !self.names.is_empty() && !self.names.contains(&name) {
            tracing::warn!(name, "external metrics: a front proxy of this name isn't allowed");
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn front_proxy(data: &[(&str, &str)]) -> Result<FrontProxy, Unusable> {
        let data: BTreeMap<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        FrontProxy::of(&ConfigMap { data: Some(data), ..ConfigMap::default() })
    }

    #[test]
    fn without_names_any_is_allowed_and_without_an_authority_nobody_is() {
        assert!(front_proxy(&[(AUTHORITY, "x")]).unwrap().names.is_empty());
        let named = front_proxy(&[(AUTHORITY, "x"), (NAMES, r#"["front-proxy-client"]"#)]).unwrap();
        assert_eq!(named.names, ["front-proxy-client"]);
        assert!(matches!(front_proxy(&[(NAMES, "[]")]), Err(Unusable::Off)));
        assert!(matches!(front_proxy(&[(AUTHORITY, "x"), (NAMES, "x")]), Err(Unusable::Unread(_))));
    }

    #[test]
    fn an_authority_that_is_no_certificate_lets_nobody_in() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let none = front_proxy(&[(AUTHORITY, "x")]).unwrap();
        assert!(none.verifier(&provider).is_err());
    }
}
