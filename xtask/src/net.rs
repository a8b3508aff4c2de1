//! `cargo xtask net`: Debian's stock kernel and its own driver on a network card of ours, with the NAT between it and
//! servers on this host's loopback.

pub(crate) mod guest;
pub(crate) mod servers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command as Program;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sha2::{Digest, Sha256};

use self::guest::Guest;
use self::servers::{ADDRESS, Servers};
use crate::bench::machine::Running;

/// The guest is up and reads commands.
pub(crate) const READY: &str = "net: ready";
/// How a command ended, behind its output.
pub(crate) const STATUS: &str = "net: status ";
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// Bytes that are fetched and sent.
const BYTES: usize = 4 << 20;

#[derive(Args)]
pub(crate) struct Command {
    /// The isomer to test [default: the release binary, built from the working tree]
    #[arg(long, value_name = "FILE")]
    isomer: Option<PathBuf>,
    /// How the card is attached: pci or mmio
    #[arg(long, default_value = "pci", value_name = "HOW")]
    transport: String,
    /// Number of CPUs, and of the card's queue pairs
    #[arg(long, default_value_t = 1, value_name = "N")]
    cpus: u32,
    /// Seconds the guest has to boot
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    limit_s: u64,
    /// Download the newest packages again
    #[arg(long)]
    refresh: bool,
    /// Debian archive to download from [default: the one in the system's apt sources]
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

/// # Errors
/// When something does not come through as it should.
pub(crate) fn run(command: &Command) -> Result<()> {
    let isomer = crate::isomer(command.isomer.as_deref())?;
    let work = crate::target_dir()?.join("net");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let guest = Guest::prepare(&work, command.mirror.as_deref(), command.refresh, &[])?;
    let servers = Servers::start()?;
    let published = free_port()?;

    let mut program = Program::new(&isomer);
    program.args(["run", "--no-reboot", "--quiet", "--cpus", &command.cpus.to_string()]);
    program.args(["--transport", &command.transport, "--publish", &format!("{published}:80")]);
    program.args(["--net", &format!("user,dns={}", servers.dns)]);
    program.arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(&guest.initrd);
    program.args(["--append", "console=ttyS0 quiet"]);
    let start = Instant::now();
    let mut console = Console { running: Running::start(program, Duration::from_secs(command.limit_s))? };
    console.running.wait_for(READY)?;
    println!("ok    the guest is up{:>45.1} s", start.elapsed().as_secs_f64());
    for check in checks(&servers) {
        console.check(&check)?;
    }
    console.published(published)?;
    console.running.type_line("exit 0", COMMAND_LIMIT)?;
    let errors = console.running.stop()?;
    ensure!(errors.is_empty(), "isomer wrote to standard error:\n{errors}");
    println!("net: all passed");
    Ok(())
}

/// Something to try.
struct Check {
    what: &'static str,
    line: String,
    /// What the guest prints if it works.
    expected: String,
}

fn checks(servers: &Servers) -> Vec<Check> {
    let check = |what, line: String, expected: &str| Check { what, line, expected: expected.to_owned() };
    let digest = Sha256::digest(servers::content(0, BYTES));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let fetch = |at: &str, port: u16| format!("wget -q -O - http://{at}:{port}/{BYTES} | sha256sum");
    let mut checks = vec![
        check(
            "DHCP gives a lease",
            "ip link set lo up; udhcpc -q -n -t 10 -i eth0 -s /etc/udhcpc".into(),
            "net: lease 10.0.2.15/24 router 10.0.2.2 dns 10.0.2.3",
        ),
        check("the gateway answers pings", "ping -c 3 10.0.2.2".into(), "3 packets received"),
        check("names are resolved", "nslookup example.org 10.0.2.3".into(), &ADDRESS.to_string()),
        check("a download from the host", fetch("10.0.2.2", servers.http.port()), &digest),
        check(
            "an upload to the host",
            format!("head -c {BYTES} /dev/zero | nc 10.0.2.2 {}", servers.sink.port()),
            &format!("{BYTES} bytes"),
        ),
        check(
            "twenty downloads at once",
            format!(
                "for i in $(seq 20); do wget -q -O /tmp/$i http://10.0.2.2:{}/100000 & done; wait; cat /tmp/* | wc -c; rm /tmp/*",
                servers.http.port()
            ),
            "2000000",
        ),
        check(
            "a closed port is refused",
            "nc -w 20 10.0.2.2 1 </dev/null 2>&1 | grep refused".into(),
            "Connection refused",
        ),
    ];
    if let Some(http) = servers.http_v6 {
        let wait = "for i in $(seq 100); do ip -6 addr show dev eth0 scope site | grep -v tentative | grep -q fec0 && break; sleep 0.1; done";
        checks.push(check(
            "IPv6 by router advertisement",
            format!("{wait}; ip -6 route"),
            "default via fe80::2",
        ));
        checks.push(check("a download over IPv6", fetch("[fec0::2]", http.port()), &digest));
        checks.push(check(
            "the router answers pings over IPv6",
            "ping -6 -c 2 fec0::2".into(),
            "2 packets received",
        ));
    }
    checks
}

/// The guest's console.
struct Console {
    running: Running,
}

impl Console {
    fn check(&mut self, check: &Check) -> Result<()> {
        let start = Instant::now();
        self.command(&check.line, &check.expected).with_context(|| format!("FAIL  {}", check.what))?;
        println!("ok    {:<50} {:>7.1} s", check.what, start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Runs a command in the guest, which has to print `expected` and to succeed.
    fn command(&mut self, line: &str, expected: &str) -> Result<()> {
        self.running.type_line(line, COMMAND_LIMIT)?;
        if !expected.is_empty() {
            self.running.wait_for(expected)?;
        }
        self.running.wait_for(STATUS)?;
        let status = self.running.rest_of_line()?;
        ensure!(status == "0", "`{line}` exited with {status}");
        Ok(())
    }

    /// A client on the host reaches a server of the guest.
    fn published(&mut self, port: u16) -> Result<()> {
        let start = Instant::now();
        self.running.type_line("echo answer | nc -l -p 80", COMMAND_LIMIT)?;
        let client = thread::spawn(move || ask(port));
        self.running.wait_for("question").context("FAIL  a published port: the guest heard nothing")?;
        self.running.wait_for(STATUS)?;
        let answer = client.join().map_err(|_| anyhow::anyhow!("the client failed"))??;
        ensure!(answer == "answer\n", "FAIL  a published port: the guest said {answer:?}");
        println!("ok    {:<50} {:>7.1} s", "a published port", start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Talks to the published port as soon as somebody listens behind it.
fn ask(port: u16) -> Result<String> {
    let deadline = Instant::now() + COMMAND_LIMIT;
    while Instant::now() < deadline {
        let mut answer = String::new();
        let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.write_all(b"question\n")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_string(&mut answer)
        });
        // Until the guest listens, it resets what comes.
        if asked.is_ok() && !answer.is_empty() {
            return Ok(answer);
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("nobody answered at port {port}")
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(listener.local_addr()?.port())
}
