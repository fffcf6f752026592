//! What `./bench` and `benches/soak` put beside popgate: a POP3 client that
//! measures, and a link with a delay, a bandwidth and counters. Threads and
//! blocking sockets: sleeps are exact to about 0.1 ms, and it is cheaper than
//! whatever it measures. Each measurement is one JSON object on the standard
//! output.

mod client;
mod link;
mod work;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use client::Target;

#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Log in, STAT, UIDL, LIST, QUIT; times count from the connection.
    Open(Front),
    /// Log in, STAT, UIDL, QUIT, again and again.
    Poll {
        #[command(flatten)]
        front: Front,
        /// Clients at once, each with users of its own.
        #[arg(long, default_value_t = 1)]
        clients: usize,
        /// The end, in seconds.
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
        /// The end, in polls.
        #[arg(long, default_value_t = u64::MAX)]
        polls: u64,
        /// The least time between two polls of one user, in milliseconds.
        #[arg(long, default_value_t = 0)]
        every: u64,
    },
    /// Log in, RETR or TOP n 0 of each message, one after the other, QUIT.
    Fetch {
        #[command(flatten)]
        front: Front,
        /// Only so many messages.
        #[arg(long, default_value_t = usize::MAX)]
        messages: usize,
        /// TOP n 0 instead of RETR.
        #[arg(long)]
        top: bool,
        /// Commands in flight.
        #[arg(long, default_value_t = 1)]
        depth: usize,
        /// Sessions, one after the other.
        #[arg(long, default_value_t = 1)]
        sessions: usize,
    },
    /// Hold sessions until the standard input ends.
    Idle {
        #[command(flatten)]
        front: Front,
        /// How many.
        #[arg(long, default_value_t = 100)]
        sessions: usize,
    },
    /// Pass connections on, as over a long line.
    Link {
        /// Where clients connect.
        #[arg(long)]
        listen: SocketAddr,
        /// Where they get to.
        #[arg(long)]
        to: SocketAddr,
        /// Answers a line with what was counted; "cut" ends a connection first.
        #[arg(long)]
        control: SocketAddr,
        /// Round trip time, in milliseconds.
        #[arg(long, default_value_t = 0.0)]
        rtt: f64,
        /// Bandwidth of each direction of each connection, in Mbit/s; 0: any.
        #[arg(long, default_value_t = 0.0)]
        mbit: f64,
    },
}

/// The POP3 server, and who logs in.
#[derive(Args)]
struct Front {
    #[arg(long)]
    address: SocketAddr,
    /// TLS from the first octet; the certificate is not looked at.
    #[arg(long)]
    tls: bool,
    /// `{}` is a number with four digits.
    #[arg(long)]
    user: String,
    /// How many of them.
    #[arg(long, default_value_t = 1)]
    users: usize,
    /// The same for all of them.
    #[arg(long, default_value = "pw")]
    password: String,
}

impl Front {
    fn target(&self) -> anyhow::Result<Target> {
        Target::new(self.address, self.tls)
    }

    fn login(&self, target: &Target, number: usize) -> anyhow::Result<client::Client> {
        let user = self
            .user
            .replace("{}", &format!("{:04}", number % self.users));
        client::Client::login(target, &user, &self.password)
    }
}

fn main() -> ExitCode {
    let outcome = match Command::parse().what {
        What::Open(front) => work::open(&front),
        What::Poll {
            front,
            clients,
            seconds,
            polls,
            every,
        } => work::poll(
            &front,
            &work::Polls {
                clients,
                time: Duration::from_secs_f64(seconds),
                most: polls,
                every: Duration::from_millis(every),
            },
        ),
        What::Fetch {
            front,
            messages,
            top,
            depth,
            sessions,
        } => work::fetch(
            &front,
            &work::Fetches {
                messages,
                top,
                depth: depth.max(1),
                sessions: sessions.max(1),
            },
        ),
        What::Idle { front, sessions } => work::idle(&front, sessions),
        What::Link {
            listen,
            to,
            control,
            rtt,
            mbit,
        } => link::serve(listen, to, control, rtt, mbit),
    };
    match outcome {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "error": format!("{error:#}") }));
            ExitCode::FAILURE
        }
    }
}
