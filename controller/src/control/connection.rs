//! One client: its calls in order, one at a time, and what is done when it is gone.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::admission::{Call, Caller, Reply};
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zlink::connection::{ReadConnection, WriteConnection};
use zlink::varlink_service::Error;
use zlink::{Call as Message, Connection};

use super::calls::{Raw, Rejection, Todo, read};
use super::peer::Peer;
use super::protocol::{Said, said};
use super::wire::{ReadHalf, Wire, WriteHalf};
use super::{Control, Gone};

/// Calls that a client may send ahead of their answers. More means that it does not read them.
const AHEAD: usize = 8;
/// Reservations of one connection.
const HELD: usize = 256;
/// A client that takes no answer for so long is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// A client that said all it had to say may still listen for the answer.
const LISTENS: Duration = Duration::from_secs(1);

/// Serves a client until it is gone, or misbehaves.
pub(super) async fn serve(stream: UnixStream, control: &Arc<Control>) {
    // The kernel's number for a process that we can't see is 0, which zlink would take for one.
    let seen = stream.peer_cred().is_ok_and(|peer| peer.pid().is_some_and(|pid| pid > 0));
    let mut connection = Connection::new(Wire(stream));
    let peer = if seen {
        let Ok(credentials) = connection.peer_credentials().await else { return };
        Peer::of(credentials, control.cgroup_root())
    } else {
        Peer::UNSEEN
    };
    let (reads, writes) = connection.split();
    let mut client =
        Client { writes, control: Arc::clone(control), peer, held: BTreeMap::new(), session: None };
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
            // Who wants notices and hangs up wants no more of them.
            let listens = if call.more() { Duration::ZERO } else { LISTENS };
            let answered = {
                let mut answer = pin!(client.answer(call));
                let whole = async {
                    if listening {
                        tokio::select! {
                            answered = &mut answer => return Some(answered),
                            () = &mut hung_up => listening = false,
                        }
                    }
                    // It may have hung up before it came to this call.
                    timeout(listens, answer).await.ok()
                };
                whole.await
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

pub(super) struct Client {
    pub(super) writes: WriteConnection<WriteHalf>,
    pub(super) control: Arc<Control>,
    pub(super) peer: Peer,
    /// Calls that were granted something that ends with the connection, by the number of the reservation. The call whose
    /// answer the client does not have yet is number 0: what nobody knows of, nobody would release.
    held: BTreeMap<u64, u64>,
    /// It can be asked to give memory back.
    pub(super) session: Option<u64>,
}

/// The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self
    }
}

/// Why a call is not obeyed, or not answered at all.
pub(super) enum Refused {
    With(Rejection),
    Broken,
}

impl<T: Into<Rejection>> From<T> for Refused {
    fn from(rejection: T) -> Self {
        Self::With(rejection.into())
    }
}

impl Client {
    async fn answer(&mut self, message: Message<Raw>) -> Result<(), Broken> {
        let (wanted, more) = (!message.oneway(), message.more());
        let answer = match read(Raw::from(message), &self.peer, self.control.cgroup_root()) {
            Ok(Todo::Subscribe) if more => return self.stream().await,
            Ok(todo) => self.obey(todo).await,
            Err(rejection) => Err(Refused::With(rejection)),
        };
        match answer {
            _ if !wanted => Ok(()),
            Ok(said) => self.send(Ok(said)).await,
            Err(Refused::With(rejection)) => self.send(Err(rejection)).await,
            Err(Refused::Broken) => Err(Broken),
        }
    }

    async fn obey(&mut self, todo: Todo) -> Result<Said, Refused> {
        match todo {
            Todo::Say(said) => Ok(said),
            Todo::Ask(call, id) => {
                let denied = || Rejection::Service(Error::PermissionDenied);
                let caller = self.peer.caller().ok_or_else(denied)?;
                self.ask(caller, call, id).await
            }
            Todo::Program(call) => self.program(call).await,
            Todo::Operate(operation) => self.operate(operation).await,
            Todo::Subscribe => Err(Rejection::Service(Error::ExpectedMore).into()),
        }
    }

    /// An answer; a client that does not take it is not there.
    async fn send(&mut self, answer: Result<Said, Rejection>) -> Result<(), Broken> {
        let writes = &mut self.writes;
        let sent = timeout(PATIENCE, async {
            match answer {
                Ok(said) => writes.send_reply(&zlink::Reply::new(Some(said)), Vec::new()).await,
                Err(Rejection::Ours(error)) => writes.send_error(&error, Vec::new()).await,
                Err(Rejection::Operator(error)) => writes.send_error(&error, Vec::new()).await,
                Err(Rejection::Service(error)) => writes.send_error(&error, Vec::new()).await,
            }
        });
        sent.await.map_err(|_| Broken)?.map_err(|_| Broken)?;
        self.held.remove(&0);
        Ok(())
    }

    /// One of several replies, or the last. A client that we froze can't read, and is waited for: nothing is kept for it.
    pub(super) async fn tell(
        &mut self,
        news: &(impl Serialize + std::fmt::Debug),
        last: bool,
    ) -> Result<(), Broken> {
        let reply = zlink::Reply::new(Some(news)).set_continues((!last).then_some(true));
        self.writes.send_reply(&reply, Vec::new()).await.map_err(|_| Broken)
    }

    /// Asks the pass, and keeps account of what has to be given back when the client goes.
    pub(super) async fn ask(&mut self, caller: Caller, call: Call, id: u64) -> Result<Said, Refused> {
        let ticket = self.control.desk.ticket();
        let ends_here = matches!(&call, Call::Reserve(wants) if !wants.detached);
        let commits = matches!(call, Call::Commit { .. });
        if matches!(call, Call::Reserve(_)) {
            self.held.insert(0, ticket);
        }
        let reply = self.control.desk.ask(ticket, caller, call).await.map_err(|Gone| Refused::Broken)?;
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
        Ok(said(&reply, id)?)
    }

    /// A loader that is gone must not hold bytes until they expire, and a program that is gone is asked for nothing.
    async fn leave(self) {
        if let Some(session) = self.session {
            self.control.end(session);
        }
        let Some(caller) = self.peer.caller() else { return };
        for ticket in self.held.into_values() {
            let call = Call::Withdraw { ticket };
            if self.control.desk.ask(self.control.desk.ticket(), caller.clone(), call).await.is_err() {
                return;
            }
        }
    }
}
