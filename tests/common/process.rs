//! A program that runs beside a test, writes to a log file, and never outlives the test.
//!
//! A test can end without running a destructor: `SIGKILL`, an abort, a CI job's time limit. So the
//! kernel is asked to do the cleaning up: each program is started through `setpriv --pdeathsig
//! KILL` (util-linux, part of every Debian).
//!
//! # Guarantees
//! The program is gone when its [`Process`] is dropped, and when the test process is gone, however
//! that one ended. Its own children are not covered; none of the programs used here has any.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);

/// Replaces itself by the program, unless the test died before `setpriv` had asked for its signal:
/// then nobody would ever send one.
const EXEC_BESIDE_PARENT: &str = r#"[ "$PPID" = "$1" ] || exit 125; shift; exec "$@""#;

/// A running program, killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log_path: PathBuf,
}

impl Process {
    /// Starts `command` with its whole output appended to `log_path` and nothing to read.
    ///
    /// Program, arguments, environment and folder are taken from `command`; its standard streams
    /// and `env_clear` are not. The program leads a process group of its own, so that a Ctrl-C at
    /// the terminal reaches the test alone, which then ends its programs in its own order.
    pub(crate) fn spawn(name: &str, command: &Command, log_path: &Path) -> io::Result<Self> {
        let program = Path::new(command.get_program());
        // Said here, because the wrapper would only report exit code 127 some time later.
        if program.is_absolute() && !program.is_file() {
            return Err(failed(
                name,
                "start",
                format!("there is no program {}", program.display()),
            ));
        }
        let log = File::options().create(true).append(true).open(log_path)?;
        let mut wrapped = mortal(command);
        wrapped
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = spawn_from_lasting_thread(wrapped)
            .map_err(|error| failed(name, "start through setpriv (util-linux)", error))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log_path: log_path.to_owned(),
        })
    }

    /// Returns what messages call the program.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id; after the end it may belong to another process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the file that holds everything the program has written.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// Returns the last `lines` lines of the log, for an error message.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(&self.log_path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut tail: Vec<&str> = log.lines().rev().take(lines).collect();
        tail.reverse();
        tail.join("\n")
    }

    /// Returns the exit status if the program has ended.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    /// `TimedOut` when it still runs after `patience`; it is left running.
    pub(crate) async fn wait(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let message = format!("{} still runs after {patience:?}", self.name);
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends `SIGTERM` and waits for the program's own orderly end.
    ///
    /// # Errors
    /// `TimedOut` when it still runs after `patience`; it is left running.
    pub(crate) async fn terminate(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal("TERM")?;
        self.wait(patience).await
    }

    /// Sends a signal by its name without `SIG`: `STOP`, `CONT`, `TERM`, `USR1`.
    pub(crate) fn signal(&mut self, signal: &str) -> io::Result<()> {
        // Once the end has been seen, the number may be somebody else's.
        if let Some(status) = self.try_wait()? {
            return Err(failed(
                &self.name,
                "be signalled",
                format!("it has ended: {status}"),
            ));
        }
        send(self.id(), signal).map_err(|error| failed(&self.name, "be signalled", error))
    }

    /// Sends `SIGKILL` and waits for the end; a program that has already ended is no error.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{}", failed(&self.name, "be killed", error));
        }
    }
}

/// Returns what runs a command in such a way that it ends with the thread that starts it.
///
/// Program, arguments, environment and folder are taken from `command`.
pub(crate) fn mortal(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "sh", "-c", EXEC_BESIDE_PARENT, "sh"])
        .arg(std::process::id().to_string())
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(variable, value),
            None => wrapped.env_remove(variable),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// Sends a signal, by its name without `SIG`, to a process that the caller knows to run.
pub(crate) fn send(id: u32, signal: &str) -> io::Result<()> {
    // The shell's own `kill`: the program of that name is not on every machine.
    let sent = Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal])
        .arg(id.to_string())
        .status()?;
    if sent.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{signal} was not sent: {sent}")))
    }
}

/// Tells whether a process with this id exists; one that has ended but was not waited for does not
/// count.
pub(crate) fn is_alive(id: u32) -> bool {
    // The state follows the program's name, which is in parentheses and may hold anything.
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    })
}

/// Returns how much processor time a process has had.
pub(crate) fn processor_time(id: u32) -> Duration {
    /// In which the kernel counts for everybody, whatever its own (`man 5 proc_pid_stat`).
    const TICKS_A_SECOND: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = after_name.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|it| it.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}

/// Spawns from a thread that lives as long as the test process.
///
/// The kernel sends the death signal when the *thread* that started the program ends; the threads
/// of tests and of runtimes come and go.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in received {
                // Fails only if the asking thread died meanwhile; the child is then on its own
                // until the test process ends.
                answer.send(command.spawn()).ok();
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    SPAWNER.send((command, answer)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

fn failed(name: &str, step: &str, cause: impl Display) -> io::Error {
    io::Error::other(format!("{name} failed to {step}: {cause}"))
}
