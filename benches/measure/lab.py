"""The servers, links and gateways of one run, each started when first needed."""
import contextlib, imaplib, json, os, pathlib, shutil, socket, subprocess, tempfile, threading

import mail
from process import HOST, LOAD, POPGATE, REPO, Failed, free_ports, load, read, start, stop

PASSWORD = "pw"
POLLED = 64  # Users who are polled.
IDLERS = 500  # Users who hold sessions.
RTTS = (0, 10, 20, 50)  # Each has users openRTT, readRTT and topRTT, so that several can be measured at once.
SIZES = (100, 1000, 10_000, 100_000)  # Each has a user boxSIZE.

# Room for many sessions, and what makes Dovecot fast.
TUNING = """
default_vsz_limit = 2G
default_process_limit = 5000
default_client_limit = 5000
maildir_very_dirty_syncs = yes
pop3_no_flag_updates = yes
pop3_fast_size_lookups = yes
service imap-login {
  service_count = 0
  process_min_avail = 1
}
service pop3-login {
  service_count = 0
  process_min_avail = 1
}
service imap {
  service_count = 256
  process_limit = 4000
}
service pop3 {
  service_count = 256
  process_limit = 4000
}
service anvil {
  client_limit = 20000
}
service auth {
  client_limit = 20000
}
"""

IMAPC = """
mail_location = imapc:~/imapc
imapc_host = 127.0.0.1
imapc_port = {port}
imapc_ssl = no
imapc_user = %u
imapc_password = {password}
imapc_features = rfc822.size fetch-headers
imapc_max_idle_time = 29 mins
"""


class Link:
    """A proxy with a delay and a bandwidth, and counters."""

    def __init__(self, to, rtt, mbit, log):
        self.port, self.control = free_ports(2)
        self.process = start([LOAD, "link", "--listen", f"{HOST}:{self.port}", "--to", f"{HOST}:{to}",
                              "--control", f"{HOST}:{self.control}", "--rtt", rtt, "--mbit", mbit],
                             self.port, log)

    def ask(self, line="counts"):
        with socket.create_connection((HOST, self.control), 5) as s:
            s.sendall(line.encode() + b"\n")
            return json.loads(s.makefile().readline())


class Gateway:
    """A popgate."""

    def __init__(self, folder, upstream, settings="", tls=False):
        folder.mkdir()
        self.port, = free_ports(1)
        self.folder = folder
        front = f'pop3s = "{HOST}:{self.port}"' if tls else f'pop3 = "{HOST}:{self.port}"\nallow_cleartext = true'
        (folder / "popgate.toml").write_text(
            f'{front}\nupstream = "{upstream}"\nstate = "state"\n{settings}\n')
        # It ends with this program, even if that is killed.
        self.process = start(["setpriv", "--pdeathsig", "TERM", POPGATE, "serve", "--config", folder / "popgate.toml"], self.port, folder / "log")
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)


class Lab:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="popgate-bench-"))
        # Servers that root starts run as nobody.
        self.folder.chmod(0o755)
        self.servers, self.links, self.mailboxes, self.warm = {}, {}, set(), set()
        self.home = self.folder / "home"
        self.home.mkdir()
        self.gateways = 0
        self.users = self.all_users()
        self.lock = threading.RLock()

    # --- Mailboxes ---------------------------------------------------------------

    def fill(self, users):
        """Makes the mailboxes of these users."""
        for user in users:
            if user in self.mailboxes:
                continue
            self.mailboxes.add(user)
            if user == "poll":
                originals = mail.fill(self.home, "poll0000", 1000, 1500)
                for number in range(1, POLLED):
                    mail.copy(self.home, f"poll{number:04}", originals)
            elif user == "idle":
                originals = mail.fill(self.home, "idle0000", 100, 700)
                for number in range(1, IDLERS):
                    mail.copy(self.home, f"idle{number:04}", originals)
            elif user == "large":
                mail.Mailbox(self.home, user).write(mail.large(50_000_000))
            elif user.startswith(("read", "top")):
                mail.fill(self.home, user, 1000, 10_000)
            elif user.startswith("open"):
                mail.fill(self.home, user, 1000, 1500)
            else:
                mail.fill(self.home, user, int(user.removeprefix("box")), 600)

    def warm_up(self, users):
        """Dovecot's own indexes are made by whoever comes first."""
        address = ["--address", f"{HOST}:{self.dovecot()['POP3_PORT']}"]
        for user in users:
            if user in self.warm:
                continue
            self.warm.add(user)
            if user == "poll":
                load("poll", *address, "--user", "poll{}", "--users", POLLED, "--clients", 4, "--polls", 2 * POLLED, "--seconds", 120)
            elif user == "idle":
                load("poll", *address, "--user", "idle{}", "--users", IDLERS, "--clients", 4, "--polls", IDLERS, "--seconds", 120)
            else:
                load("open", *address, "--user", user)
                load("open", *address, "--user", user)

    # --- Servers -----------------------------------------------------------------

    def server(self, name, program, home=None, **environment):
        """Starts one of the servers of scripts/, and returns its ports and pid."""
        with self.lock:
            if name not in self.servers:
                folder = self.folder / name
                folder.mkdir(exist_ok=True)
                if home:
                    (folder / "home").symlink_to(home)
                done = subprocess.run([REPO / f"scripts/start-{program}", folder], capture_output=True, text=True,
                                      env={**os.environ, "OWNER": str(os.getpid()), **environment})
                if done.returncode:
                    raise Failed(f"{program} did not start: {done.stderr[-600:]}")
                self.servers[name] = dict(line.split("=", 1) for line in read(folder / "ports.env").split())
                self.servers[name] |= {"pid": int(read(folder / "pid").split()[0]), "folder": folder, "program": program}
            return self.servers[name]

    def user_file(self):
        return "\n".join(f"{name}:{{PLAIN}}{PASSWORD}" for name in self.users)

    @staticmethod
    def all_users():
        names = [f"poll{n:04}" for n in range(POLLED)] + [f"idle{n:04}" for n in range(IDLERS)]
        names += ["large"] + [f"{what}{rtt}" for what in ("open", "read", "top") for rtt in RTTS]
        names += [f"box{size}" for size in SIZES]
        return names

    def dovecot(self):
        """The upstream, and the native POP3 server. Mailboxes come first."""
        with self.lock:
            if "dovecot" not in self.servers:
                (self.folder / "dovecot").mkdir()
                # Given to the servers' user with the rest of the folder.
                self.home = self.home.rename(self.folder / "dovecot/home")
        return self.server("dovecot", "dovecot", USERS=self.user_file(), EXTRA=TUNING)

    def server_without_idle(self):
        """The same mailboxes, of a server that does not offer IDLE or NOTIFY."""
        session = imaplib.IMAP4(HOST, int(self.dovecot()["IMAP_PORT"]))
        session.login("poll0000", PASSWORD)
        offered = session.capability()[1][0].decode().split()
        session.logout()
        fewer = " ".join(word for word in offered if word not in ("IDLE", "NOTIFY"))
        return self.server("dovecot-no-idle", "dovecot", home=self.home, USERS=self.user_file(), EXTRA=TUNING, CAPABILITY=fewer)

    def imapc(self, rtt, mbit=0):
        """The other gateway, so far away from the upstream. All share one cache."""
        cache = self.folder / "imapc-cache"
        with self.lock:
            cache.mkdir(exist_ok=True)
            shutil.chown(cache, self.home.stat().st_uid, self.home.stat().st_gid)
            port = self.upstream(rtt, mbit)
            return self.server(f"imapc-{rtt}-{mbit}", "dovecot", home=cache, MAILBOXES="", USERS=self.user_file(),
                               EXTRA=TUNING + IMAPC.format(port=port, password=PASSWORD))

    def forget(self, user):
        """The other gateway's cache of a mailbox goes."""
        shutil.rmtree(self.folder / "imapc-cache" / user, ignore_errors=True)

    def cyrus(self):
        return self.server("cyrus", "cyrus")

    # --- Ways to them ------------------------------------------------------------

    def link(self, to, rtt=0, mbit=0):
        with self.lock:
            key = (to, rtt, mbit)
            if key not in self.links:
                self.links[key] = Link(to, rtt, mbit, self.folder / "links.log")
            return self.links[key]

    def far(self, port, rtt, mbit=0):
        """A port as it is reached from so far away."""
        return self.link(port, rtt, mbit).port if rtt or mbit else int(port)

    def upstream(self, rtt, mbit=0):
        return self.far(self.dovecot()["IMAP_PORT"], rtt, mbit)

    def native(self, rtt, mbit=0):
        return self.far(self.dovecot()["POP3_PORT"], rtt, mbit)

    def gateway(self, rtt=0, mbit=0, settings="", tls=False):
        """A popgate that has never seen the upstream, which is so far away."""
        return self.gateway_to(f"imap+plain://{HOST}:{self.upstream(rtt, mbit)}", settings, tls)

    def gateway_to(self, url, settings="", tls=False):
        self.gateways += 1
        return Gateway(self.folder / f"popgate-{self.gateways}", url, settings, tls)

    def close(self, keep=False):
        for link in self.links.values():
            with contextlib.suppress(OSError):
                stop(link.process)
        for server in reversed(self.servers.values()):
            subprocess.run([REPO / f"scripts/stop-{server['program']}", server["folder"]])
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
