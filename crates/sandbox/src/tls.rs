//! The sandbox's own certificate authority, and the keys that its accounts use: kept in the record folder, if there is one.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

/// Team and key of each account that the fake APNs knows.
const APNS_KEYS: [(&str, &str); 2] = [("CARILLON01", "SANDBOX001"), ("CARILLON02", "SANDBOX002")];

/// Certificates and keys, made at the start or read back.
pub(crate) struct Tls {
    /// The certificate that clients have to trust.
    pub(crate) ca_pem: String,
    /// What signs the tokens of each team.
    pub(crate) apns_keys: Vec<ApnsKey>,
    /// A client's certificate that the fake APNs accepts, and its key, in PEM.
    pub(crate) client: (String, String),
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// A signing key as Apple's developer account gives it out.
pub(crate) struct ApnsKey {
    pub(crate) team_id: &'static str,
    pub(crate) key_id: &'static str,
    pub(crate) private_pem: String,
    /// The uncompressed point.
    pub(crate) public: Vec<u8>,
}

impl Tls {
    /// Makes everything, or takes what `dir` has and puts there what it lacks. Errors: files that cannot be read or written.
    pub(crate) fn open(dir: Option<&Path>, hosts: &[IpAddr]) -> anyhow::Result<Self> {
        if let Some(dir) = dir {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let ca_key = key(dir, "ca.key.pem")?;
        let ca = ca_params();
        let ca_pem = kept(dir, "ca.pem", 0o644, || Ok(ca.self_signed(&ca_key)?.pem()))?;
        let issuer = Issuer::new(ca_params(), ca_key);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.self_signed(issuer.key())?.der().to_vec()))?;

        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(hosts.iter().filter(|h| !h.is_loopback() && !h.is_unspecified()).map(IpAddr::to_string));
        let key = KeyPair::generate()?;
        let certificate = leaf(names, "localhost", ExtendedKeyUsagePurpose::ServerAuth)?.signed_by(&key, &issuer)?;
        let client_key = KeyPair::generate()?;
        let client = leaf(vec![], "Apple Push Services: com.example.app", ExtendedKeyUsagePurpose::ClientAuth)?;
        let client = client.signed_by(&client_key, &issuer)?;

        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        Ok(Self {
            ca_pem,
            apns_keys: APNS_KEYS.iter().map(|(team, id)| apns_key(dir, team, id)).collect::<anyhow::Result<_>>()?,
            client: (client.pem(), client_key.serialize_pem()),
            clients: clients.allow_unauthenticated().build()?,
            provider,
            certificate: certificate.der().clone(),
            key,
        })
    }

    /// Speaks as the server, in the protocols `alpn`; none: whatever the client wants.
    pub(crate) fn acceptor(&self, alpn: &[&[u8]]) -> anyhow::Result<TlsAcceptor> {
        self.build(alpn, None)
    }

    /// Does so and takes a client's certificate, if it has one of ours.
    pub(crate) fn mutual_acceptor(&self, alpn: &[&[u8]]) -> anyhow::Result<TlsAcceptor> {
        self.build(alpn, Some(self.clients.clone()))
    }

    fn build(&self, alpn: &[&[u8]], clients: Option<Arc<dyn ClientCertVerifier>>) -> anyhow::Result<TlsAcceptor> {
        let builder =
            ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = builder.with_single_cert(vec![self.certificate.clone()], key)?;
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn apns_key(dir: Option<&Path>, team_id: &'static str, key_id: &'static str) -> anyhow::Result<ApnsKey> {
    let key = key(dir, &format!("AuthKey_{key_id}.p8"))?;
    Ok(ApnsKey { team_id, key_id, private_pem: key.serialize_pem(), public: key.public_key_raw().to_vec() })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Carillon sandbox");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf(names: Vec<String>, common: &str, usage: ExtendedKeyUsagePurpose) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    Ok(params)
}

/// A P-256 key in PKCS#8.
fn key(dir: Option<&Path>, name: &str) -> anyhow::Result<KeyPair> {
    let pem = kept(dir, name, 0o600, || Ok(KeyPair::generate()?.serialize_pem()))?;
    KeyPair::from_pem(&pem).with_context(|| format!("{name} of the record folder is no private key"))
}

/// The text of a file, which is made first if it is missing.
fn kept(
    dir: Option<&Path>,
    name: &str,
    mode: u32,
    make: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    let Some(path) = dir.map(|d| d.join(name)) else { return make() };
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let text = make()?;
    // whole or not at all, also when the process is killed here
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
    file.write_all(text.as_bytes())
        .and_then(|()| fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(text)
}
