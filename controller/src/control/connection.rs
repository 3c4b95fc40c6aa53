//! One client: its calls in order, one at a time, and what is done when it is gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use plimsoll_policy::admission::{Call, Caller, Reply};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zlink::connection::{ReadConnection, WriteConnection};
use zlink::{Call as Message, Connection};

use super::calls::{Raw, Rejection, Todo, read};
use super::peer::Peer;
use super::protocol::said;
use super::wire::{ReadHalf, Wire, WriteHalf};
use super::{Desk, Gone};

/// Calls that a client may send ahead of their answers. More means that it does not read them.
const AHEAD: usize = 8;
/// Reservations of one connection.
const HELD: usize = 256;
/// A client that takes no answer for so long is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// A client that said all it had to say may still listen for the answer.
const LISTENS: Duration = Duration::from_secs(1);

/// Serves a client until it is gone, or misbehaves.
pub(super) async fn serve(stream: UnixStream, desk: Desk, cgroup_root: &Path) {
    // The kernel's number for a process that we can't see is 0, which zlink would take for one.
    let seen = stream.peer_cred().is_ok_and(|peer| peer.pid().is_some_and(|pid| pid > 0));
    let mut connection = Connection::new(Wire(stream));
    let peer = if seen {
        let Ok(credentials) = connection.peer_credentials().await else { return };
        Peer::of(credentials, cgroup_root)
    } else {
        Peer::UNSEEN
    };
    let (reads, writes) = connection.split();
    let mut client = Client { writes, desk, peer, held: BTreeMap::new() };
    let (calls, mut queue) = mpsc::channel(AHEAD);
    {
        let mut hung_up = pin!(listen(reads, calls));
        let mut listening = true;
        loop {
            let call = tokio::select! {
                biased;
                call = queue.recv() => call,
                () = &mut hung_up, if listening => { listening = false; continue }
            };
            let Some(call) = call else { break };
            let answered = {
                let mut answer = pin!(client.answer(call, cgroup_root));
                tokio::select! {
                    answered = &mut answer => Some(answered),
                    () = &mut hung_up, if listening => {
                        listening = false;
                        timeout(LISTENS, answer).await.ok()
                    }
                }
            };
            if answered != Some(Ok(())) {
                break;
            }
        }
    }
    client.leave().await;
}

/// Takes calls until the client is gone, says nonsense, or says too much.
async fn listen(mut reads: ReadConnection<ReadHalf>, calls: mpsc::Sender<Message<Raw>>) {
    while let Ok((call, _)) = reads.receive_call::<Raw>().await {
        if calls.try_send(call).is_err() {
            return;
        }
    }
}

struct Client {
    writes: WriteConnection<WriteHalf>,
    desk: Desk,
    peer: Peer,
    /// Calls that were granted something that ends with the connection, by the number of the reservation. The call whose
    /// answer the client does not have yet is number 0: what nobody knows of, nobody would release.
    held: BTreeMap<u64, u64>,
}

/// The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken;

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self
    }
}

impl Client {
    async fn answer(&mut self, message: Message<Raw>, cgroup_root: &Path) -> Result<(), Broken> {
        let wanted = !message.oneway();
        let raw = Raw::from(message);
        let answer = match read(raw, &self.peer, cgroup_root) {
            Ok(Todo::Say(said)) => Ok(said),
            Ok(Todo::Ask(call, id)) => match self.peer.caller() {
                Some(caller) => said(&self.ask(caller, call, id).await?, id).map_err(Rejection::Ours),
                None => Err(Rejection::Service(zlink::varlink_service::Error::PermissionDenied)),
            },
            Err(rejection) => Err(rejection),
        };
        if !wanted {
            return Ok(());
        }
        let writes = &mut self.writes;
        let sent = timeout(PATIENCE, async {
            match answer {
                Ok(said) => writes.send_reply(&zlink::Reply::new(Some(said)), Vec::new()).await,
                Err(Rejection::Ours(error)) => writes.send_error(&error, Vec::new()).await,
                Err(Rejection::Service(error)) => writes.send_error(&error, Vec::new()).await,
            }
        });
        sent.await.map_err(|_| Broken)?.map_err(|_| Broken)?;
        self.held.remove(&0);
        Ok(())
    }

    /// Asks the pass, and keeps account of what has to be given back when the client goes.
    async fn ask(&mut self, caller: Caller, call: Call, id: u64) -> Result<Reply, Gone> {
        let ticket = self.desk.ticket();
        let ends_here = matches!(&call, Call::Reserve(wants) if !wants.detached);
        let commits = matches!(call, Call::Commit { .. });
        if matches!(call, Call::Reserve(_)) {
            self.held.insert(0, ticket);
        }
        let reply = self.desk.ask(ticket, caller, call).await?;
        match reply {
            Reply::Granted { id, .. } if ends_here => {
                self.held.insert(id, ticket);
                // More than that are not granted; what was forgotten here expires.
                while self.held.len() > HELD {
                    self.held.pop_first();
                }
            }
            Reply::Released => {
                self.held.remove(&id);
            }
            Reply::Done { .. } if commits => {
                self.held.remove(&id);
            }
            _ => {}
        }
        Ok(reply)
    }

    /// A loader that is gone must not hold bytes until they expire.
    async fn leave(self) {
        let Some(caller) = self.peer.caller() else { return };
        for ticket in self.held.into_values() {
            let call = Call::Withdraw { ticket };
            if self.desk.ask(self.desk.ticket(), caller.clone(), call).await.is_err() {
                return;
            }
        }
    }
}
