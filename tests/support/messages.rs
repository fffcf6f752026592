//! Messages for mailboxes, each with CRLF line ends.

/// A plain message that says its number, of about `octets` octets.
pub fn plain(number: usize, octets: usize) -> Vec<u8> {
    let mut message = format!(
        "From: Sender {} <sender@example.org>\r\nTo: <me@example.org>\r\n\
         Subject: message {number}\r\nDate: Mon, 01 Jan 2024 00:00:00 +0000\r\n\
         Message-ID: <{number}@example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n",
        number % 97
    )
    .into_bytes();
    let mut line = 1;
    while message.len() < octets {
        let text = format!("line {line} of message {number} {}\r\n", "x".repeat(48));
        message.extend_from_slice(text.as_bytes());
        line += 1;
    }
    message
}

/// Messages at which framing, counting or character sets may go wrong.
pub fn awkward() -> Vec<Vec<u8>> {
    let header = "From: a@example.org\r\nTo: b@example.org\r\nSubject: awkward\r\n";
    let with = |body: &str| format!("{header}\r\n{body}").into_bytes();
    let mut all = vec![
        with("one line\r\n"),
        // Dot-stuffing (RFC 1939 §3).
        with(".\r\n..\r\n...\r\n.leading\r\n \r\n.\r\n"),
        // No line end at the end.
        with("no line end at the end"),
        with("a dot at the end, without a line end\r\n."),
        // Header only, with and without the blank line.
        with(""),
        header.as_bytes().to_vec(),
        // A body that is blank lines only.
        with("\r\n\r\n\r\n"),
        // UTF-8, and octets that are no UTF-8.
        with("Gr\u{fc}\u{df}e aus K\u{f6}ln, \u{4f60}\u{597d}, \u{1f4ec}\r\n"),
        // One long line.
        with(&format!("{}\r\n", "y".repeat(100_000))),
    ];
    let mut latin1 = with("");
    latin1.extend_from_slice(b"caf\xe9 \xff\xfe\x80\r\n");
    all.push(latin1);
    all
}
