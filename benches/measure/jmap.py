"""The measurements over JMAP, of a Cyrus, beside its own POP3 server (native) and
beside a client that sends nothing but the requests that the work is made of (floor)."""
import base64, http.client, json, subprocess, threading, time
import concurrent.futures

from process import HOST, REPO, Failed, load
from rows import at

CORE_AND_MAIL = ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"]


class Raw:
    """A client that keeps a connection for each thread."""

    def __init__(self, port, user):
        self.port, self.user = port, user
        token = base64.b64encode(f"{user}:pw-{user}".encode()).decode()
        self.headers = {"Authorization": "Basic " + token}
        self.thread = threading.local()
        session = json.loads(self.ask("GET", "/jmap/"))
        self.account = next(iter(session["accounts"]))
        self.limits = session["capabilities"]["urn:ietf:params:jmap:core"]
        self.api, self.download = session["apiUrl"], session["downloadUrl"]

    def ask(self, method, path, body=None):
        if not hasattr(self.thread, "connection"):
            self.thread.connection = http.client.HTTPConnection(HOST, self.port, timeout=120)
        headers = {**self.headers, **({"Content-Type": "application/json"} if body else {})}
        self.thread.connection.request(method, path, body, headers)
        answer = self.thread.connection.getresponse()
        octets = answer.read()
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status} {octets[:200]}")
        return octets

    def call(self, name, arguments):
        """The answer as octets: what decoding costs is not the server's."""
        request = {"using": CORE_AND_MAIL, "methodCalls": [[name, {"accountId": self.account, **arguments}, "0"]]}
        return self.ask("POST", self.api, json.dumps(request))

    def inbox(self):
        answer = json.loads(self.call("Mailbox/get", {"properties": ["id", "role"]}))
        return next(m["id"] for m in answer["methodResponses"][0][1]["list"] if m["role"] == "inbox")

    def ids(self):
        query = {"filter": {"inMailbox": self.inbox()}, "calculateTotal": True, "limit": 1_000_000,
                 "sort": [{"property": "receivedAt", "isAscending": True}]}
        answer = json.loads(self.call("Email/query", query))["methodResponses"][0][1]
        if len(answer["ids"]) != answer["total"]:
            raise Failed("Email/query does not give all ids at once")
        return answer["ids"]

    def each(self, work, things, connections):
        with concurrent.futures.ThreadPoolExecutor(connections) as pool:
            return list(pool.map(work, things))

    def list(self, properties=("id", "blobId", "size", "receivedAt")):
        most = self.limits["maxObjectsInGet"]
        return self.each(lambda page: self.call("Email/get", {"ids": page, "properties": properties}),
                         batched(self.ids(), most), self.limits["maxConcurrentRequests"])

    def blobs(self):
        answers = self.list(["id", "blobId"])
        return [email["blobId"] for answer in answers for email in json.loads(answer)["methodResponses"][0][1]["list"]]

    def fetch(self, blobs, connections):
        def one(blob):
            path = self.download
            for name, value in (("accountId", self.account), ("blobId", blob), ("name", "m"), ("type", "message%2Frfc822")):
                path = path.replace("{" + name + "}", value)
            return len(self.ask("GET", path))

        return sum(self.each(one, blobs, connections))


def batched(things, most):
    return (things[first : first + most] for first in range(0, len(things), most))


def seconds(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


class JmapRows:
    def __init__(self, lab, sheet, chosen, full):
        self.lab, self.sheet, self.chosen = lab, sheet, chosen
        self.reps = 3 if full else 2

    def before(self):
        """What can be done while others wait: (what, work)."""
        return [("filling Cyrus", self.prepare)] if {"10", "11", "12"} & self.chosen else []

    def prepare(self):
        cyrus = self.lab.cyrus()
        self.near = self.lab.link(int(cyrus["HTTP_PORT"]))
        self.pop3 = int(cyrus["POP3_PORT"])
        if {"11", "12"} & self.chosen:
            self.fill(cyrus["folder"], "bob", 1000, 10_000)
        if "12" in self.chosen:
            native = self.lab.link(self.pop3, 50)
            self.sheet.put("12", "native", self.load("fetch", native.port, "bob")["total"])
        if "10" in self.chosen:
            self.fill(cyrus["folder"], "carol", 100_000, 500)

    def run(self, attempt):
        for row, work in (("10", self.open_cold), ("11", self.open_warm), ("12", self.read)):
            if row in self.chosen:
                attempt(f"row {row}", work)

    def fill(self, folder, user, count, octets):
        done = subprocess.run([REPO / "scripts/fill-cyrus", folder, user, str(count), str(octets)], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"fill-cyrus: {done.stderr[-300:]}")
        self.open(self.pop3, user)

    def gateway(self, link):
        return self.lab.gateway_to(f"http://{HOST}:{link.port}/.well-known/jmap")

    def load(self, what, port, user):
        return load(what, *at(port, user), "--password", f"pw-{user}")

    def open(self, port, user):
        return self.load("open", port, user)["list"]

    def open_cold(self):
        for _ in range(self.reps):
            self.sheet.put("10", "native", self.open(self.pop3, "carol"))
            self.sheet.put("10", "floor", seconds(lambda: Raw(self.near.port, "carol").list()))
            with self.gateway(self.near) as gateway:
                self.sheet.put("10", "popgate", self.open(gateway.port, "carol"))

    def open_warm(self):
        with self.gateway(self.near) as gateway:
            self.open(gateway.port, "bob")
            for _ in range(3):
                # What a session that ended leaves behind is not the next one's.
                time.sleep(0.3)
                before = self.near.ask()["requests"]
                self.open(gateway.port, "bob")
                time.sleep(0.3)
                self.sheet.put("11", "popgate", self.near.ask()["requests"] - before)

    def read(self):
        far = self.lab.link(int(self.lab.cyrus()["HTTP_PORT"]), 50)
        with self.gateway(far) as gateway:
            self.open(gateway.port, "bob")
            self.sheet.put("12", "popgate", self.load("fetch", gateway.port, "bob")["total"])
        raw = Raw(far.port, "bob")
        blobs = raw.blobs()
        # As many connections as popgate took, and as the server calls for.
        connections = max(far.ask()["most_open"], raw.limits["maxConcurrentRequests"])
        self.sheet.put("12", "floor", seconds(lambda: raw.fetch(blobs, connections)))
        self.sheet.put("12", "connections of the floor", connections)
