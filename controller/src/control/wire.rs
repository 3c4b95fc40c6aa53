//! The socket as zlink reads it, with what a daemon needs beyond that: a limit of a few KiB where zlink's is 100 MB, and no
//! descriptors from strangers (a plain `read` leaves them to the kernel, which closes them).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{self, ReadResult, Socket, UnixSocket};

/// What may come in without a whole message at its end. The longest call has 16 sizes and a path.
const LARGEST: usize = 16 << 10;

/// A message that is begun has to come to its end within this time.
const UNFINISHED: Duration = Duration::from_secs(10);

/// A connected client.
#[derive(Debug)]
pub(super) struct Wire(pub(super) UnixStream);

impl Socket for Wire {
    type ReadHalf = ReadHalf;
    type WriteHalf = WriteHalf;

    fn split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.0.into_split();
        (ReadHalf { stream: read, pending: 0 }, WriteHalf(write))
    }
}

/// What the client says.
#[derive(Debug)]
pub(super) struct ReadHalf {
    stream: OwnedReadHalf,
    /// Bytes since a read that ended with a message.
    pending: usize,
}

impl socket::ReadHalf for ReadHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        loop {
            let readable = self.stream.readable();
            if self.pending == 0 {
                readable.await?;
            } else {
                // Whoever begins a message has it: he has only to write it.
                let unfinished = |_| zlink::Error::BufferOverflow;
                timeout(UNFINISHED, readable).await.map_err(unfinished)??;
            }
            match self.stream.try_read(buffer) {
                Ok(read) => {
                    let whole = read > 0 && buffer[read - 1] == b'\0';
                    self.pending = if whole { 0 } else { self.pending + read };
                    let fits = self.pending <= LARGEST;
                    return if fits { Ok(ReadResult::new(read)) } else { Err(zlink::Error::BufferOverflow) };
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for ReadHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsRef::<UnixStream>::as_ref(&self.stream).as_fd()
    }
}

impl UnixSocket for ReadHalf {}

/// What it is told.
#[derive(Debug)]
pub(super) struct WriteHalf(OwnedWriteHalf);

impl socket::WriteHalf for WriteHalf {
    async fn write(
        &mut self,
        mut buffer: &[u8],
        _: &[impl AsFd],
        _: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        while !buffer.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(buffer) {
                Ok(written) => buffer = &buffer[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
