//! Certificates of hosts: given, renewed, taken back.

use api::{HostIdentity, HostKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::HostId;

use super::{Result, read};
use crate::access::Caller;
use crate::identity::{IdentityError, Peer};
use crate::serve::{Plane, Refused};

impl Plane {
    /// Certifies a host. Who has only a join token gets none for a host that has joined: it would be
    /// that host.
    pub(in crate::serve) fn certify(
        &self,
        id: HostId,
        caller: &Caller,
        key: &HostKey,
    ) -> Result<HostIdentity> {
        if *caller == Caller::Joining && self.kv.get(&format!("hosts/{id}"))?.is_some() {
            return Err(Refused::new(
                409,
                "state",
                format!("host {id} has joined already"),
                "it renews its certificate by itself; if that is lost, `collective host remove` it \
                 first, or join with the plane's own token",
            ));
        }
        let public_key = STANDARD
            .decode(&key.public_key)
            .map_err(|error| Refused::wrong(format!("the public key is no base64: {error}")))?;
        let wrong = |error: IdentityError| Refused::wrong(error.to_string());
        let given = self.authority.host(id, &public_key, ambient::unix_ms()).map_err(wrong)?;
        let authority = self.authority.pem().to_owned();
        let (certificate, ends_unix_ms) = (given.certificate, given.ends_unix_ms);
        Ok(HostIdentity { certificate, authority, ends_unix_ms })
    }

    /// Whether a certificate still counts.
    pub(in crate::serve) fn is_trusted(&self, peer: &Peer) -> Result<bool> {
        let revoked = self.kv.get(&format!("revoked/{}", peer.host))?;
        let revoked: Option<u64> = revoked.as_ref().map(read).transpose()?;
        Ok(revoked.is_none_or(|revoked| peer.issued_unix_ms > revoked))
    }
}
