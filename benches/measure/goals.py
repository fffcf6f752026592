"""What is measured, and how fast it has to be."""
import dataclasses, statistics


@dataclasses.dataclass(frozen=True)
class Better:
    """So many times better than another one: faster, or less, or more a second."""
    than: str
    times: float

    def judge(self, row, values):
        if self.than not in values or "popgate" not in values:
            return None
        ratio = values[self.than] / max(values["popgate"], 1e-9)
        if row.higher:
            ratio = 1 / max(ratio, 1e-9)
        met = ratio >= self.times
        text = f"≥ {self.times:g}× {self.than}: {number(ratio)}×"
        return met, text, self.times / ratio


@dataclasses.dataclass(frozen=True)
class Within:
    """At most so many times what another one takes (or at least so much of it)."""
    of: str
    times: float

    def judge(self, row, values):
        if self.of not in values or "popgate" not in values:
            return None
        ratio = values["popgate"] / max(values[self.of], 1e-9)
        met = ratio >= self.times if row.higher else ratio <= self.times
        text = f"{'≥' if row.higher else '≤'} {self.times:g} of {self.of}: {number(ratio)}"
        return met, text, self.times / ratio if row.higher else ratio / self.times


@dataclasses.dataclass(frozen=True)
class AtMost:
    """A figure of popgate's own."""
    what: str
    most: float
    unit: str

    def judge(self, row, values):
        if self.what not in values:
            return None
        value = values[self.what]
        name = "" if self.what == "popgate" else self.what + " "
        text = f"{name}≤ {self.most:g} {self.unit}: {number(value)}"
        return value <= self.most, text, value / self.most


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    work: str
    unit: str
    goals: tuple = ()
    higher: bool = False  # More is better.


ROWS = (
    Row("1", "open cold, 1,000 messages, RTT 20 ms", "s", (Better("imapc", 100), Within("native", 1.5))),
    Row("2", "open cold to LIST, 100,000, RTT 0", "s",
        (Better("imapc", 150), Within("native", 1.5), AtMost("RSS over base", 8, "MB"))),
    Row("2.10k", "the same, 10,000", "s"),
    Row("3a", "warm poll p50, RTT 20: fresh connection", "ms", (Better("imapc", 1.7), Better("native", 2))),
    Row("3b", "… kept connection, asked once", "ms", (Better("imapc", 5), Better("native", 6))),
    Row("3c", "… kept connection, IDLE vouches", "ms", (Better("imapc", 20), Better("native", 20))),
    Row("4a", "CPU a poll, 64 clients, RTT 0", "ms", (Better("imapc", 10),)),
    Row("4b", "… polls a second", "/s", (Better("imapc", 3), Better("native", 1.5)), higher=True),
    Row("5a", "RETR 1,000 × 10 KB, one by one, RTT 20", "s", (Better("imapc", 60), Better("native", 60))),
    Row("5b", "… RTT 50", "s", (Better("imapc", 100), Better("native", 100))),
    Row("6", "TOP n 0 × 1,000, RTT 20", "s",
        (Better("imapc", 60), Better("native", 60), AtMost("upstream", 0.5, "MB"))),
    Row("7a", "RETR 50 MB, RTT 0", "MB/s",
        (Better("imapc", 1.5), Within("native", 0.8), AtMost("memory over base", 3, "MB")), higher=True),
    Row("7b", "… first octet at 100 Mbit/s, RTT 20", "ms", (AtMost("popgate", 40, "ms"),)),
    Row("8a", "idle session, PSS", "kB", (AtMost("popgate", 40, "kB"),)),
    Row("8b", "… with TLS in front", "kB", (AtMost("popgate", 80, "kB"),)),
    Row("9", "CPU of 1,000 × RETR 10 KB, RTT 0", "s", (AtMost("popgate", 0.02, "s"), Better("native", 2))),
    Row("10", "JMAP: open cold to LIST, 100,000, RTT 0", "s", (Within("floor", 1.3),)),
    Row("11", "JMAP: open warm, 1,000, requests", "", (AtMost("popgate", 1, ""),)),
    Row("12", "JMAP: RETR 1,000 × 10 KB, RTT 50", "s", (Within("floor", 2),)),
)
CONTENDERS = ("popgate", "imapc", "native", "floor")


def number(value):
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


class Sheet:
    """Figures, by row and by whose they are. Of several, the median counts."""

    def __init__(self):
        self.figures, self.failures = {}, []

    def put(self, row, whose, figure):
        self.figures.setdefault(row, {}).setdefault(whose, []).append(figure)

    def values(self, row):
        return {whose: statistics.median(f) for whose, f in self.figures.get(row.name, {}).items()}

    def rows(self):
        return [row for row in ROWS if row.name in self.figures]

    def verdicts(self, row):
        """(met, text, missed by) of each goal that could be judged."""
        judged = (goal.judge(row, self.values(row)) for goal in row.goals)
        return [verdict for verdict in judged if verdict]

    def cells(self, row):
        values, cells = self.values(row), []
        for whose in CONTENDERS:
            if whose not in values:
                cells.append("–")
            elif whose == "popgate" or "popgate" not in values:
                cells.append(f"{number(values[whose])} {row.unit}".strip())
            else:
                ratio = values[whose] / max(values["popgate"], 1e-9)
                ratio = 1 / max(ratio, 1e-9) if row.higher else ratio
                cells.append(f"{number(values[whose])} ({number(ratio)}×)")
        goals = []
        for met, text, missed in self.verdicts(row):
            goals.append(f"{text} ✓" if met else f"{text} MISSED by {number(missed)}×")
        return [row.name, row.work, *cells, "; ".join(goals) or "–"]

    def table(self):
        """Lines of text, in columns."""
        head = ["row", "work", *CONTENDERS, "goals"]
        lines = [head, *(self.cells(row) for row in self.rows())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]

    def markdown(self):
        lines = ["| row | work | " + " | ".join(CONTENDERS) + " | goals |", "|" + "---|" * (3 + len(CONTENDERS))]
        lines += ["| " + " | ".join(self.cells(row)) + " |" for row in self.rows()]
        return lines

    def json(self):
        return [{"row": row.name, "work": row.work, "unit": row.unit, "figures": self.figures[row.name],
                 "goals": [{"goal": text, "met": met, "missed_by": round(missed, 3)}
                           for met, text, missed in self.verdicts(row)]} for row in self.rows()]

    def missed(self):
        return [(row.name, text) for row in self.rows() for met, text, _ in self.verdicts(row) if not met]
