//! TLS to APNs: HTTP/2 or nothing, the public roots or the account's own, and the account's certificate if it has one.

use std::sync::{Arc, LazyLock};

use domain::channel::apns::Account;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

static PUBLIC: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()));

/// The configuration of an account's connections. Errors: what is wrong with the account.
pub(super) fn config(account: &Account) -> Result<Arc<ClientConfig>, &'static str> {
    let roots = match &account.ca {
        Some(pem) => own_roots(pem)?,
        None => PUBLIC.clone(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| "no TLS version is left")?
        .with_root_certificates(roots);
    let mut config = match (&account.certificate, &account.certificate_key) {
        (Some(chain), Some(key)) => {
            const WRONG: &str = "the account's certificate or its key is not valid PEM, or they do not fit";
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.expose().as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| WRONG)?;
            builder.with_client_auth_cert(chain.map_err(|_| WRONG)?, key).map_err(|_| WRONG)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn own_roots(pem: &str) -> Result<Arc<RootCertStore>, &'static str> {
    const WRONG: &str = "the account's ca holds no certificate in PEM";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| WRONG)?).map_err(|_| WRONG)?;
    }
    if roots.is_empty() { Err(WRONG) } else { Ok(Arc::new(roots)) }
}
