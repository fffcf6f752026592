"""Sessions of the soak: what clients do, and what must hold of what they are told."""
import asyncio, hashlib, random, re, time

import mail
from process import HOST

PASSWORD = "pw"
# An upstream that is cut off while it removes messages may be done with it only later.
SETTLES = 30
# What is vouched for may be a moment old; this is more than that.
SHOWS = 60
LONGEST_ANSWER = 120


class Wrong(Exception):
    """Something that must never be."""


class BrokenOff(Exception):
    """The connection ended."""


class Refused(Exception):
    """-ERR"""


def wire(number, octets):
    """A message as clients get it."""
    return mail.message(number, octets).replace(b"\n", b"\r\n")


class Mailbox:
    """What one user's mailbox holds, as far as its owner knows."""

    def __init__(self, user):
        self.user = user
        self.stored = {}  # Message-ID → (number, octets, SHA-256, when it was there)
        self.unique_ids = {}  # Unique id → Message-ID
        self.known = {}  # Message-ID → unique id
        self.gone = set()  # DELE, and +OK to QUIT
        self.doubtful = {}  # DELE, and no +OK to QUIT → when

    def store(self, number, octets):
        body = wire(number, octets)
        found = re.search(rb"^Message-ID: (\S+)", body, re.M)[1].decode()
        self.stored[found] = [number, octets, hashlib.sha256(body).digest(), None]
        return found

    def arrived(self, message):
        self.stored[message][3] = time.monotonic()

    def check_listing(self, unique_ids, began):
        if len(set(unique_ids)) != len(unique_ids):
            raise Wrong(f"{self.user}: a unique id twice")
        shown = {self.unique_ids[u] for u in unique_ids if u in self.unique_ids}
        if back := shown & self.gone:
            raise Wrong(f"{self.user}: removed messages are back: {sorted(back)}")
        for message in list(self.doubtful):
            if message in self.known and message not in shown:
                del self.doubtful[message]
                self.gone.add(message)
            elif began - self.doubtful[message] > SETTLES:
                del self.doubtful[message]
        alive = set(self.stored) - self.gone - set(self.doubtful)
        if lost := {message for message in alive if message in self.known} - shown:
            raise Wrong(f"{self.user}: messages are lost: {sorted(lost)}")
        due = [m for m in alive if m not in self.known and self.stored[m][3] and began - self.stored[m][3] > SHOWS]
        new = len(unique_ids) - len(shown)
        if new < len(due):
            raise Wrong(f"{self.user}: {len(due)} messages arrived, {new} are listed")

    def check_message(self, unique_id, body, octets):
        found = re.search(rb"^Message-ID: (\S+)", body, re.M)
        message = found[1].decode() if found else None
        if message not in self.stored:
            raise Wrong(f"{self.user}: a message that nobody stored: {body[:300]}")
        if self.unique_ids.setdefault(unique_id, message) != message or self.known.setdefault(message, unique_id) != unique_id:
            raise Wrong(f"{self.user}: {unique_id} is {message}, but was {self.unique_ids[unique_id]}, {self.known[message]}")
        if octets is not None and octets != len(body):
            raise Wrong(f"{self.user}: LIST says {octets}, RETR sent {len(body)}")
        if octets is not None and hashlib.sha256(body).digest() != self.stored[message][2]:
            raise Wrong(f"{self.user}: {message} is not what was stored")
        return message

    def check_top(self, unique_id, lines, body):
        message = self.check_message(unique_id, body, None)
        number, octets, _, _ = self.stored[message]
        head, _, text = wire(number, octets).partition(b"\r\n\r\n")
        expected = head + b"\r\n\r\n" + b"".join(text.splitlines(keepends=True)[:lines])
        if body != expected:
            raise Wrong(f"{self.user}: TOP {lines} of {message} is wrong")


class Session:
    """A POP3 client, and the checks."""

    def __init__(self, port, mailbox, counts):
        self.port, self.mailbox, self.counts = port, mailbox, counts
        self.marked = set()

    async def line(self):
        try:
            line = await asyncio.wait_for(self.reader.readline(), LONGEST_ANSWER)
        except asyncio.TimeoutError:
            raise Wrong(f"{self.mailbox.user}: no answer in {LONGEST_ANSWER} s")
        except OSError:
            raise BrokenOff
        if not line.endswith(b"\r\n"):
            raise BrokenOff
        return line[:-2]

    async def answer(self):
        line = await self.line()
        if line.startswith(b"-ERR"):
            raise Refused(line.decode(errors="replace"))
        if not line.startswith(b"+OK"):
            raise Wrong(f"{self.mailbox.user}: neither +OK nor -ERR: {line[:200]}")
        return line.decode()

    async def ask(self, command):
        self.writer.write(command.encode() + b"\r\n")
        return await self.answer()

    async def lines(self):
        lines = []
        while (line := await self.line()) != b".":
            lines.append(line[1:] if line.startswith(b".") else line)
        return lines

    async def listing(self, command):
        await self.ask(command)
        rows = [line.decode().split(" ") for line in await self.lines()]
        return {int(number): value for number, value in rows}

    async def login(self, password=PASSWORD):
        self.reader, self.writer = await asyncio.open_connection(HOST, self.port, limit=1 << 22)
        await self.answer()
        await self.ask(f"USER {self.mailbox.user}")
        await self.ask(f"PASS {password}")

    async def open(self):
        began = time.monotonic()
        await self.login()
        self.counts["sessions"] += 1
        messages, octets = map(int, (await self.ask("STAT")).split()[1:3])
        self.unique_ids = await self.listing("UIDL")
        self.sizes = {n: int(size) for n, size in (await self.listing("LIST")).items()}
        if not len(self.unique_ids) == len(self.sizes) == messages or sum(self.sizes.values()) != octets:
            raise Wrong(f"{self.mailbox.user}: STAT, UIDL and LIST disagree")
        self.mailbox.check_listing(list(self.unique_ids.values()), began)

    async def retrieve(self, number):
        await self.ask(f"RETR {number}")
        body = b"".join(line + b"\r\n" for line in await self.lines())
        self.mailbox.check_message(self.unique_ids[number], body, self.sizes[number])
        self.counts["messages"] += 1
        self.counts["octets"] += len(body)

    async def top(self, number, lines):
        await self.ask(f"TOP {number} {lines}")
        body = b"".join(line + b"\r\n" for line in await self.lines())
        self.mailbox.check_top(self.unique_ids[number], lines, body)
        self.counts["tops"] += 1

    async def delete(self, number):
        """Only what is known: else nobody could say later what is gone."""
        if (unique_id := self.unique_ids[number]) in self.mailbox.unique_ids:
            await self.ask(f"DELE {number}")
            self.marked.add(self.mailbox.unique_ids[unique_id])

    async def quit(self):
        box = self.mailbox
        marked, self.marked = self.marked, set()
        box.doubtful |= {message: time.monotonic() for message in marked}
        await self.ask("QUIT")
        for message in marked:
            del box.doubtful[message]
        box.gone |= marked
        self.counts["removed"] += len(marked)

    async def close(self):
        writer = getattr(self, "writer", None)
        if writer:
            if random.random() < 0.5:
                writer.transport.abort()
            else:
                writer.close()


async def read_some(session):
    """In order, or not; all of it, or not."""
    numbers = list(session.unique_ids)
    if random.random() < 0.4:
        random.shuffle(numbers)
    if random.random() < 0.5:
        numbers = numbers[: random.randint(0, len(numbers))]
    tops = random.random() < 0.3
    for number in numbers:
        if tops:
            await session.top(number, random.choice((0, 0, 1, 10, 1000)))
        else:
            await session.retrieve(number)
            if random.random() < 0.1:
                await session.delete(number)


async def break_off(session):
    """In the middle of a message, or with marks and without QUIT."""
    if session.unique_ids:
        number = random.choice(list(session.unique_ids))
        await session.delete(number)
        if number in session.unique_ids and not session.marked:
            session.writer.write(f"RETR {number}\r\n".encode())
            await session.reader.read(random.randint(1, 2000))
    session.counts["broken off by clients"] += 1
    raise BrokenOff


async def one_session(port, mailbox, counts, crowded):
    """Returns whether it came to its end."""
    session = Session(port, mailbox, counts)
    try:
        if random.random() < 0.01:
            try:
                await session.login("wrong")
            except Refused as refused:
                if "[AUTH]" in str(refused):
                    counts["wrong passwords"] += 1
                    return
                raise
            raise Wrong(f"{mailbox.user}: a wrong password is accepted")
        await session.open()
        kind = random.random()
        if kind < 0.6:
            await read_some(session)
        elif kind < 0.7:
            await break_off(session)
        if len(session.unique_ids) > crowded:
            for number in random.sample(list(session.unique_ids), len(session.unique_ids) - crowded):
                if mailbox.unique_ids.get(session.unique_ids[number]) not in session.marked:
                    await session.delete(number)
        if session.marked and random.random() < 0.1:
            await session.ask("RSET")
            session.marked.clear()
        await session.quit()
    except Refused as refused:
        code = re.match(r"-ERR (\[[A-Z/-]+\])", str(refused))
        code = code[1] if code else str(refused)
        if code not in ("[SYS/TEMP]", "[IN-USE]"):
            raise Wrong(f"{mailbox.user}: {refused}")
        counts[code] += 1
    except BrokenOff:
        counts["broken off"] += 1
    finally:
        await session.close()


async def last_look(port, mailbox, counts):
    """Reads all of it. What a cut removed is settled by now."""
    for _ in range(20):
        session = Session(port, mailbox, counts)
        try:
            await session.open()
            for number in session.unique_ids:
                await session.retrieve(number)
            await session.quit()
            return {mailbox.unique_ids[u] for u in session.unique_ids.values()}
        except (Refused, BrokenOff):
            await asyncio.sleep(1)
        finally:
            await session.close()
    raise Wrong(f"{mailbox.user}: cannot be opened any more")
