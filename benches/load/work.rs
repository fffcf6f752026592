//! The measurements.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::Front;
use crate::client::Client;

/// Clients have little on their stacks, and there may be hundreds.
const STACK: usize = 256 << 10;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long each step of opening takes, from the connection on.
pub fn open(front: &Front) -> anyhow::Result<Value> {
    let target = front.target()?;
    let began = Instant::now();
    let seconds = || began.elapsed().as_secs_f64();
    let mut client = front.login(&target, 0)?;
    let login = seconds();
    let (messages, octets) = client.stat()?;
    let stat = seconds();
    let mut unique_ids = HashSet::new();
    let listed = client.listing("UIDL", |id| {
        unique_ids.insert(id.to_vec());
    })?;
    let uidl = seconds();
    let mut sum = 0;
    let sizes = client.listing("LIST", |size| {
        sum += std::str::from_utf8(size)
            .ok()
            .and_then(|size| size.parse::<u64>().ok())
            .unwrap_or(u64::MAX / 1_000_000);
    })?;
    let list = seconds();
    client.ask("QUIT")?;
    if [listed, unique_ids.len(), sizes] != [messages; 3] || sum != octets {
        bail!(
            "STAT says {messages} messages of {octets} octets, UIDL {listed} ({} different), \
             LIST {sizes} of {sum}",
            unique_ids.len()
        );
    }
    Ok(json!({
        "login": login, "stat": stat, "uidl": uidl, "list": list,
        "messages": messages, "octets": octets,
    }))
}

/// How polls are done.
pub struct Polls {
    pub clients: usize,
    pub time: Duration,
    pub most: u64,
    pub every: Duration,
}

fn poll_once(front: &Front, target: &crate::client::Target, user: usize) -> anyhow::Result<()> {
    let mut client = front.login(target, user)?;
    let (messages, _) = client.stat()?;
    let listed = client.listing("UIDL", |_| ())?;
    client.ask("QUIT")?;
    if listed != messages {
        bail!("UIDL lists {listed} of {messages} messages");
    }
    Ok(())
}

/// Polls a second, and how long one takes.
pub fn poll(front: &Front, polls: &Polls) -> anyhow::Result<Value> {
    let target = front.target()?;
    let began = Instant::now();
    let begun = AtomicU64::new(0);
    let times = Mutex::new(Vec::new());
    let errors = Mutex::new(Vec::new());
    thread::scope(|scope| -> anyhow::Result<()> {
        for first in 0..polls.clients {
            let (target, begun, times, errors) = (&target, &begun, &times, &errors);
            let work = move || {
                let mut mine = Vec::new();
                let mut last = vec![None::<Instant>; front.users];
                let mut user = first % front.users;
                while began.elapsed() < polls.time && begun.fetch_add(1, Relaxed) < polls.most {
                    if let Some(last) = last[user] {
                        thread::sleep(polls.every.saturating_sub(last.elapsed()));
                    }
                    let start = Instant::now();
                    match poll_once(front, target, user) {
                        Ok(()) => mine.push(start.elapsed().as_secs_f64()),
                        Err(error) => {
                            lock(errors).push(format!("{error:#}"));
                            thread::sleep(Duration::from_millis(20));
                        }
                    }
                    last[user] = Some(Instant::now());
                    user = (user + polls.clients) % front.users;
                }
                lock(times).extend(mine);
            };
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, work)?;
        }
        Ok(())
    })?;
    let wall = began.elapsed().as_secs_f64();
    let errors = lock(&errors);
    let mut times = lock(&times);
    times.sort_by(f64::total_cmp);
    let quantile = |of: f64| {
        let last = times.len().saturating_sub(1);
        times
            .get(((times.len() as f64 * of) as usize).min(last))
            .copied()
    };
    Ok(json!({
        "polls": times.len(), "errors": errors.len(), "first_error": errors.first(),
        "rate": times.len() as f64 / wall, "p50": quantile(0.5), "p99": quantile(0.99),
    }))
}

/// How messages are fetched.
pub struct Fetches {
    pub messages: usize,
    pub top: bool,
    pub depth: usize,
    pub sessions: usize,
}

/// How long it takes to fetch messages. Of several sessions, the last one's times.
pub fn fetch(front: &Front, fetches: &Fetches) -> anyhow::Result<Value> {
    let target = front.target()?;
    let mut last = Value::Null;
    for _ in 0..fetches.sessions {
        let began = Instant::now();
        let mut client = front.login(&target, 0)?;
        let (messages, octets) = client.stat()?;
        let ready = began.elapsed();
        let asked = messages.min(fetches.messages);
        let (received, first) = transfer(&mut client, asked, fetches)?;
        let transferred = began.elapsed() - ready;
        client.ask("QUIT")?;
        if asked == messages && !fetches.top && received != octets {
            bail!("STAT says {octets} octets, RETR sent {received}");
        }
        last = json!({
            "messages": asked, "octets": received,
            "ready": ready.as_secs_f64(), "first": first.as_secs_f64(),
            "transfer": transferred.as_secs_f64(), "total": began.elapsed().as_secs_f64(),
        });
    }
    Ok(last)
}

/// Returns the octets received, and how long the first of them took.
fn transfer(
    client: &mut Client,
    messages: usize,
    fetches: &Fetches,
) -> anyhow::Result<(u64, Duration)> {
    let began = Instant::now();
    let (mut sent, mut received) = (0, 0);
    let mut first = None;
    for number in 1..=messages {
        let mut batch = String::new();
        while sent < messages && sent + 1 < number + fetches.depth {
            sent += 1;
            batch += &match fetches.top {
                true => format!("TOP {sent} 0\r\n"),
                false => format!("RETR {sent}\r\n"),
            };
        }
        client.send(batch.as_bytes())?;
        client
            .answer()
            .with_context(|| format!("message {number}"))?;
        received += client.lines(|_| {
            first.get_or_insert_with(|| began.elapsed());
        })?;
    }
    Ok((received, first.unwrap_or_default()))
}

/// Sessions that do nothing.
pub fn idle(front: &Front, sessions: usize) -> anyhow::Result<Value> {
    const AT_ONCE: usize = 8;
    let target = front.target()?;
    let held = Mutex::new(Vec::new());
    let errors = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let (target, held, errors) = (&target, &held, &errors);
            scope.spawn(move || {
                for user in (first..sessions).step_by(AT_ONCE) {
                    let opened = front.login(target, user).and_then(|mut client| {
                        client.stat()?;
                        Ok(client)
                    });
                    match opened {
                        Ok(client) => lock(held).push(client),
                        Err(error) => lock(errors).push(format!("{error:#}")),
                    }
                }
            });
        }
    });
    let errors = lock(&errors);
    println!(
        "{}",
        json!({ "held": lock(&held).len(), "errors": errors.len(), "first_error": errors.first() })
    );
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(json!({ "ended": true }))
}
