//! The certificate authority that all gateways share, and the serving certificates made with it.
//!
//! Keys are in no log and in no `Debug`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

/// Keys of the Secret, as those of the type `kubernetes.io/tls` are called.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// Common name of an authority that was made here.
const NAME: &str = "switchyard-external-metrics";
/// Life of an authority. It is replaced when a serving certificate would outlive it.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Life of a serving certificate, which is renewed at half of it.
const SERVING_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Certificates begin that long ago: clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// The Secret has no certificate, no key, or one that can't be read.
    #[error("the Secret's {CERTIFICATE} and {KEY} are no certificate authority: {0}")]
    Secret(String),
    /// A certificate can't be made.
    #[error("a certificate can't be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate authority.
pub(super) struct Authority {
    certificate: String,
    key: String,
}

/// A certificate to serve with, and its key.
pub(super) struct Serving {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// When there should be another one.
    pub(super) renew: OffsetDateTime,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub(super) fn make(now: OffsetDateTime) -> Result<Self, Unusable> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - BACKDATED, now + AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// That of a Secret; `None`: it is still empty.
    ///
    /// # Errors
    /// When what it holds is no authority.
    pub(super) fn of(secret: &Secret) -> Result<Option<Self>, Unusable> {
        let data = secret.data.as_ref();
        let text = |key: &str| -> Result<Option<String>, Unusable> {
            let Some(ByteString(bytes)) = data.and_then(|data| data.get(key)) else {
                return Ok(None);
            };
            let text = String::from_utf8(bytes.clone()).ok().filter(|text| !text.trim().is_empty());
            text.map(Some).ok_or_else(|| Unusable::Secret(format!("{key} is no text")))
        };
        match (text(CERTIFICATE)?, text(KEY)?) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let authority = Self { certificate, key };
                authority.issuer()?;
                authority.ends()?;
                Ok(Some(authority))
            }
            _ => Err(Unusable::Secret("one of them is missing".into())),
        }
    }

    /// What a Secret holds of it.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        BTreeMap::from([
            (CERTIFICATE.to_owned(), bytes(&self.certificate)),
            (KEY.to_owned(), bytes(&self.key)),
        ])
    }

    /// Its certificate, for those who check what it has signed.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Whether it was made here and soon ends. One that somebody else has put there is theirs to
    /// replace.
    pub(super) fn is_to_be_replaced(&self, now: OffsetDateTime) -> bool {
        let ours =
            self.own_certificate().is_some_and(|der| common_name(&der).as_deref() == Some(NAME));
        ours && self.ends().is_ok_and(|ends| ends < now + SERVING_LIFE)
    }

    /// A certificate for a server of this name.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn issue(&self, name: &str, now: OffsetDateTime) -> Result<Serving, Unusable> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) =
            (now - BACKDATED, (now + SERVING_LIFE).min(self.ends()?));
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        Ok(Serving {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            renew: now + (params.not_after - now) / 2,
        })
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Unusable> {
        let read = KeyPair::from_pem(&self.key)
            .and_then(|key| Issuer::from_ca_cert_pem(&self.certificate, key));
        read.map_err(|error| Unusable::Secret(error.to_string()))
    }

    fn own_certificate(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()
    }

    fn ends(&self) -> Result<OffsetDateTime, Unusable> {
        let der = self.own_certificate();
        let ends = der.and_then(|der| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
            Some(certificate.validity().not_after.to_datetime())
        });
        ends.ok_or_else(|| Unusable::Secret("the certificate can't be read".into()))
    }
}

/// The common name of a certificate's subject.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn secret(authority: &Authority) -> Secret {
        Secret { data: Some(authority.data()), ..Secret::default() }
    }

    fn validity(serving: &Serving) -> OffsetDateTime {
        let (_, certificate) = x509_parser::parse_x509_certificate(&serving.chain[0]).unwrap();
        certificate.validity().not_after.to_datetime()
    }

    #[test]
    fn what_one_gateway_puts_into_the_secret_another_signs_with() {
        let now = OffsetDateTime::now_utc();
        let made = Authority::make(now).unwrap();
        let read = Authority::of(&secret(&made)).unwrap().unwrap();
        assert_eq!(read.certificate(), made.certificate());
        let serving = read.issue("m.ns.svc", now).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&serving.chain[0]).unwrap();
        let root = made.own_certificate().unwrap();
        let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert!(root.is_ca() && !leaf.is_ca());
        assert!(format!("{:?}", leaf.subject_alternative_name()).contains("m.ns.svc"));
    }

    #[test]
    fn a_serving_certificate_lasts_thirty_days_and_is_renewed_at_half() {
        let now = OffsetDateTime::now_utc();
        let serving = Authority::make(now).unwrap().issue("m.ns.svc", now).unwrap();
        assert!((validity(&serving) - (now + SERVING_LIFE)).abs() < Duration::from_secs(2));
        assert!((serving.renew - (now + SERVING_LIFE / 2)).abs() < Duration::from_secs(2));
    }

    #[test]
    fn an_old_authority_is_replaced_and_nothing_outlives_it() {
        let now = OffsetDateTime::now_utc();
        let made = Authority::make(now).unwrap();
        assert!(!made.is_to_be_replaced(now + AUTHORITY_LIFE - SERVING_LIFE - DAY));
        let late = now + AUTHORITY_LIFE - SERVING_LIFE + DAY;
        assert!(made.is_to_be_replaced(late));
        assert!(validity(&made.issue("m.ns.svc", late).unwrap()) <= now + AUTHORITY_LIFE);
    }

    #[test]
    fn an_authority_of_somebody_elses_is_left_alone() {
        let (now, key) = (OffsetDateTime::now_utc(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "example CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = now + DAY;
        let certificate = params.self_signed(&key).unwrap().pem();
        let theirs = Authority { certificate, key: key.serialize_pem() };
        let theirs = Authority::of(&secret(&theirs)).unwrap().unwrap();
        assert!(!theirs.is_to_be_replaced(now));
        theirs.issue("m.ns.svc", now).unwrap();
    }

    #[test]
    fn an_empty_secret_is_to_be_filled_and_a_broken_one_is_not() {
        assert!(Authority::of(&Secret::default()).unwrap().is_none());
        let mut half = Authority::make(OffsetDateTime::now_utc()).unwrap().data();
        half.insert(KEY.into(), ByteString(b"no key".to_vec()));
        let broken = Secret { data: Some(half.clone()), ..Secret::default() };
        let error = Authority::of(&broken).err().unwrap().to_string();
        assert!(error.contains("no certificate authority") && !error.contains("no key"), "{error}");
        half.remove(KEY);
        assert!(Authority::of(&Secret { data: Some(half), ..Secret::default() }).is_err());
    }
}
