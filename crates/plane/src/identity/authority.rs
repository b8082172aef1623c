//! The authority: signs who planes and hosts are.
//!
//! **Invariant:** it is the same, to the byte, wherever the same secret is.

use std::time::Duration;

use model::HostId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::{IdentityError, Secret, hex};

/// What every plane is called in its certificate, wherever it is.
pub const PLANE_NAME: &str = "plane.collective.internal";
/// Below this, a host's certificate says who it is: `i<ISSUED>.h<ID>` and this.
const HOSTS: &str = "host.collective.internal";
/// How long a host's certificate lasts; it gets a new one halfway.
pub const CERTIFICATE_LASTS: Duration = Duration::from_secs(7 * 86_400);
/// How long a plane's lasts: it gets a new one with each start.
const PLANE_LASTS: Duration = Duration::from_secs(3650 * 86_400);
/// Clocks differ: a certificate is good this long before it was made.
const SKEW: Duration = Duration::from_secs(3600);

/// See the module's documentation.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// What a host is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    /// PEM.
    pub certificate: String,
    pub ends_unix_ms: u64,
}

/// Whom a certificate of the authority's is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub host: HostId,
    pub issued_unix_ms: u64,
}

impl Authority {
    /// The one that follows from a secret.
    pub fn of(secret: &Secret) -> Result<Self, IdentityError> {
        let seed = secret.derive("collective plane authority, version 1");
        let key = ed25519(&seed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Collective plane authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // All of it fixed: each plane makes the same one.
        (params.not_before, params.not_after) =
            (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        params.serial_number = Some(SerialNumber::from_slice(&[1]));
        let certificate = params.self_signed(&key).map_err(|error| no(&error))?;
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self { issuer: Issuer::new(params, key), pem, der })
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// What names it for certain.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.der)
    }

    /// A certificate and key for a plane that is reached at these addresses.
    pub fn plane(
        &self,
        addresses: &[std::net::IpAddr],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), IdentityError> {
        let key = ed25519(&ambient::random())?;
        let mut params = leaf("Collective plane", &[PLANE_NAME, "localhost"])?;
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lasts(&mut params, ambient::unix_ms(), PLANE_LASTS)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| no(&error))?;
        Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }

    /// A certificate for a host with this public key (Ed25519, 32 bytes).
    pub fn host(
        &self,
        id: HostId,
        public_key: &[u8],
        now_unix_ms: u64,
    ) -> Result<HostCertificate, IdentityError> {
        if public_key.len() != 32 {
            return Err(IdentityError(
                "a host's public key is one of Ed25519: 32 bytes".to_owned(),
            ));
        }
        let name = format!("i{now_unix_ms}.h{id}.{HOSTS}");
        let mut params = leaf("Collective host", &[&name])?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        lasts(&mut params, now_unix_ms, CERTIFICATE_LASTS)?;
        let key = Public(public_key.to_vec());
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| no(&error))?;
        let ends_unix_ms = now_unix_ms + CERTIFICATE_LASTS.as_millis() as u64;
        Ok(HostCertificate { certificate: certificate.pem(), ends_unix_ms })
    }
}

impl Peer {
    /// Reads a certificate that was verified before.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        certificate.valid_dns_names().find_map(|name| {
            let name = name.strip_suffix(HOSTS)?.strip_suffix('.')?;
            let (issued, host) = name.split_once('.')?;
            let issued_unix_ms = issued.strip_prefix('i')?.parse().ok()?;
            Some(Self { host: host.strip_prefix('h')?.parse().ok()?, issued_unix_ms })
        })
    }
}

/// What a host's certificate (PEM) says that it is called.
pub fn name_in(pem: &str) -> Option<String> {
    use rustls_pki_types::pem::PemObject;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let certificate = webpki::EndEntityCert::try_from(&der).ok()?;
    certificate.valid_dns_names().find(|name| name.ends_with(HOSTS)).map(str::to_owned)
}

/// A new key for a host: PEM, and the public part.
pub fn new_key() -> Result<(String, Vec<u8>), IdentityError> {
    let key = ed25519(&ambient::random())?;
    Ok((key.serialize_pem(), key.public_key_raw().to_vec()))
}

/// The public part of a key that was written as PEM.
pub fn public_part(pem: &str) -> Result<Vec<u8>, IdentityError> {
    let key = KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ED25519).map_err(|e| no(&e))?;
    Ok(key.public_key_raw().to_vec())
}

/// What names a certificate for certain.
pub fn fingerprint(der: &CertificateDer<'_>) -> String {
    hex(blake3::hash(der).as_bytes())
}

struct Public(Vec<u8>);

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// The key of a seed: RFC 8410, section 7.
fn ed25519(seed: &[u8; 32]) -> Result<KeyPair, IdentityError> {
    const BEFORE: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = PrivatePkcs8KeyDer::from([&BEFORE[..], seed].concat());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(|error| no(&error))
}

fn leaf(common_name: &str, names: &[&str]) -> Result<CertificateParams, IdentityError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(|error| no(&error))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from_slice(&ambient::random::<16>()));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn lasts(
    params: &mut CertificateParams,
    now_unix_ms: u64,
    lasts: Duration,
) -> Result<(), IdentityError> {
    let at = |unix_s: u64| {
        OffsetDateTime::from_unix_timestamp(unix_s as i64)
            .map_err(|error| IdentityError(format!("the clock of this machine: {error}")))
    };
    let now_s = now_unix_ms / 1000;
    params.not_before = at(now_s.saturating_sub(SKEW.as_secs()))?;
    params.not_after = at(now_s + lasts.as_secs())?;
    Ok(())
}

fn no(error: &rcgen::Error) -> IdentityError {
    IdentityError(format!("no certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_from_its_secret_and_says_who_a_host_is() {
        let secret = |byte: &str| Secret::parse(&byte.repeat(32)).unwrap();
        let authority = Authority::of(&secret("ab")).unwrap();
        assert_eq!(authority.der(), Authority::of(&secret("ab")).unwrap().der());
        let other = Authority::of(&secret("ac")).unwrap();
        assert_ne!(authority.fingerprint(), other.fingerprint());

        let (key, public) = new_key().unwrap();
        assert_eq!(public_part(&key).unwrap(), public);
        let id = HostId::from_bytes([7; 16]);
        let given = authority.host(id, &public, 1_800_000_000_123).unwrap();
        assert_eq!(given.ends_unix_ms, 1_800_000_000_123 + 7 * 86_400_000);
        let mut pem = given.certificate.as_bytes();
        let der = <CertificateDer as rustls_pki_types::pem::PemObject>::from_pem_reader(&mut pem);
        let peer = Peer::of(&der.unwrap()).unwrap();
        assert_eq!(peer, Peer { host: id, issued_unix_ms: 1_800_000_000_123 });
        assert!(authority.host(id, &public[1..], 0).is_err());
        let (plane, _) = authority.plane(&["127.0.0.1".parse().unwrap()]).unwrap();
        assert_eq!(Peer::of(&plane), None);
    }
}
