//! Questions on a terminal that are answered by yes or no.

use std::io::{self, IsTerminal, Write};

/// Whether there is anybody to ask.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; whatever is not a yes is a no.
pub async fn confirmed(question: &'static str) -> bool {
    let answer = tokio::task::spawn_blocking(move || {
        write!(io::stderr(), "{question}")?;
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    match answer.await {
        Ok(Ok(answer)) => matches!(answer.trim(), "y" | "Y" | "yes"),
        _ => false,
    }
}
