//! Tables of addresses and of ways to write them. Nothing here opens a connection: the network is a recorder.

use std::sync::Mutex;

use domain::{Address, Channel};

use super::*;

const CLOSED: &str = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.1.2.3 \
    127.255.255.255 168.63.129.16 169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 \
    192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.7 \
    224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 \
    64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:20::1 2001:db8::1 \
    2002:7f00:1:: 2002:808:808::1 2620:4f:8000::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fdff::1 \
    fe80::1 febf::1 fec0::1 ff02::1 ff0e::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";

const PUBLIC: &str = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 \
    168.63.129.15 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 \
    198.20.0.0 223.255.255.255 ::ffff:8.8.8.8 2001:200::1 2001:4860:4860::8888 2003::1 2606:4700::1111 2a00:1450::1 3ffe::1";

/// URLs that lead to closed addresses.
const SPELLINGS: &str = "http://127.0.0.1/ http://127.1/ http://127.0.1/ http://2130706433/ http://0x7f.1/ http://0x7f000001/ \
    http://017700000001/ http://0177.0.0.1/ http://127.0.0.1./ http://①②⑦.⓪.⓪.①/ http://127。0。0。1/ \
    http://%31%32%37.0.0.1/ https://127.0.0.1:8443/ http://0/ http://0.0.0.0/ http://0x0/ http://[::]/ \
    http://[::1]/ http://[0:0:0:0:0:0:0:1]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ \
    http://[::127.0.0.1]/ http://[64:ff9b::127.0.0.1]/ http://[2002:7f00:1::]/ http://[fd00:ec2::254]/latest \
    http://[fe80::1]/ http://169.254.169.254/latest/meta-data/ http://2852039166/ http://0xa9fea9fe/ \
    http://0xA9.0xFE.0xA9.0xFE/ http://0251.0376.0251.0376/ http://[::ffff:a9fe:a9fe]/ http://100.100.100.200/ \
    http://168.63.129.16/ http://192.168.1.1/ http://10.0.0.1/ http://172.16.0.1/ http://100.64.0.1/ \
    http://198.18.0.1/ http://224.0.0.1/ http://255.255.255.255/ http:\\\\10.0.0.1\\x http:10.0.0.1 \
    http:/10.0.0.1/ http:////10.0.0.1 http://10.0.0.1\\.example.com/ http://10.0.0.1\\@example.com/ \
    http://LOCALHOST/ http://localhost./ http://loc%61lhost/ http://ｌｏｃａｌｈｏｓｔ/ http://metadata.google.internal/ \
    http://ends-inside.example/ http://nat64.example/ http://mapped.example/";

/// Not webhook addresses at all.
const REFUSED: [&str; 11] = [
    "http://8.8.8.8@10.0.0.1/",
    "gopher://127.0.0.1/",
    "file:///etc/passwd",
    "dict://127.0.0.1:11211/",
    "http://[fe80::1%25eth0]/",
    "http://10.0.0.1#@example.com/",
    "http://256.256.256.256/",
    "http://127.0.0.0x100/",
    "//10.0.0.1/",
    "http://",
    "http://ex ample/",
];

fn ips(list: &str) -> impl Iterator<Item = IpAddr> {
    list.split_whitespace().map(|ip| ip.parse().expect("an address"))
}

#[test]
fn only_public_addresses_are_allowed() {
    assert!(ips(CLOSED).count() >= 60);
    for ip in ips(CLOSED) {
        assert!(!allowed(ip, &[]), "{ip}");
    }
    for ip in ips(PUBLIC) {
        assert!(allowed(ip, &[]), "{ip}");
    }
}

#[test]
fn a_network_is_opened_on_purpose_and_nothing_beside_it() {
    let opened = ["127.0.0.0/8", "10.20.0.0/16", "::1", "fd12::/16"].map(|n| parse_network(n).expect("a network"));
    for ip in ips("127.0.0.1 ::ffff:127.0.0.1 10.20.255.255 ::1 fd12::5") {
        assert!(allowed(ip, &opened), "{ip}");
    }
    for ip in ips("10.19.255.255 10.21.0.0 169.254.169.254 ::2 fd13::5 64:ff9b::7f00:1 2002:7f00:1::") {
        assert!(!allowed(ip, &opened), "{ip}");
    }
    for bad in ["", "10.0.0.0/33", "localhost", "10.0/8", "10.0.0.0/8 "] {
        assert!(parse_network(bad).is_err(), "{bad}");
    }
}

#[test]
fn http_and_other_ports_are_for_opened_networks() {
    let opened = vec![parse_network("127.0.0.0/8").expect("a network")];
    let strict = Guard { opened, allow_http: false };
    let lax = Guard { allow_http: true, ..strict.clone() };
    let to = |text: &str| text.parse::<SocketAddr>().expect("an address");
    assert!(strict.allows(false, to("127.0.0.1:25")));
    for (guard, https, address, expected) in [
        (&strict, true, "8.8.8.8:443", true),
        (&strict, true, "8.8.8.8:8443", true),
        (&strict, false, "8.8.8.8:80", false),
        (&lax, false, "8.8.8.8:80", true),
        (&lax, false, "8.8.8.8:25", false),
        (&strict, true, "8.8.8.8:22", false),
        (&strict, true, "8.8.8.8:0", false),
        (&lax, false, "10.0.0.1:80", false),
    ] {
        assert_eq!(guard.allows(https, to(address)), expected, "{address}");
    }
}

/// Answers names from a list and notes what it is asked to connect to, which it never does.
#[derive(Default)]
struct Recorder {
    names: Vec<(&'static str, &'static str)>,
    asked: Mutex<Vec<String>>,
    dialled: Mutex<Vec<SocketAddr>>,
}

#[async_trait]
impl Network for Recorder {
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let mut asked = self.asked.lock().expect("lock");
        asked.push(host.to_owned());
        // a name that stands there twice changes its answer: DNS rebinding
        let before = asked.iter().filter(|h| *h == host).count() - 1;
        let mut answers = self.names.iter().filter(|(name, _)| *name == host).map(|(_, answer)| *answer);
        match answers.clone().nth(before).or_else(|| answers.next_back()) {
            Some(answer) => Ok(ips(answer).map(|ip| SocketAddr::new(ip, port)).collect()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.dialled.lock().expect("lock").push(to);
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

async fn connect(network: &Arc<Recorder>, guard: &Guard, url: &str) -> ConnectError {
    let address = Address::parse(Channel::Webhook, url).expect(url);
    let uri: Uri = address.expose().parse().expect(url);
    Connector::new(guard.clone(), network.clone()).call(uri).await.expect_err("the recorder never connects")
}

#[tokio::test]
async fn no_spelling_of_a_closed_address_gets_a_connection() {
    let names = vec![
        ("localhost", "127.0.0.1 ::1"),
        ("localhost.", "127.0.0.1"),
        ("metadata.google.internal", "169.254.169.254"),
        ("ends-inside.example", "10.0.0.7"),
        ("nat64.example", "64:ff9b::a00:1"),
        ("mapped.example", "::ffff:192.168.1.1"),
    ];
    let network = Arc::new(Recorder { names, ..Recorder::default() });
    let guard = Guard { opened: vec![], allow_http: true };
    for url in SPELLINGS.split_whitespace() {
        assert_eq!(connect(&network, &guard, url).await, ConnectError::Forbidden, "{url}");
    }
    for refused in REFUSED {
        assert!(Address::parse(Channel::Webhook, refused).is_err(), "{refused}");
    }
    assert_eq!(*network.dialled.lock().expect("lock"), []);
}

#[tokio::test]
async fn of_a_mixed_answer_only_the_public_part_is_used_and_a_name_is_asked_once() {
    let names = vec![
        ("mixed.example", "10.0.0.1 1.1.1.1 127.0.0.1 ::1 2606:4700::1111 169.254.169.254"),
        ("rebind.example", "9.9.9.9"),
        ("rebind.example", "127.0.0.1"),
        ("none.example", ""),
    ];
    let network = Arc::new(Recorder { names, ..Recorder::default() });
    let guard = Guard::default();
    assert_eq!(connect(&network, &guard, "https://mixed.example/").await, ConnectError::Refused);
    assert_eq!(connect(&network, &guard, "https://rebind.example/").await, ConnectError::Refused);
    assert_eq!(connect(&network, &guard, "https://none.example/").await, ConnectError::Unresolved);
    assert_eq!(connect(&network, &guard, "https://unknown.example/").await, ConnectError::Unresolved);
    let dialled: Vec<_> = network.dialled.lock().expect("lock").iter().map(ToString::to_string).collect();
    assert_eq!(dialled, ["1.1.1.1:443", "[2606:4700::1111]:443", "9.9.9.9:443"]);
    assert_eq!(network.asked.lock().expect("lock").len(), 4);
    // and when it is asked again, for a new connection, it is vetted again
    assert_eq!(connect(&network, &guard, "https://rebind.example/").await, ConnectError::Forbidden);
}
