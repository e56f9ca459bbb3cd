//! Signatures on what Rejoin sends to the application, after Standard
//! Webhooks (symmetric, version 1), so that any of its libraries verifies
//! them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What a secret begins with, as it is written down.
const SECRET_PREFIX: &str = "whsec_";

/// The length of a secret, in bytes: what the specification asks for.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The headers of a signed request.
pub(crate) const ID_HEADER: &str = "webhook-id";
pub(crate) const TIMESTAMP_HEADER: &str = "webhook-timestamp";
pub(crate) const SIGNATURE_HEADER: &str = "webhook-signature";

/// Signs requests with one secret.
#[derive(Clone)]
pub(crate) struct Signer {
    key: Hmac<Sha256>,
}

impl Signer {
    /// With a secret as it is written down: `whsec_` and base64; what is
    /// wrong with it otherwise, without showing it.
    pub(crate) fn new(secret: &str) -> Result<Self, &'static str> {
        let encoded = secret
            .strip_prefix(SECRET_PREFIX)
            .ok_or("a secret begins with whsec_")?;
        let secret = STANDARD
            .decode(encoded)
            .map_err(|_| "a secret is whsec_ and base64")?;
        if !SECRET_BYTES.contains(&secret.len()) {
            return Err(
                "a secret has 24 to 64 bytes; make one with: echo whsec_$(openssl rand -base64 32)",
            );
        }
        let key = Hmac::new_from_slice(&secret).map_err(|_| "not a key")?;
        Ok(Self { key })
    }

    /// The value of the signature's header.
    pub(crate) fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let mut mac = self.key.clone();
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the reference libraries of Standard Webhooks.
    #[test]
    fn the_signature_is_that_of_the_reference() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = signer.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn weak_and_malformed_secrets_are_refused() {
        for secret in [
            "",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert!(Signer::new(secret).is_err(), "{secret}");
        }
    }
}
