"""usage: ./bench [--full] [--rows 1,3,5] [--svg] [--docs] [--json FILE]

How fast popgate is, beside Dovecot as a gateway (imapc) and beside a native POP3
server that is as far away as popgate's upstream. Takes some minutes.

  --full       more repetitions, and 100,000 messages through imapc, too
  --rows LIST  only these rows of the table (1 to 9; 10 to 12 are over JMAP)
  --svg        also the pictures in docs/performance-*.svg
  --docs       also the table in docs/performance.md
  --json FILE  the figures (target/bench/TIME.json)

Exit status 0: all goals are met; 2: some are missed; 1: something failed.
"""
import argparse, datetime, json, os, pathlib, signal, sys, time

# Set for the interpreter where it is an unpacked one; not for what is measured.
os.environ.pop("LD_LIBRARY_PATH", None)

from document import machine, write_document
from goals import Sheet
from jmap import JmapRows
from lab import Lab
from pictures import write_pictures
from process import REPO, TARGET
from rows import Rows

ALL = tuple(str(number) for number in range(1, 13))


def arguments():
    parser = argparse.ArgumentParser(prog="./bench", description=__doc__.partition("\n\n")[2], usage=__doc__.splitlines()[0][7:],
                                     formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False)
    parser.add_argument("--help", "-h", action="store_true")
    for flag in ("--full", "--svg", "--docs"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--rows", type=lambda text: set(text.split(",")), default=set(ALL))
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    if options.help:
        print(__doc__.strip())
        sys.exit()
    if unknown := options.rows - set(ALL):
        parser.error(f"there are rows 1 to 12, not {', '.join(sorted(unknown))}")
    return options


def main():
    options = arguments()
    # Whoever ends it, what it started ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    sheet, lab = Sheet(), Lab()
    jmap = JmapRows(lab, sheet, options.rows, options.full)
    rows = Rows(lab, sheet, options.rows, options.full, options.svg or options.docs, jmap.before(), say)
    try:
        rows.run()
        jmap.run(rows.attempt)
    except (KeyboardInterrupt, SystemExit):
        rows.curves = False  # Pages are made of whole runs.
        sheet.failures.append("interrupted: what was measured so far is here")
    finally:
        lab.close()

    print("\n" + "\n".join(sheet.table()) + "\n")
    now = datetime.datetime.now(datetime.timezone.utc)
    path = options.json or TARGET / f"bench/{now:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = {"rtt": {f"{what} {rtt}": values for (what, rtt), values in rows.by_rtt.items()}, "size": rows.by_size}
    path.write_text(json.dumps({"at": now.isoformat(timespec="seconds"), "machine": machine(), "full": options.full,
                                "rows": sheet.json(), "curves": curves, "failures": sheet.failures}, indent=1) + "\n")
    print(f"figures: {path}")
    if rows.curves:
        pictures = write_pictures(REPO / "docs", rows.by_rtt, rows.by_size)
        for _, picture in pictures:
            print(f"picture: {picture}")
        if options.docs:
            print(f"table: {write_document(REPO / 'docs/performance.md', sheet, pictures, now)}")
    for failure in sheet.failures:
        print(f"FAILED {failure}")
    missed = sheet.missed()
    for row, text in missed:
        print(f"row {row} misses {text}")
    sys.exit(1 if sheet.failures else 2 if missed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
