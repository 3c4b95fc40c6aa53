//! Clients that mean harm, or are broken: they are cut off, and nobody else notices.

use super::*;

#[test]
fn the_hostile_are_cut_off_and_the_others_served() {
    let desk = Desk16::start();
    // A message without an end, garbage, and calls whose answers nobody reads.
    let mut endless = desk.client();
    let sent = (0..64).all(|_| endless.0.write_all(&[b' '; 1024]).is_ok());
    assert!(!sent || endless.receive().is_none());
    for garbage in ["hello\0", "{}\0", "[]\0", "\0", "{\"method\":5}\0", "\u{1}\0\0\0"] {
        let mut client = desk.client();
        client.0.write_all(garbage.as_bytes()).unwrap();
        assert_eq!(client.receive(), None, "{garbage:?}");
    }
    let mut deaf = desk.client();
    let call = b"{\"method\":\"org.varlink.service.GetInfo\"}\0".repeat(300);
    while deaf.0.write_all(&call).is_ok() {}
    let mut all: Vec<Client> = (0..600).map(|_| desk.client()).collect();
    let mut served = 0;
    for client in &mut all {
        let message = json!({ "method": "org.varlink.service.GetInfo" }).to_string() + "\0";
        if client.0.write_all(message.as_bytes()).is_ok() && client.receive().is_some() {
            served += 1;
        }
    }
    assert!((480..=512).contains(&served), "{served} of 600 clients were let in");
    drop(all);
    std::thread::sleep(Duration::from_millis(200));
    assert!(desk.client().reserve(&[GIB])["parameters"]["id"].is_number());
}
