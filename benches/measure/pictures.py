"""Pictures as plain SVG, readable on a light and on a dark ground."""
import math, statistics

LOOKS = {"popgate": ("#2a7de1", "popgate"), "native": ("#2f9e5b", "native POP3, as far away"),
         "imapc": ("#d9682b", "Dovecot with imapc")}
GREY = "#8a8f98"
WIDTH, HEIGHT = 760, 300  # Of a picture, without the names below
LEFT, RIGHT, TOP, BOTTOM = 62, 30, 46, 52


def time_text(value):
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


def text(x, y, words, anchor="middle", size=12, color=GREY, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}"{more}>{words}</text>'


def panel(left, width, title, axis, points, logarithmic):
    """One diagram; `points`: whose → [(x, seconds)]. Times are on a logarithmic scale."""
    xs = sorted({x for line in points.values() for x, _ in line})
    ys = [y for line in points.values() for _, y in line]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high = max(high, low + 1)
    scale = (lambda x: math.log10(x)) if logarithmic else float
    span = (scale(xs[-1]) - scale(xs[0])) or 1
    wide, tall = width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x, y):
        return (left + LEFT + wide * (scale(x) - scale(xs[0])) / span,
                TOP + tall * (high - math.log10(y)) / (high - low))

    parts = [text(left + LEFT + wide / 2, 24, title, size=14)]
    for power in range(low, high + 1):
        _, y = place(xs[0], 10.0**power)
        parts.append(f'<line x1="{left + LEFT}" y1="{y:.1f}" x2="{left + LEFT + wide}" y2="{y:.1f}" stroke="{GREY}" stroke-opacity=".3"/>')
        parts.append(text(left + LEFT - 8, y + 4, time_text(10.0**power), "end"))
    for x in xs:
        at, _ = place(x, 10.0**low)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP + tall}" x2="{at:.1f}" y2="{TOP + tall + 5}" stroke="{GREY}"/>')
        parts.append(text(at, TOP + tall + 20, f"{x:,}"))
    parts.append(text(left + LEFT + wide / 2, TOP + tall + 40, axis))
    for whose, line in points.items():
        color = LOOKS[whose][0]
        path = " ".join(f"{'L' if n else 'M'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(place(*point) for point in line))
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2.5" stroke-linejoin="round"/>')
        for point in line:
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"><title>{LOOKS[whose][1]}: {time_text(float(f"{point[1]:.3g}"))}</title></circle>')
    return parts


def lines(curve):
    """whose → [(x, median)] of x → whose → figures."""
    found = {}
    for x in sorted(curve):
        for whose in LOOKS:
            if figures := curve[x].get(whose):
                found.setdefault(whose, []).append((x, statistics.median(figures)))
    return found


def write(path, title, panels):
    width, height = WIDTH // len(panels), HEIGHT + 30
    parts = []
    for number, (heading, axis, points, logarithmic) in enumerate(panels):
        parts += panel(width * number, width, heading, axis, points, logarithmic)
    shown = [whose for whose in LOOKS if any(whose in points for _, _, points, _ in panels)]
    step = WIDTH / (len(shown) + 0.2)
    for number, whose in enumerate(shown):
        color, name = LOOKS[whose]
        x = 20 + step * number
        parts.append(f'<line x1="{x:.1f}" y1="{HEIGHT + 8}" x2="{x + 22:.1f}" y2="{HEIGHT + 8}" stroke="{color}" stroke-width="3"/>')
        parts.append(text(x + 28, HEIGHT + 12, name, "start"))
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
                    f'font-family="system-ui, sans-serif" role="img" aria-label="{title}">\n<title>{title}</title>\n'
                    + "\n".join(parts) + "\n</svg>\n")
    return title, path


def write_pictures(folder, by_rtt, by_size):
    """Time against round trip time, and against the size of a mailbox: (title, path) of each."""
    def of(what):
        return lines({rtt: values for (kind, rtt), values in by_rtt.items() if kind == what})

    axis = "round trip time to the mail server, ms"
    made = []
    if of("open") and of("read"):
        made.append(write(folder / "performance-rtt.svg", "Time against round trip time",
                          [("First opening of 1,000 messages", axis, of("open"), False),
                           ("RETR of 1,000 messages of 10 KB", axis, of("read"), False)]))
    if lines(by_size):
        made.append(write(folder / "performance-size.svg", "Time against the size of the mailbox",
                          [("First opening, to the end of LIST", "messages", lines(by_size), True)]))
    return made
