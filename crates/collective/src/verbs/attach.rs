//! The verbs that reach into a guest: `exec`, `console`, `view`, `screenshot`, `logs`.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use api::ExecPrint;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host::Failure;

use super::{name, not_written, open};
use crate::cli::{Exec, Global, Logs, One, Screenshot, View};
use crate::print;

/// What a shell's `timeout` exits with.
const EXIT_TIMEOUT: u8 = 124;
/// Most bytes of standard input that go along with a command: 16 MiB.
const STDIN_BYTES_MAX: u64 = 16 << 20;

pub fn exec(global: &Global, verb: &Exec) -> Result<ExitCode, Failure> {
    let name = name(&verb.name)?;
    let stdin = if verb.interactive {
        let mut bytes = Vec::new();
        std::io::stdin().take(STDIN_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > STDIN_BYTES_MAX {
            return Err(Failure::new(
                "usage",
                "standard input is longer than 16 MiB",
                "send it in parts, or over the network",
            ));
        }
        Some(bytes)
    } else {
        None
    };
    let timeout = Duration::from_secs(verb.timeout);
    let outcome = match open(global)?.exec(&name, &verb.command, stdin.as_deref(), timeout) {
        Err(failure) if failure.kind == "timeout" => {
            print::failure(&failure, global.json);
            return Ok(ExitCode::from(EXIT_TIMEOUT));
        }
        other => other?,
    };
    let decode =
        |text: &str| STANDARD.decode(text).map_err(|e| Failure::new("internal", e.to_string(), ""));
    let (stdout, stderr) = (decode(&outcome.stdout_base64)?, decode(&outcome.stderr_base64)?);
    if global.json {
        let document = ExecPrint {
            exit_code: outcome.exit_code,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        print::result(&Global { quiet: true, ..global.clone() }, &document, String::new);
    } else {
        let _ = std::io::stdout().write_all(&stdout);
        let _ = std::io::stdout().flush();
        let _ = std::io::stderr().write_all(&stderr);
    }
    Ok(ExitCode::from(outcome.exit_code.clamp(0, 255) as u8))
}

pub fn screenshot(global: &Global, verb: &Screenshot) -> Result<(), Failure> {
    let name = name(&verb.name)?;
    let path = verb.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.png")));
    let png = open(global)?.screenshot(&name)?;
    std::fs::write(&path, &png).map_err(|e| not_written(&path, e))?;
    let document = serde_json::json!({"file": path, "bytes": png.len()});
    print::result(global, &document, || format!("wrote {}", path.display()));
    Ok(())
}

pub fn view(global: &Global, verb: &View) -> Result<(), Failure> {
    let name = name(&verb.name)?;
    let view = open(global)?.view(&name, verb.port)?;
    let document = serde_json::json!({
        "address": view.address.to_string(),
        "socket": view.socket,
    });
    print::result(global, &document, || {
        format!("the screen of {name} is at vnc://{}, for you alone; Ctrl-C ends", view.address)
    });
    view.serve()
}

pub fn logs(global: &Global, verb: &Logs) -> Result<(), Failure> {
    let bytes = open(global)?.logs(&name(&verb.name)?, verb.shim)?;
    if global.json {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        print::result(
            &Global { quiet: true, ..global.clone() },
            &serde_json::json!({"log": text}),
            String::new,
        );
    } else {
        let _ = std::io::stdout().write_all(&bytes);
    }
    Ok(())
}

/// Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;

pub fn console(global: &Global, verb: &One) -> Result<(), Failure> {
    let mut socket = open(global)?.console(&name(&verb.name)?)?;
    let mut reader = socket.try_clone()?;
    if std::io::stdin().is_terminal() {
        print::note(global, "attached; Ctrl-] leaves");
    }
    let raw = RawTerminal::enter();
    // The reader ends when the guest's console does; it then ends this program, because a thread
    // that waits for the keyboard cannot be woken.
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            let _ = std::io::stdout().write_all(&bytes[..count]);
            let _ = std::io::stdout().flush();
        }
        drop(raw);
        std::process::exit(0);
    });
    let mut bytes = [0; 1024];
    loop {
        let count = std::io::stdin().read(&mut bytes)?;
        if count == 0 {
            // Input from a pipe has ended: show what the guest answers for a moment.
            std::thread::sleep(Duration::from_secs(2));
            break;
        }
        let typed = &bytes[..count];
        if let Some(position) = typed.iter().position(|byte| *byte == LEAVE) {
            socket.write_all(&typed[..position])?;
            break;
        }
        socket.write_all(typed)?;
    }
    RawTerminal::leave();
    Ok(())
}

/// A terminal that passes every key on; restored when dropped.
struct RawTerminal;

static SAVED: std::sync::Mutex<Option<rustix::termios::Termios>> = std::sync::Mutex::new(None);

impl RawTerminal {
    fn enter() -> Self {
        if let Ok(saved) = rustix::termios::tcgetattr(std::io::stdin()) {
            let mut raw = saved.clone();
            raw.make_raw();
            let _ = rustix::termios::tcsetattr(
                std::io::stdin(),
                rustix::termios::OptionalActions::Now,
                &raw,
            );
            *SAVED.lock().unwrap_or_else(|e| e.into_inner()) = Some(saved);
        }
        Self
    }

    fn leave() {
        if let Some(saved) = SAVED.lock().unwrap_or_else(|e| e.into_inner()).take() {
            let _ = rustix::termios::tcsetattr(
                std::io::stdin(),
                rustix::termios::OptionalActions::Now,
                &saved,
            );
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        Self::leave();
    }
}
