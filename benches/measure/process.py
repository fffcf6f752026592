"""What programs use: processor, memory. And how they are started and ended."""
import contextlib, json, os, pathlib, socket, subprocess, time

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")).resolve()
POPGATE = TARGET / "release/popgate"
LOAD = TARGET / "release/examples/load"
HOST = "127.0.0.1"
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """What was to be measured did not work."""


def read(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def stat(pid):
    """The fields of /proc/PID/stat behind the name: state, parent, ..."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def tree(root):
    """A process and its living descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat(name)):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def processor(root):
    """Seconds of processor time of a tree, with those of children that ended in it."""
    total = 0
    for pid in tree(root):
        if fields := stat(pid):
            total += sum(map(int, fields[11:15]))
    return total / TICK


def memory(root, what):
    """kB of a tree, summed: VmRSS, VmHWM (the peak), Pss."""
    total = 0
    for pid in tree(root):
        text = read(f"/proc/{pid}/{'smaps_rollup' if what == 'Pss' else 'status'}")
        for line in text.splitlines():
            if line.startswith(what + ":"):
                total += int(line.split()[1])
    return total


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


GIVEN = set()


def free_ports(count):
    """Ports below the ephemeral range that nothing listens on, each given out once."""
    port, found = 10240 + os.getpid() % 2700 * 8, []
    while len(found) < count:
        port = 10240 + (port - 10240 + 1) % 21600
        if port in GIVEN:
            continue
        GIVEN.add(port)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind((HOST, port))
            found.append(port)
    return found


def listens(port):
    with contextlib.suppress(OSError):
        socket.create_connection((HOST, port), 1).close()
        return True
    return False


def start(command, port, log):
    """Starts a program and waits until it listens."""
    with open(log, "a") as output:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output)
    for _ in range(500):
        if listens(port):
            return process
        if process.poll() is not None:
            break
        time.sleep(0.02)
    stop(process)
    raise Failed(f"{' '.join(map(str, command))} does not listen: " + read(log)[-600:])


def stop(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def load(what, *words, limit=400):
    """Runs a measurement of the load generator."""
    command = [str(word) for word in (LOAD, what, *words)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        result = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{what}: nothing after {limit} s")
    except ValueError:
        raise Failed(f"{what}: {done.stderr[-300:]}")
    if result.get("error") or result.get("errors"):
        raise Failed(f"{what} {words}: {result.get('error') or result.get('first_error')}")
    return result
