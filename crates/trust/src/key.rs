//! Keys of people who sign: Ed25519, in a file of the common form PKCS #8 (encrypted with a
//! passphrase, or not), or behind a command that signs for whoever may run it.
//!
//! A key's file can be read and made by other programs, for example `openssl genpkey -algorithm
//! ed25519 | openssl pkcs8 -topk8 -out FILE`.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

// Asked for by the interface; a signature of Ed25519 draws nothing.
use aws_lc_rs::rand as unused_chance;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use pkcs8::der::pem::PemLabel;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use tough::key_source::KeySource;
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key as PublicKey};
use tough::sign::Sign;
use zeroize::Zeroizing;

use crate::{Result, TrustError};

/// The longest key file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// What a key file says it is.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// scrypt's cost: twice 2^14 rounds, 8 blocks: 16 MiB and a tenth of a second, once for each use. `openssl` reads
/// nothing that needs 32 MiB.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 2;
/// Bytes of a public key and of a signature.
const PUBLIC_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// A key that can sign.
#[derive(Clone)]
pub enum Key {
    /// From a file: PKCS #8.
    File(Zeroizing<Vec<u8>>),
    /// Behind a command: it gets what is to be signed on its standard input and prints the
    /// signature's 64 bytes as hexadecimal digits.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// The public key, 32 bytes.
        public: Vec<u8>,
    },
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", hex(&self.public().unwrap_or_default()))
    }
}

impl Key {
    /// A new key.
    pub fn generate() -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&ambient::random::<32>())
            .map_err(|_| bad("no key could be made"))?;
        let der = pair.to_pkcs8v1().map_err(|_| bad("no key could be made"))?;
        Ok(Self::File(Zeroizing::new(der.as_ref().to_vec())))
    }

    /// Reads a key as a person names it: a file, or `command:PROGRAM PUBLIC` with the public key's
    /// hexadecimal digits last. The passphrase is asked for only when the file needs one.
    pub fn open(
        place: &str,
        passphrase: &mut dyn FnMut() -> Option<Zeroizing<String>>,
    ) -> Result<Self> {
        if let Some(rest) = place.strip_prefix("command:") {
            return Self::behind(rest);
        }
        let mut text = Zeroizing::new(String::new());
        fs::File::open(place)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(TrustError::io(place))?;
        let not_a_key = || bad(&format!("{place} is not a key: PKCS #8 in PEM is expected"));
        let (label, document) = SecretDocument::from_pem(&text).map_err(|_| not_a_key())?;
        let plain = if label == ENCRYPTED {
            let needs = || TrustError::Passphrase { file: place.to_owned() };
            let passphrase = passphrase().ok_or_else(needs)?;
            EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
                .map_err(|_| not_a_key())?
                .decrypt(passphrase.as_bytes())
                .map_err(|_| needs())?
        } else if label == PrivateKeyInfoRef::PEM_LABEL {
            document
        } else {
            return Err(bad(&format!("{place} is a {label}, and not a private key")));
        };
        let key = Self::File(Zeroizing::new(plain.as_bytes().to_vec()));
        key.public().map_err(|_| bad(&format!("{place} is a key of another kind than Ed25519")))?;
        Ok(key)
    }

    fn behind(text: &str) -> Result<Self> {
        let mut argv: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let public = argv.pop().and_then(|digits| unhex(&digits));
        match public {
            Some(public) if public.len() == PUBLIC_BYTES && !argv.is_empty() => {
                Ok(Self::Command { argv, public })
            }
            _ => Err(bad(
                "a command that signs is written as command:PROGRAM [ARGUMENTS] PUBLIC, with the \
                 64 digits of the public key last",
            )),
        }
    }

    /// Writes it into a new file that only its owner can read; with a passphrase, encrypted.
    pub fn save(&self, file: &Path, passphrase: Option<&str>) -> Result<()> {
        let Self::File(der) = self else {
            return Err(bad("a key behind a command has no file"));
        };
        let plain =
            PrivateKeyInfoRef::try_from(der.as_slice()).map_err(|_| bad("no key could be made"))?;
        let document = match passphrase {
            None => SecretDocument::try_from(der.as_slice())
                .map_err(|_| bad("no key could be made"))
                .map(|document| (PrivateKeyInfoRef::PEM_LABEL, document))?,
            Some(passphrase) => {
                let salt: [u8; 16] = ambient::random();
                let iv: [u8; 16] = ambient::random();
                let scheme = pkcs8::pkcs5::scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P)
                    .ok()
                    .and_then(|cost| {
                        pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).ok()
                    })
                    .ok_or_else(|| bad("it could not be encrypted"))?;
                let sealed = plain
                    .encrypt_with_params(scheme, passphrase.as_bytes())
                    .map_err(|_| bad("it could not be encrypted"))?;
                (ENCRYPTED, sealed)
            }
        };
        let pem = document
            .1
            .to_pem(document.0, pkcs8::LineEnding::LF)
            .map_err(|_| bad("it could not be written"))?;
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .map_err(TrustError::io(file.display()))?;
        out.write_all(pem.as_bytes())
            .and_then(|()| out.sync_all())
            .map_err(TrustError::io(file.display()))
    }

    /// The public key, 32 bytes.
    pub fn public(&self) -> Result<Vec<u8>> {
        match self {
            Self::File(_) => Ok(self.pair()?.public_key().as_ref().to_vec()),
            Self::Command { public, .. } => Ok(public.clone()),
        }
    }

    /// The public key as hexadecimal digits.
    pub fn public_text(&self) -> Result<String> {
        self.public().map(|bytes| hex(&bytes))
    }

    fn pair(&self) -> Result<Ed25519KeyPair> {
        let Self::File(der) = self else { return Err(bad("it lies behind a command")) };
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| bad("it is no Ed25519 key"))
    }

    /// A public key as TUF writes it.
    pub(crate) fn tuf(public: &[u8]) -> PublicKey {
        PublicKey::Ed25519 {
            keyval: Ed25519Key { public: public.to_vec().into(), _extra: Default::default() },
            scheme: Ed25519Scheme::Ed25519,
            _extra: Default::default(),
        }
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>> {
        let Self::Command { argv, public } = self else {
            return Ok(self.pair()?.sign(message).as_ref().to_vec());
        };
        let what = argv.join(" ");
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(TrustError::io(&what))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(message) {
                // It has ended without reading all: what it has said is looked at all the same.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                written => written.map_err(TrustError::io(&what))?,
            }
        }
        let done = child.wait_with_output().map_err(TrustError::io(&what))?;
        let said = String::from_utf8_lossy(&done.stdout);
        let signature = unhex(said.trim()).filter(|bytes| bytes.len() == SIGNATURE_BYTES);
        let right = |signature: &Vec<u8>| {
            let key = UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
            done.status.success() && key.verify(message, signature).is_ok()
        };
        signature
            .filter(right)
            .ok_or_else(|| {
                bad(&format!(
                    "`{what}` gave no signature by the key that was named with it ({}): it gets what is to be \
                     signed on its standard input, and prints the signature as 128 hexadecimal digits",
                    done.status
                ))
            })
    }
}

#[tough::async_trait]
impl Sign for Key {
    fn tuf_key(&self) -> PublicKey {
        Self::tuf(&self.public().unwrap_or_default())
    }

    async fn sign(
        &self,
        message: &[u8],
        _: &(dyn unused_chance::SecureRandom + Sync),
    ) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.signature(message)?)
    }
}

#[tough::async_trait]
impl KeySource for Key {
    async fn as_sign(
        &self,
    ) -> std::result::Result<Box<dyn Sign>, Box<dyn std::error::Error + Send + Sync + 'static>>
    {
        Ok(Box::new(self.clone()))
    }

    async fn write(
        &self,
        _: &str,
        _: &str,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Err(Box::new(bad("keys are not written here")))
    }
}

/// Reads a public key that is written as its 64 hexadecimal digits.
pub fn public_of(text: &str) -> Option<Vec<u8>> {
    unhex(text).filter(|bytes| bytes.len() == PUBLIC_BYTES)
}

fn bad(detail: &str) -> TrustError {
    TrustError::Key { detail: detail.to_owned() }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal digits as bytes.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(text: &str) -> impl FnMut() -> Option<Zeroizing<String>> {
        let text = text.to_owned();
        move || Some(Zeroizing::new(text.clone()))
    }

    #[test]
    fn a_key_comes_back_from_its_file_with_its_passphrase_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("maker.key");
        let key = Key::generate().unwrap();
        key.save(&file, Some("correct horse")).unwrap();
        let place = file.to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
        let again = Key::open(place, &mut phrase("correct horse")).unwrap();
        assert_eq!(again.public().unwrap(), key.public().unwrap());
        for wrong in [Key::open(place, &mut phrase("battery")), Key::open(place, &mut || None)] {
            assert!(matches!(wrong, Err(TrustError::Passphrase { .. })), "{wrong:?}");
        }
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(key.save(&file, None).is_err(), "nothing is written over");
    }

    #[test]
    fn a_plain_key_and_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain.key");
        let key = Key::generate().unwrap();
        key.save(&file, None).unwrap();
        let again = Key::open(file.to_str().unwrap(), &mut || None).unwrap();
        assert_eq!(again.public().unwrap(), key.public().unwrap());
        fs::write(&file, "no key").unwrap();
        assert!(matches!(
            Key::open(file.to_str().unwrap(), &mut || None),
            Err(TrustError::Key { .. })
        ));
        let Key::File(der) = &key else { panic!("it was made here") };
        assert!(!format!("{key:?}").contains(&hex(der)));
    }

    #[test]
    fn openssl_reads_and_writes_such_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let openssl = |arguments: &[&str]| {
            let done = Command::new("openssl").args(arguments).output().unwrap();
            assert!(done.status.success(), "{arguments:?}: {done:?}");
            done.stdout
        };
        let (ours, theirs, plain) = (file("ours"), file("theirs"), file("plain"));
        let key = Key::generate().unwrap();
        key.save(Path::new(&ours), Some("horse")).unwrap();
        let read =
            openssl(&["pkey", "-in", &ours, "-passin", "pass:horse", "-pubout", "-outform", "DER"]);
        assert!(read.ends_with(&key.public().unwrap()));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &plain]);
        openssl(&["pkcs8", "-topk8", "-in", &plain, "-passout", "pass:horse", "-out", &theirs]);
        let public = openssl(&["pkey", "-in", &plain, "-pubout", "-outform", "DER"]);
        for (place, words) in [(&plain, None), (&theirs, Some("horse"))] {
            let key = Key::open(place, &mut || words.map(|text| text.to_owned().into())).unwrap();
            assert!(public.ends_with(&key.public().unwrap()), "{place}");
        }
    }

    #[test]
    fn a_command_signs_and_a_wrong_signature_is_refused() {
        let key = Key::generate().unwrap();
        let digits = hex(&key.signature(b"message").unwrap());
        let place = |public: &str| format!("command:printf {digits} {public}");
        let behind = Key::open(&place(&key.public_text().unwrap()), &mut || None).unwrap();
        assert_eq!(hex(&behind.signature(b"message").unwrap()), digits);
        assert!(behind.signature(b"another").is_err());
        let other = Key::generate().unwrap().public_text().unwrap();
        let other = Key::open(&place(&other), &mut || None).unwrap();
        assert!(other.signature(b"message").is_err());
        for wrong in ["command:", "command:printf", "command:printf abc"] {
            assert!(Key::open(wrong, &mut || None).is_err(), "{wrong}");
        }
    }
}
