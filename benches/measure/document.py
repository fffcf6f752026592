"""The table in docs/performance.md, with the machine it was made on."""
import os, platform, re, subprocess

from process import REPO, Failed, read

BEGIN, END = "<!-- made by ./bench --docs: begin -->", "<!-- made by ./bench --docs: end -->"


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=REPO).stdout.strip()
    except OSError:
        return ""


def machine():
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", read("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", read("/proc/meminfo"), re.M)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', read("/etc/os-release"), re.M)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024 / 1024, 1) if memory else None,
        "system": system[1] if system else platform.system(),
        "kernel": platform.release(),
        "rustc": said("rustc", "--version"),
        "popgate": said("git", "describe", "--always", "--dirty"),
    }


def write_document(path, sheet, pictures, now):
    m = machine()
    about = (f"{m['processor']}, {m['cores']} cores for everything (clients, gateway, upstream), "
             f"{m['memory_gib']} GiB; {m['system']}, Linux {m['kernel']}; {m['rustc']}; popgate {m['popgate']}; {now:%d %B %Y}.")
    made = "\n".join([BEGIN, "", about, "", *sheet.markdown(), "",
                      *(line for title, picture in pictures for line in (f"![{title}]({picture.name})", "")), END])
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise Failed(f"{path} has no place for the table")
    before, _, rest = text.partition(BEGIN)
    path.write_text(before + made + rest.partition(END)[2])
    return path
