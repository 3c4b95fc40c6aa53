//! What those who run the machine ask for.

use super::*;

impl Client {
    fn operate(&mut self, method: &str, parameters: &Value) -> Value {
        self.call(&format!("dev.plimsoll.Operator.{method}"), parameters)
    }
}

#[test]
fn status_is_that_of_the_command_line() {
    let desk = Desk16::start();
    let mut client = desk.client();
    client.control("Headroom", &json!({}));
    std::thread::sleep(Duration::from_millis(200));
    let status = client.operate("Status", &json!({}))["parameters"]["status"].clone();
    let status: crate::report::status::Status = serde_json::from_value(status).unwrap();
    assert!(status.host.is_some() && status.version == env!("CARGO_PKG_VERSION"));
    let unknown = client.operate("Status", &json!({ "workload": "nobody" }));
    assert_eq!(error(&unknown), "dev.plimsoll.Operator.NoSuchWorkload");
}

#[test]
fn a_pause_is_shown_and_ended() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let seconds = "has to be a whole number from 1 to 86400";
    let wrong = client.operate("Pause", &json!({ "seconds": 0 }));
    assert_eq!(wrong["parameters"], json!({ "parameter": "seconds", "message": seconds }));
    assert_eq!(client.operate("Pause", &json!({ "seconds": 60 }))["parameters"], json!({ "released": [] }));
    let paused = |client: &mut Client| {
        std::thread::sleep(Duration::from_millis(200));
        client.operate("Status", &json!({}))["parameters"]["status"]["paused_seconds"].as_f64()
    };
    assert!(paused(&mut client).is_some_and(|seconds| (40.0..=60.0).contains(&seconds)));
    assert_eq!(client.operate("Resume", &json!({}))["parameters"], json!({ "paused": true }));
    assert_eq!(paused(&mut client), None);
    assert_eq!(client.operate("Resume", &json!({}))["parameters"], json!({ "paused": false }));
}

#[test]
fn a_release_is_of_one_or_of_all() {
    let desk = Desk16::start();
    let mut client = desk.client();
    for parameters in [json!({}), json!({ "workload": "chat", "seconds": 1 })] {
        assert_eq!(client.operate("Release", &parameters)["parameters"], json!({ "released": [] }));
    }
    let unknown = client.operate("Release", &json!({ "workload": "nobody" }));
    assert_eq!(error(&unknown), "dev.plimsoll.Operator.NoSuchWorkload");
    assert_eq!(unknown["parameters"], json!({ "name": "nobody", "present": ["chat"] }));
}

#[test]
fn what_the_journal_does_not_tell_is_not_explained() {
    let desk = Desk16::start();
    let mut client = desk.client();
    client.control("Headroom", &json!({}));
    let refused = client.operate("Explain", &json!({ "action": 5 }));
    assert_eq!(error(&refused), "dev.plimsoll.Operator.NotExplained", "{refused}");
    let message = refused["parameters"]["message"].as_str().unwrap();
    assert!(message.contains("no action 5"), "{message}");
}

#[test]
fn the_client_of_the_command_line_understands_it() {
    use client::{Operation, ReleaseReply, ResumeReply, StatusReply, block_on, operate};
    let desk = Desk16::start();
    let path = desk.path();
    let paused: ReleaseReply = block_on(operate(&path, Operation::Pause { seconds: 60 })).unwrap().unwrap();
    assert_eq!(paused.released, [""; 0]);
    std::thread::sleep(Duration::from_millis(200));
    let status: StatusReply =
        block_on(operate(&path, Operation::Status { workload: None })).unwrap().unwrap();
    assert!(status.status.paused_seconds.is_some());
    let resumed: ResumeReply = block_on(operate(&path, Operation::Resume {})).unwrap().unwrap();
    assert!(resumed.paused);
    let nobody = Operation::Release { workload: Some("nobody") };
    let error = block_on(operate::<ReleaseReply>(&path, nobody)).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no workload is named \"nobody\"; there are chat");
    let story = block_on(operate::<client::ExplainReply>(&path, Operation::Explain { action: 3 })).unwrap();
    assert!(story.unwrap_err().to_string().contains("no action 3"));
    let none = desk.dir.path().join("none.sock");
    let error = block_on(operate::<StatusReply>(&none, Operation::Status { workload: None })).unwrap();
    assert!(error.unwrap_err().is_absence());
}
