//! An authority of a test's own, and what it signs, in files.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

pub struct Authority {
    folder: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Its certificate is `NAME.pem` in the folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder: folder.to_owned(), name: name.to_owned(), issuer }
    }

    pub fn file(&self) -> String {
        self.folder.join(format!("{}.pem", self.name)).display().to_string()
    }

    /// A certificate for this name or address, good for both ends (etcd's gateway is a client of its own
    /// member), and its key: `NAME.crt` and `NAME.key`.
    pub fn sign(&self, name: &str, of: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![of.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str, pem: String| {
            let path = self.folder.join(format!("{name}.{end}"));
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        };
        [file("crt", certificate.pem()), file("key", key.serialize_pem())]
    }
}
