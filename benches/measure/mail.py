"""Mailboxes, as files of a Maildir: 100,000 messages in seconds."""
import base64, os, random

# The same in each run.
RANDOM = random.Random(1939)
TEXT = base64.b64encode(RANDOM.randbytes(1 << 20)).decode()


def message(number, octets):
    """A message with LF line ends, of about so many octets."""
    head = (f"Return-Path: <sender{number}@example.org>\n"
            f"Received: from mx{number % 9}.example.org by mail.example.net; Mon, 2 Mar 2026 10:00:00 +0000\n"
            f"From: Sender {number} <sender{number}@example.org>\nTo: user@example.net\n"
            f"Subject: message {number}\nDate: Mon, 2 Mar 2026 10:00:00 +0000\n"
            f"Message-ID: <{number}.{octets}@example.org>\nMIME-Version: 1.0\n"
            "Content-Type: text/plain; charset=utf-8\n\n")
    body = ""
    if number % 5 == 0:  # What is stuffed with dots, and 8-bit text.
        body = ".\n..\n.a dot first\ncaf\u00e9 \u2014 \u2713\n"
    at = number * 7919 % (len(TEXT) // 2)
    lines = (TEXT[at + i : at + i + 76] for i in range(0, max(0, octets - len(head) - len(body)), 77))
    return (head + body + "\n".join(lines) + "\n").encode()


def large(octets):
    head = message(0, 600)
    block = message(1, 65_000).partition(b"\n\n")[2]
    return head + block * (octets // len(block))


class Mailbox:
    def __init__(self, home, user):
        self.maildir = home / user / "Maildir"
        self.count = 0
        for folder in ("cur", "new", "tmp"):
            (self.maildir / folder).mkdir(parents=True, exist_ok=True)

    def path(self, octets, wire):
        self.count += 1
        return self.maildir / "cur" / f"{1_700_000_000 + self.count}.M{self.count:06}.bench,S={octets},W={wire}:2,S"

    def write(self, body):
        """Returns what `link` takes."""
        octets, wire = len(body), len(body) + body.count(b"\n")
        path = self.path(octets, wire)
        path.write_bytes(body)
        return path, octets, wire

    def link(self, original):
        """The same message once more: a hard link."""
        os.link(original[0], self.path(*original[1:]))


def fill(home, user, count, octets):
    """`count` messages, 1,000 of them different. Returns these."""
    mailbox = Mailbox(home, user)
    originals = [mailbox.write(message(number, octets)) for number in range(1, min(count, 1000) + 1)]
    for number in range(len(originals), count):
        mailbox.link(originals[number % len(originals)])
    return originals


def copy(home, user, originals):
    mailbox = Mailbox(home, user)
    for original in originals:
        mailbox.link(original)
