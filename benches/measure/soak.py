"""usage: benches/soak [--seconds N] [--clients N] [--seed N] [--keep]

popgate under load for ten minutes (N seconds): 64 clients that poll, read, in order or
not, all of it or not, break off, delete; mail that arrives meanwhile; connections to
the mail server that are cut off. Every octet that a client gets is compared with what
was stored; no unique id may change; nothing may be lost or removed that was not
DELEd before a QUIT; memory and open descriptors must stay flat.

Exit status 0: all of it holds. --keep leaves the folder with logs where it is.
"""
import argparse, asyncio, collections, hashlib, imaplib, os, pathlib, random, shutil, signal, statistics, sys, time, urllib.request

os.environ.pop("LD_LIBRARY_PATH", None)

import mail
from lab import TUNING, Lab
from process import HOST, descriptors, free_ports, memory, read
from soak_session import PASSWORD, Mailbox, Wrong, last_look, one_session, wire

FIRST = 20  # Messages in a mailbox at the start.
CROWDED = 40  # With more than these, clients delete.
SIZES = (300, 2000, 2000, 10_000, 10_000, 60_000, 300_000)


class Soak:
    def __init__(self, lab, options):
        self.lab, self.options = lab, options
        # Fewer mailboxes than clients: some must be refused.
        self.mailboxes = [Mailbox(f"soak{n:04}") for n in range(max(1, options.clients * 3 // 4))]
        self.counts, self.wrong = collections.Counter(), []
        self.samples = []  # (time, kB, descriptors)
        self.number = 0

    def prepare(self):
        for mailbox in self.mailboxes:
            maildir = mail.Mailbox(self.lab.home, mailbox.user)
            for _ in range(FIRST):
                self.number += 1
                octets = random.choice(SIZES)
                message = mailbox.store(self.number, octets)
                maildir.write(mail.message(self.number, octets))
                mailbox.arrived(message)
        self.lab.users = [mailbox.user for mailbox in self.mailboxes]
        dovecot = self.lab.dovecot()
        self.imap = int(dovecot["IMAP_PORT"])
        self.link = self.lab.link(self.imap, 2)
        self.http, = free_ports(1)
        connections = f"[limits]\nconnections = {4 * self.options.clients + 100}"
        self.gateway = self.lab.gateway_to(f"imap+plain://{HOST}:{self.link.port}", f'http = "{HOST}:{self.http}"\n{connections}')

    async def client(self, number):
        while time.monotonic() < self.end and not self.wrong:
            mailbox = random.choice(self.mailboxes)
            try:
                await one_session(self.gateway.port, mailbox, self.counts, CROWDED)
            except Wrong as wrong:
                self.wrong.append(str(wrong))
            await asyncio.sleep(random.expovariate(5))

    def maildir_delivery(self, mailbox, number, octets):
        maildir = self.lab.home / mailbox.user / "Maildir"
        owner = maildir.stat()
        name = f"{time.time():.6f}.M{number}.soak"
        path = maildir / "tmp" / name
        path.write_bytes(mail.message(number, octets))
        if os.getuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
        path.rename(maildir / "new" / name)

    def append(self, mailbox, number, octets):
        session = imaplib.IMAP4(HOST, self.imap)
        session.login(mailbox.user, PASSWORD)
        session.append("INBOX", None, None, wire(number, octets))
        session.logout()

    async def deliver(self):
        while time.monotonic() < self.end and not self.wrong:
            mailbox, octets = random.choice(self.mailboxes), random.choice(SIZES)
            self.number += 1
            message = mailbox.store(self.number, octets)
            way = random.choice((self.maildir_delivery, self.append))
            await asyncio.to_thread(way, mailbox, self.number, octets)
            mailbox.arrived(message)
            self.counts["arrived"] += 1
            await asyncio.sleep(random.expovariate(8))

    async def cut(self):
        while time.monotonic() < self.end and not self.wrong:
            await asyncio.sleep(random.expovariate(1))
            self.counts["cut"] = (await asyncio.to_thread(self.link.ask, "cut"))["cut"]

    async def sample(self):
        while time.monotonic() < self.end and not self.wrong:
            self.samples.append((time.monotonic() - self.began, memory(self.gateway.pid, "VmRSS"), descriptors(self.gateway.pid)))
            if self.gateway.process.poll() is not None:
                self.wrong.append("popgate ended: " + read(self.gateway.folder / "log")[-600:])
            if int(time.monotonic() - self.began) // 30 > (self.samples[-2][0] // 30 if len(self.samples) > 1 else 0):
                self.say()
            await asyncio.sleep(1)

    def say(self):
        at, kilobytes, files = self.samples[-1]
        print(f"{at:5.0f} s  {kilobytes / 1024:.1f} MB, {files} descriptors; "
              + ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())), file=sys.stderr, flush=True)

    async def run(self):
        self.began = time.monotonic()
        self.end = self.began + self.options.seconds
        await asyncio.gather(*(self.client(n) for n in range(self.options.clients)), self.deliver(), self.cut(), self.sample())
        if not self.wrong:
            try:
                for mailbox in self.mailboxes:
                    self.compare(mailbox, await last_look(self.gateway.port, mailbox, self.counts))
            except Wrong as wrong:
                self.wrong.append(str(wrong))

    def compare(self, mailbox, shown):
        """What POP3 shows is what lies in the mailbox; what was removed is in the Trash; each message is in one of them."""
        def folder(path):
            found = collections.Counter()
            for name in ("cur", "new"):
                for file in (path / name).iterdir() if (path / name).is_dir() else ():
                    body = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                    found[hashlib.sha256(body).digest()] += 1
            return found

        maildir = self.lab.home / mailbox.user / "Maildir"
        inbox, trash = folder(maildir), folder(maildir / ".Trash")
        digests = lambda messages: {mailbox.stored[message][2] for message in messages}
        if set(inbox) != digests(shown):
            raise Wrong(f"{mailbox.user}: POP3 shows {len(shown)} messages, {len(inbox)} are in the mailbox")
        if set(inbox) | set(trash) != digests(mailbox.stored) or set(inbox) & set(trash):
            raise Wrong(f"{mailbox.user}: {len(mailbox.stored)} messages were stored; {len(inbox)} are in INBOX, {len(trash)} in Trash, "
                        f"{len(set(inbox) & set(trash))} in both")
        if not digests(mailbox.gone) <= set(trash) or not set(trash) <= digests(mailbox.gone | set(mailbox.doubtful)):
            raise Wrong(f"{mailbox.user}: the Trash does not hold what was removed")
        if twice := [count for count in (inbox | trash).values() if count > 1]:
            self.counts["twice"] += len(twice)

    def flat(self):
        """The last third beside the first, after a while to get warm."""
        warm = [sample for sample in self.samples if sample[0] > self.options.seconds / 10]
        third = len(warm) // 3
        if third < 3:
            raise Wrong("too short to see whether memory stays flat")
        first, last = warm[:third], warm[-third:]
        median = lambda samples, what: statistics.median(sample[what] for sample in samples)
        rss, files = (median(first, 1), median(last, 1)), (median(first, 2), median(last, 2))
        text = f"RSS {rss[0] / 1024:.1f} → {rss[1] / 1024:.1f} MB, descriptors {files[0]:.0f} → {files[1]:.0f} (first → last third)"
        if rss[1] > 1.15 * rss[0] + 1024 or files[1] > 1.15 * files[0] + 10:
            raise Wrong(f"not flat: {text}")
        return text

    def metrics(self):
        with urllib.request.urlopen(f"http://{HOST}:{self.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        if float(values['popgate_sessions_total{reason="internal"}']):
            raise Wrong("popgate had an internal error")
        return {name: value for name, value in values.items() if name.startswith(("popgate_openings", "popgate_read_ahead", "popgate_upstream_errors"))}


def main():
    parser = argparse.ArgumentParser(prog="benches/soak", description=__doc__.partition("\n\n")[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    random.seed(options.seed)
    print(f"seed {options.seed}", file=sys.stderr)
    lab = Lab()
    soak = Soak(lab, options)
    summary = []
    try:
        soak.prepare()
        with soak.gateway:
            asyncio.run(soak.run())
            if not soak.wrong:
                try:
                    summary += [f"{name} {value}" for name, value in soak.metrics().items()]
                    summary.append(soak.flat())
                except Wrong as wrong:
                    soak.wrong.append(str(wrong))
    finally:
        if options.keep:
            print(f"kept: {lab.folder}")
        lab.close(keep=options.keep)
    print("\n".join(summary))
    for wrong in soak.wrong:
        print(f"WRONG {wrong}")
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(soak.counts.items()))
    print(f"soak of {options.seconds:.0f} s, {options.clients} clients, seed {options.seed}: {'FAILED' if soak.wrong else 'all of it holds'}; {counts}")
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
