//! The demo: a tenant with a few people, and a play that shows what becomes of a few notifications, and proves it.

mod hand_over;
mod play;
mod seed;

use std::net::SocketAddr;

pub(crate) use play::play;
pub(crate) use seed::seed;

/// The demo tenant's key. It is public: `--demo` listens on loopback and is for trying things out.
const KEY: &str = "demo-key-for-trying-out";
const TENANT: &str = "demo";
/// The CloudEvents source that the demo tenant's shop publishes under.
const SOURCE: &str = "https://shop.example/orders";

/// Says where everything is.
pub(crate) fn welcome(api: SocketAddr, kafka: Option<SocketAddr>, sandbox: &sandbox::Running) {
    println!("Carillon is up, with a demo tenant.");
    println!("  API      http://{api}/v1  (key: {KEY})");
    if let Some(kafka) = kafka {
        println!("  events   {kafka}, topic carillon.events, for any Kafka client");
    }
    println!("  sandbox  http://{}/received", sandbox.control);
    println!("Try, in another terminal:");
    try_these(&format!("http://{api}"), &format!("http://{}", sandbox.control));
    println!("Stop it with Ctrl-C; everything is kept.");
}

fn try_these(url: &str, sandbox: &str) {
    println!("  export CARILLON_URL={url} CARILLON_KEY={KEY}");
    println!("  carillon send --to ana --category shipping --template shipped --data order=18 --wait");
    println!("  carillon why ben");
    println!("  carillon dead list");
    println!("  curl -s {sandbox}/received");
}
