//! The owner: the one thread that changes what an instance is doing.
//!
//! ```text
//!              pause          checkpoint
//! starting ──▶ running ◀────▶ paused          checkpoint: stands still for milliseconds,
//!                 │  unpause     │            stores while it runs on
//!                 ├──── suspend ─┤──▶ suspended (in the repository; the shim ends)
//!                 ├──── stop ────┤──▶ stopped   (disks in the repository; the shim ends)
//!                 └── QEMU ends ─┘──▶ stopped when the guest powered itself off, else failed
//! ```
//!
//! Between requests, checkpoints are taken by themselves where a policy says so ([`super::by_itself`]).
//!
//! *Invariants.* Requests are taken one after the other. A reply is sent only after what it says
//! is durable. When storing fails, a guest that ran goes on running, and nothing is given up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use api::{CheckpointPrint, Reply, Request};
use model::{CheckpointId, Generation, InstanceState};

use super::by_itself::ByItself;
use super::fence::Fence;
use super::running::Running;
use super::seal::Outcome;
use super::server::Message;
use super::shared::Shared;
use crate::auto::{Auto, Keep};
use crate::dir::HostDir;
use crate::failure::{Failure, Result};
use crate::parcel::GivenAt;
use crate::record::{UpdatePolicy, Why};

/// How an instance's time on this host ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything is in the repository: local volumes can go.
    Kept,
    /// It ended without a checkpoint: local volumes stay, for `resume` or `undo`.
    Failed,
    /// It was to be forgotten.
    Discarded,
}

/// Serves the queue until the instance ends.
pub fn serve(
    host: &HostDir,
    running: &mut Running,
    queue: &Receiver<Message>,
    shared: &Arc<Shared>,
) -> End {
    // Whether the owner paused the guest because a page cannot be had.
    let mut held = false;
    let mut by_itself = ByItself::new(running, shared);
    let mut fence = Fence::new(host.clone());
    loop {
        if let Some(end) = fence.step(running, shared) {
            return end;
        }
        if !held && let Some(end) = by_itself.step(running, shared) {
            return end;
        }
        let message = match queue.recv_timeout(by_itself.wait()) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return End::Failed,
        };
        match message {
            Message::Request(
                Request::Unpause | Request::Stop { force: false, .. },
                reply,
                mut span,
            ) if fence.refuses().is_some() => {
                let failure = fence.refuses().expect("it was asked just now");
                span.failed(failure.kind);
                drop(span);
                let _ = reply.send(Reply::Failed { error: failure.body() });
            }
            Message::Request(request, reply, mut span) => {
                let (told, answer) = channel();
                let on = span.enter();
                let end = request_step(running, request, &told, shared, &mut by_itself);
                drop(on);
                let answer = answer.try_recv();
                if let Ok(Reply::Failed { error }) = &answer {
                    span.failed(&error.kind);
                }
                // Before who waits goes on, and this process with it.
                drop(span);
                if let Ok(answer) = answer {
                    let _ = reply.send(answer);
                }
                if let Some(end) = end {
                    return end;
                }
            }
            Message::Stalled if !held && shared.is_stalled() && shared.state() == "running" => {
                // The CPU that waits for the page stands still by itself; this stops the others
                // and the guest's clock. When it cannot be stopped (the waiting CPU does not
                // answer), it is as good as stopped.
                held = running.guest().pause().is_ok();
            }
            Message::Recovered if held && !shared.is_stalled() => {
                held = false;
                if shared.state() == "running" {
                    let _ = running.guest().unpause();
                }
            }
            Message::Landed(taken) => {
                // What fails is done again before the next thing is stored.
                if let Err(failure) = running.landed(taken) {
                    eprintln!("what it came with is stored, and not yet its checkpoint: {failure}");
                }
            }
            Message::Stalled | Message::Recovered => {}
            Message::Ended(why) => return ended(running, &why, shared),
        }
    }
}

/// QEMU has ended by itself.
pub fn ended(running: &mut Running, why: &str, shared: &Shared) -> End {
    if running.guest().powered_off() {
        match running.stop_sealed() {
            Ok(_) => {
                shared.set_state(InstanceState::Stopped.as_str());
                return End::Kept;
            }
            Err(failure) => eprintln!("the guest powered off, but storing failed: {failure}"),
        }
    }
    eprintln!("QEMU has ended: {why}");
    shared.set_state(InstanceState::Failed.as_str());
    End::Failed
}

/// Does one request; says how it ended if it did.
pub fn request_step(
    running: &mut Running,
    request: Request,
    reply: &Sender<Reply>,
    shared: &Shared,
    by_itself: &mut ByItself,
) -> Option<End> {
    let (result, end) = match request {
        Request::Pause => (pause(running, shared), None),
        Request::Unpause => (unpause(running, shared), None),
        Request::Checkpoint { label, why } => {
            let why = Why::parse(&why).unwrap_or(Why::Checkpoint);
            let began = ambient::now();
            match running.checkpoint(label, why) {
                Ok(Outcome::Advanced(print)) => {
                    by_itself.taken(running, shared, began);
                    (Ok(Reply::Checkpoint(print)), None)
                }
                Ok(Outcome::Branched(print)) => fenced(running, &print, shared),
                Err(failure) => (Err(failure), None),
            }
        }
        Request::Suspend { label, branch } => match running.suspend(label, branch) {
            Ok(Outcome::Advanced(print)) => {
                shared.set_state(InstanceState::Suspended.as_str());
                (Ok(Reply::Checkpoint(print)), Some(End::Kept))
            }
            Ok(Outcome::Branched(print)) => fenced(running, &print, shared),
            Err(failure) => (Err(failure), None),
        },
        Request::Part { peer, address } => match running.part(&GivenAt { peer, address }) {
            Ok(Outcome::Advanced(print)) => {
                shared.set_state(InstanceState::Suspended.as_str());
                (Ok(Reply::Checkpoint(print)), Some(End::Kept))
            }
            Ok(Outcome::Branched(print)) => fenced(running, &print, shared),
            Err(failure) => (Err(failure), None),
        },
        Request::Stop { force, timeout_ms } => {
            match running.stop(force, Duration::from_millis(timeout_ms)) {
                Ok(checkpoint) => {
                    shared.set_state(InstanceState::Stopped.as_str());
                    (Ok(Reply::Done { checkpoint: Some(checkpoint) }), Some(End::Kept))
                }
                Err(failure) if running.guest().has_ended() => (Err(failure), Some(End::Failed)),
                Err(failure) => (Err(failure), None),
            }
        }
        Request::SetAuto { auto } => {
            let set = set_auto(running, auto.as_deref());
            by_itself.changed(running, shared);
            (set, None)
        }
        Request::SetKeepTaken { keep } => (set_keep_taken(running, keep.as_deref()), None),
        Request::Forget { generation, checkpoints } => {
            (forget(running, Generation(generation), &checkpoints), None)
        }
        Request::SetFollow { channel, policy } => (set_follow(running, channel, &policy), None),
        Request::Settle => {
            let settled = running.settle().map(|()| Reply::Done { checkpoint: None });
            (settled, None)
        }
        Request::Discard => (Ok(Reply::Done { checkpoint: None }), Some(End::Discarded)),
        Request::Screenshot { file_name } => (screenshot(running, &file_name), None),
        Request::Status
        | Request::AwaitReady { .. }
        | Request::AwaitStarted { .. }
        | Request::CallOff
        | Request::Exec { .. } => {
            (Err(Failure::new("internal", "a request that is not for the owner", "")), None)
        }
    };
    if end == Some(End::Discarded) {
        running.guest().kill();
    }
    let answer = result.unwrap_or_else(|failure| Reply::Failed { error: failure.body() });
    let _ = reply.send(answer);
    end
}

fn pause(running: &mut Running, shared: &Shared) -> Result<Reply> {
    if shared.state() == "paused" {
        return Err(Failure::new("state", "it is paused already", "`collective unpause NAME`"));
    }
    running.guest().pause()?;
    shared.set_state("paused");
    Ok(Reply::Done { checkpoint: None })
}

fn unpause(running: &mut Running, shared: &Shared) -> Result<Reply> {
    if shared.state() != "paused" {
        return Err(Failure::new(
            "state",
            "it is not paused",
            "`collective ps` shows what it does",
        ));
    }
    running.guest().unpause()?;
    shared.set_state("running");
    Ok(Reply::Done { checkpoint: None })
}

fn set_auto(running: &mut Running, auto: Option<&str>) -> Result<Reply> {
    let auto = auto
        .map(Auto::parse)
        .transpose()
        .map_err(|error| Failure::new("usage", error.to_string(), error.hint()))?;
    running.set_auto(auto)?;
    Ok(Reply::Done { checkpoint: None })
}

fn set_keep_taken(running: &mut Running, keep: Option<&str>) -> Result<Reply> {
    let keep = keep
        .map(Keep::parse)
        .transpose()
        .map_err(|error| Failure::new("usage", error.to_string(), error.hint()))?;
    running.set_keep_taken(keep)?;
    Ok(Reply::Done { checkpoint: None })
}

fn forget(running: &mut Running, decided_at: Generation, ids: &[String]) -> Result<Reply> {
    let ids: Option<Vec<CheckpointId>> = ids.iter().map(|id| id.parse().ok()).collect();
    let ids = ids.ok_or_else(|| Failure::new("internal", "no ids of checkpoints", ""))?;
    running.forget(decided_at, &ids)?;
    Ok(Reply::Done { checkpoint: None })
}

fn set_follow(running: &mut Running, channel: Option<String>, policy: &str) -> Result<Reply> {
    let policy = UpdatePolicy::parse(policy)
        .ok_or_else(|| Failure::new("internal", format!("no policy: {policy}"), ""))?;
    running.set_follow(channel, policy)?;
    Ok(Reply::Done { checkpoint: None })
}

fn screenshot(running: &mut Running, file_name: &str) -> Result<Reply> {
    let plain = file_name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    if !plain || file_name.starts_with('.') {
        return Err(Failure::new("internal", "not a file name", ""));
    }
    running.guest().screenshot(file_name)?;
    Ok(Reply::Done { checkpoint: None })
}

/// Another host has moved the head: this host may not go on, and its work is a branch now.
pub fn fenced(
    running: &mut Running,
    print: &CheckpointPrint,
    shared: &Shared,
) -> (Result<Reply>, Option<End>) {
    running.guest().kill();
    shared.set_state(InstanceState::Suspended.as_str());
    let failure = Failure::new(
        "fenced",
        format!(
            "it was taken over by another host; what was done here is kept as branch {}",
            &print.checkpoint[..12]
        ),
        format!("`collective fork NAME --at {}` goes on with it", &print.checkpoint[..12]),
    );
    (Err(failure), Some(End::Kept))
}
