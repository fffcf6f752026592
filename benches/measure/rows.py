"""The measurements over IMAP, each beside the other gateway (imapc) and beside the
mail server's own POP3, as far away as popgate's upstream (native)."""
import concurrent.futures, json, subprocess, time

from lab import IDLERS, POLLED, SIZES
from process import HOST, LOAD, Failed, load, memory, processor

POLLED_AFAR = 32
NO_REST = '[upstream_rest]\nlongest = "0s"'
# Between two polls of one user: long enough for IDLE to be under way.
PAUSE = 800


def at(port, user, users=1, tls=False):
    words = ["--address", f"{HOST}:{port}", "--user", user, "--users", users]
    return words + ["--tls"] if tls else words


def polls_afar(port, every=0):
    """p50 in ms of a client that polls users in turn, none of them for the first time."""
    users = at(port, "poll{}", POLLED_AFAR)
    load("poll", *users, "--clients", 8, "--polls", 2 * POLLED_AFAR, "--every", PAUSE, "--seconds", 120)
    time.sleep(PAUSE / 1000)
    # Only who comes at regular intervals is not asked for: that shows from the fourth time on.
    rounds = 12 if every else 2
    return 1000 * load("poll", *users, "--polls", rounds * POLLED_AFAR, "--every", every, "--seconds", 60)["p50"]


class Rows:
    """`chosen` are the rows' numbers; `curves`: the pictures are wanted, too; `also`
    is what can be done while others wait."""

    def __init__(self, lab, sheet, chosen, full, curves, also, say):
        self.also = also
        self.lab, self.sheet, self.full, self.say = lab, sheet, full, say
        self.chosen, self.curves = chosen, curves
        self.reps = 5 if full else 3
        self.by_rtt, self.by_size = {}, {}
        rtts = (0, 10, 20, 50) if curves else ()
        self.open_rtts = sorted({*rtts, *((20,) if "1" in chosen else ())})
        self.read_rtts = sorted({*rtts, *((20, 50) if "5" in chosen else ())})
        self.sizes = SIZES if curves else (10_000, 100_000) if "2" in chosen else ()

    def run(self):
        if users := self.needs():
            self.say("filling mailboxes")
            self.lab.fill(users)
            self.lab.dovecot()
            self.say("Dovecot makes its own indexes")
            self.lab.warm_up(users)
        self.peers_afar()
        for name, rows in (("1", self.opens_afar), ("2", self.opens_large), ("3", self.polls), ("4", self.rate),
                           ("5", self.reads), ("6", self.tops), ("7", self.large), ("8", self.idle), ("9", self.cpu)):
            if name in self.chosen or self.curves and name in "125":
                self.attempt(f"row {name}", rows)

    def needs(self):
        users = [f"open{rtt}" for rtt in self.open_rtts] + [f"read{rtt}" for rtt in self.read_rtts]
        users += [f"box{size}" for size in self.sizes]
        for rows, user in (("34", "poll"), ("6", "top20"), ("9", "read0"), ("7", "large"), ("8", "idle"), ("27", "box100")):
            if any(row in self.chosen for row in rows):
                users.append(user)
        return list(dict.fromkeys(users))

    def attempt(self, what, work, since=None):
        """One row's trouble is not the others'."""
        began = since or time.monotonic()
        try:
            work()
        except (Failed, OSError) as failed:
            self.sheet.failures.append(f"{what}: {failed}")
            self.say(f"{what} FAILED: {failed}")
        else:
            self.say(f"{what} ({time.monotonic() - began:.0f} s)")

    def put_curve(self, curve, place, whose, value):
        if self.curves:
            curve.setdefault(place, {}).setdefault(whose, []).append(value)

    # --- The others, as far as they wait rather than work: all at once -------------

    def peers_afar(self):
        lab, tasks = self.lab, []

        def opened(whose, port, user, rtt, reps):
            for _ in range(reps):
                if whose == "imapc":
                    lab.forget(user)
                seconds = load("open", *at(port, user))["stat"]
                if rtt == 20 and "1" in self.chosen:
                    self.sheet.put("1", whose, seconds)
                self.put_curve(self.by_rtt, ("open", rtt), whose, seconds)

        def read(whose, port, user, rtt):
            seconds = load("fetch", *at(port, user))["total"]
            if rtt in (20, 50) and "5" in self.chosen:
                self.sheet.put("5a" if rtt == 20 else "5b", whose, seconds)
            self.put_curve(self.by_rtt, ("read", rtt), whose, seconds)

        def tops(whose, port):
            self.sheet.put("6", whose, load("fetch", *at(port, "top20"), "--top")["total"])

        def polls(whose, port):
            p50 = polls_afar(port)
            for row in ("3a", "3b", "3c"):
                self.sheet.put(row, whose, p50)

        def task(what, function, *arguments):
            tasks.append((what, function, arguments))

        known = [f"read{rtt}" for rtt in self.read_rtts] + (["top20"] if "6" in self.chosen else [])
        # Sizes are in its cache before: what is measured is the reading, and the polling.
        for user in known:
            load("open", *at(lab.imapc(0)["POP3_PORT"], user))
        if "3" in self.chosen:
            load("poll", *at(lab.imapc(0)["POP3_PORT"], "poll{}", POLLED_AFAR), "--clients", 4, "--polls", POLLED_AFAR, "--seconds", 120)
        for rtt in self.open_rtts:
            task(f"open RTT {rtt}", opened, "imapc", lab.imapc(rtt)["POP3_PORT"], f"open{rtt}", rtt, 1)
            task(f"open RTT {rtt}", opened, "native", lab.native(rtt), f"open{rtt}", rtt, self.reps)
        for rtt in self.read_rtts:
            task(f"read RTT {rtt}", read, "imapc", lab.imapc(rtt)["POP3_PORT"], f"read{rtt}", rtt)
            task(f"read RTT {rtt}", read, "native", lab.native(rtt), f"read{rtt}", rtt)
        if "6" in self.chosen:
            task("TOP", tops, "imapc", lab.imapc(20)["POP3_PORT"])
            task("TOP", tops, "native", lab.native(20))
        if "3" in self.chosen:
            task("polls", polls, "imapc", lab.imapc(20)["POP3_PORT"])
            task("polls", polls, "native", lab.native(20))
        tasks += [(what, function, ()) for what, function in self.also]
        if not tasks:
            return
        self.say("the others, at a distance: up to a minute")
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
            running = {pool.submit(function, *arguments): ", ".join((what, *arguments[:1])) for what, function, arguments in tasks}
            for done in concurrent.futures.as_completed(running):
                self.attempt(running[done], done.result, began)

    # --- popgate, and the others where they work -----------------------------------

    def opens_afar(self):
        for rtt in self.open_rtts:
            for _ in range(self.reps):
                with self.lab.gateway(rtt) as gateway:
                    seconds = load("open", *at(gateway.port, f"open{rtt}"))["stat"]
                if rtt == 20 and "1" in self.chosen:
                    self.sheet.put("1", "popgate", seconds)
                self.put_curve(self.by_rtt, ("open", rtt), "popgate", seconds)

    def opens_large(self):
        for size in self.sizes:
            row = {10_000: "2.10k", 100_000: "2"}.get(size) if "2" in self.chosen else None

            def put(whose, seconds):
                if row:
                    self.sheet.put(row, whose, seconds)
                self.put_curve(self.by_size, size, whose, seconds)

            user = f"box{size}"
            for _ in range(self.reps):
                put("native", load("open", *at(self.lab.native(0), user))["list"])
                with self.lab.gateway() as gateway:
                    load("open", *at(gateway.port, "box100"))
                    base = memory(gateway.pid, "VmRSS")
                    put("popgate", load("open", *at(gateway.port, user))["list"])
                    if row:
                        self.sheet.put(row, "RSS over base", (memory(gateway.pid, "VmHWM") - base) / 1024)
            if self.full or size < 100_000:
                self.lab.forget(user)
                put("imapc", load("open", *at(self.lab.imapc(0)["POP3_PORT"], user))["list"])

    def polls(self):
        with self.lab.gateway(20, settings=NO_REST) as gateway:
            self.sheet.put("3a", "popgate", polls_afar(gateway.port))
        silent = self.lab.far(self.lab.server_without_idle()["IMAP_PORT"], 20)
        with self.lab.gateway_to(f"imap+plain://{HOST}:{silent}") as gateway:
            self.sheet.put("3b", "popgate", polls_afar(gateway.port))
        with self.lab.gateway(20) as gateway:
            self.sheet.put("3c", "popgate", polls_afar(gateway.port, PAUSE))

    def rate(self):
        def measure(whose, port, pid):
            users = at(port, "poll{}", POLLED)
            load("poll", *users, "--clients", 16, "--polls", POLLED, "--seconds", 60)
            before = processor(pid)
            result = load("poll", *users, "--clients", 64, "--seconds", 6 if self.full else 4)
            if whose != "native":  # There it is the upstream's.
                self.sheet.put("4a", whose, 1000 * (processor(pid) - before) / result["polls"])
            self.sheet.put("4b", whose, result["rate"])

        for _ in range(3 if self.full else 1):
            imapc = self.lab.imapc(0)
            measure("imapc", imapc["POP3_PORT"], imapc["pid"])
            measure("native", self.lab.native(0), self.lab.dovecot()["pid"])
            with self.lab.gateway() as gateway:
                measure("popgate", gateway.port, gateway.pid)

    def reads(self):
        for rtt in self.read_rtts:
            for _ in range(self.reps):
                with self.lab.gateway(rtt) as gateway:
                    load("open", *at(gateway.port, f"read{rtt}"))
                    seconds = load("fetch", *at(gateway.port, f"read{rtt}"))["total"]
                if rtt in (20, 50) and "5" in self.chosen:
                    self.sheet.put("5a" if rtt == 20 else "5b", "popgate", seconds)
                self.put_curve(self.by_rtt, ("read", rtt), "popgate", seconds)
                if seconds > 10:
                    break

    def tops(self):
        link = self.lab.link(self.lab.dovecot()["IMAP_PORT"], 20)
        for _ in range(self.reps):
            with self.lab.gateway(20) as gateway:
                load("open", *at(gateway.port, "top20"))
                before = link.ask()["down"]
                seconds = load("fetch", *at(gateway.port, "top20"), "--top")["total"]
                self.sheet.put("6", "popgate", seconds)
                self.sheet.put("6", "upstream", (link.ask()["down"] - before) / 1e6)
            if seconds > 10:
                break

    def large(self):
        def rate(whose, port):
            result = load("fetch", *at(port, "large"))
            self.sheet.put("7a", whose, result["octets"] / 1e6 / result["transfer"])

        for _ in range(self.reps):
            rate("imapc", self.lab.imapc(0)["POP3_PORT"])
            rate("native", self.lab.native(0))
            with self.lab.gateway() as gateway:
                load("open", *at(gateway.port, "box100"))
                base = memory(gateway.pid, "VmRSS")
                rate("popgate", gateway.port)
                self.sheet.put("7a", "memory over base", (memory(gateway.pid, "VmHWM") - base) / 1024)

        def first(whose, port):
            self.sheet.put("7b", whose, 1000 * load("fetch", *at(port, "large"))["first"])

        first("imapc", self.lab.imapc(20, 100)["POP3_PORT"])
        first("native", self.lab.native(20, 100))
        with self.lab.gateway(20, 100) as gateway:
            first("popgate", gateway.port)

    def idle(self):
        count = IDLERS if self.full else 200

        def measure(row, whose, port, pid, tls=False):
            load("open", *at(port, "idle0000", tls=tls))
            time.sleep(0.5)
            before = memory(pid, "Pss")
            command = [LOAD, "idle", *at(port, "idle{}", IDLERS, tls), "--sessions", count]
            held = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                result = json.loads(held.stdout.readline() or "{}")
                if result.get("held") != count:
                    raise Failed(f"{whose}: only {result.get('held')} sessions: {result.get('first_error')}")
                time.sleep(1)
                self.sheet.put(row, whose, (memory(pid, "Pss") - before) / count)
            finally:
                held.stdin.close()
                held.wait(60)

        imapc = self.lab.imapc(0)
        measure("8a", "imapc", imapc["POP3_PORT"], imapc["pid"])
        measure("8a", "native", self.lab.native(0), self.lab.dovecot()["pid"])
        with self.lab.gateway() as gateway:
            measure("8a", "popgate", gateway.port, gateway.pid)
        with self.lab.gateway(tls=True) as gateway:
            measure("8b", "popgate", gateway.port, gateway.pid, tls=True)

    def cpu(self):
        sessions = 10

        def measure(whose, port, pid):
            load("open", *at(port, "read0"))
            before = processor(pid)
            load("fetch", *at(port, "read0"), "--sessions", sessions)
            self.sheet.put("9", whose, (processor(pid) - before) / sessions)

        for _ in range(3 if self.full else 1):
            imapc = self.lab.imapc(0)
            measure("imapc", imapc["POP3_PORT"], imapc["pid"])
            measure("native", self.lab.native(0), self.lab.dovecot()["pid"])
            with self.lab.gateway() as gateway:
                measure("popgate", gateway.port, gateway.pid)
