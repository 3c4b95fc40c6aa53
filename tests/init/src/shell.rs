//! A root shell of a machine at a TCP port: one connection is one script, and its output comes back with its exit code.
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Where the machine's shell listens.
pub const PORT: u16 = 2222;
/// Begins the last line of an answer. A script that prints it itself only deceives itself.
const MARK: &str = "plimsoll-shell: ended with ";

/// The shell of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Shell {
    address: SocketAddr,
    limit: Duration,
}

/// What came of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output and standard error, as they came.
    pub output: String,
}

impl Ended {
    /// Whether the script succeeded.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.code == 0
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.output.trim_end())
    }
}

impl Shell {
    /// A script may be silent for `limit`, which is also how long a connection may take.
    #[must_use]
    pub fn at(address: SocketAddr, limit: Duration) -> Self {
        Self { address, limit }
    }

    /// Where it listens, as seen from here.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.address
    }

    /// The same shell with another patience.
    #[must_use]
    pub fn patient(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Runs a script of the POSIX shell as root.
    ///
    /// # Errors
    /// Nobody listens, or the connection ended before the script: the machine may be gone, or not there yet.
    pub fn run(self, script: &str) -> io::Result<Ended> {
        let mut stream = TcpStream::connect_timeout(&self.address, self.limit)?;
        stream.set_read_timeout(Some(self.limit))?;
        stream.set_write_timeout(Some(self.limit))?;
        // The shell reads its script from the connection, so the commands in it must not; a subshell, since it may exit.
        let wrapped = format!("(\n{script}\n) </dev/null 2>&1\necho; echo {MARK}$?\n");
        stream.write_all(wrapped.replace("\r", "").as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        read(&String::from_utf8_lossy(&answer)).ok_or_else(|| {
            let said = String::from_utf8_lossy(&answer).into_owned();
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("the shell ended too early, after {said:?}"))
        })
    }
}

/// Takes an answer apart; `None` if its end is missing.
fn read(answer: &str) -> Option<Ended> {
    let (output, code) = answer.rsplit_once(MARK)?;
    let output = output.strip_suffix('\n').unwrap_or(output).to_owned();
    Some(Ended { code: code.trim().parse().ok()?, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_ends_with_the_code() {
        let answer = format!("hello\n\n{MARK}3\n");
        assert_eq!(read(&answer), Some(Ended { code: 3, output: "hello\n".into() }));
        assert_eq!(read(&format!("\n{MARK}0\n")), Some(Ended { code: 0, output: String::new() }));
        assert_eq!(read("hello"), None);
    }
}
