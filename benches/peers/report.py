"""The kept run: README.md with a table per model, raw.json with every time, a chart per model as SVG."""

import importlib.metadata
import json
import os
import shlex
import statistics
import subprocess
import sys
from html import escape
from pathlib import Path

import engines
from common import OURS, ROOT

BASE = "openvino"  # what ratios are relative to
COLOURS = {"gantry": "#c2410c", "int8": "#2563eb", "f32": "#94a3b8"}


def machine(given):
    """Where and with what this was measured."""
    git = lambda *words: subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True).stdout.strip()
    info = Path("/proc/cpuinfo").read_text()
    field = lambda name: next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith(name)), "")
    flags = set(field("flags").split())
    cpu = field("model name") or "unknown"
    packages = sorted({engine.package for engine in engines.ENGINES} | {"numpy"})
    version = [given.gantry, "--version"]
    words = ["python3", "benches/peers/compare.py", *(shorten(word) for word in sys.argv[1:])]
    return {
        "command": shlex.join(words),
        "cpu": f"{cpu}, family {field('cpu family')} model {field('model')}" if field("cpu family") else cpu,
        "cpu_short": cpu.replace("(R)", "").replace("Processor", "").replace("CPU", "").split("@")[0].strip(),
        "isa": [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if f in flags],
        "hidden": given.isa,
        "cores": os.cpu_count(),
        "core": given.core,
        "load_average": round(os.getloadavg()[0], 1),
        "commit": git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain") else ""),
        "versions": {
            "gantry-edge": subprocess.run(version, capture_output=True, text=True).stdout.split()[-1]
            if given.gantry.is_file() else "none",
            **{package: importlib.metadata.version(package) for package in packages},
        },
    }


def shorten(word):
    """A word of the command line without this machine's folders."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def title(key):
    """Name and precision."""
    return ("Gantry", "int8") if key == OURS else (engines.BY_KEY[key].title, engines.BY_KEY[key].precision)


def label(key):
    """`Engine precision, variant`."""
    engine, precision = title(key)
    name, *variant = engine.split(", ")
    return ", ".join([f"{name} {precision}", *variant])


def samples(result, clock):
    return [ms for round_ in result["rounds"] for ms in round_[clock]]


def summary(results):
    """Clock and per engine: median, p99, ratio to OpenVINO's int8."""
    timed = {key: r for key, r in results.items() if r.get("rounds") and "reason" not in r}
    # CPU time is the steadier clock on a machine with other work, but only if every engine tells it.
    clock = "cpu_ms" if all("cpu_ms" in r["rounds"][0] for r in timed.values()) else "wall_ms"
    rows = {}
    for key, result in timed.items():
        values = sorted(samples(result, clock))
        p99 = values[min(len(values) - 1, round(0.99 * (len(values) - 1)))]
        if "p99_ms" in result["rounds"][0]:
            p99 = statistics.median(r["p99_ms"] for r in result["rounds"])
        rows[key] = {"median": statistics.median(values), "p99": p99}
    for row in rows.values():
        row["ratio"] = row["median"] / rows[BASE]["median"] if BASE in rows else None
    return clock, rows


def table(results):
    clock, rows = summary(results)
    name = {"cpu_ms": "CPU time", "wall_ms": "wall time"}[clock]
    lines = [
        f"| engine | median ms ({name}) | p99 ms | ratio to OpenVINO int8 | load ms | peak MB | labels as ONNX Runtime's int8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in [*sorted(rows, key=lambda key: rows[key]["median"]), *(key for key in results if key not in rows)]:
        result = results[key]
        if key not in rows:
            lines.append(f"| {label(key)} | no number: {result['reason']} | | | | | |")
            continue
        row = rows[key]
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        agreement = f"{100 * result['agreement']:.2f} %" if "agreement" in result else ""
        bold = "**" if key == OURS else ""
        lines.append(f"| {bold}{label(key)}{bold} | {row['median']:.2f} | {row['p99']:.2f} | {ratio} | "
                     f"{result['load_ms']:.0f} | {result['peak_mb']:.0f} | {agreement} |")
    return "\n".join(lines)


def chart(name, results):
    """Medians as bars, p99 as a thin line behind each."""
    _, rows = summary(results)
    order = sorted(rows, key=lambda key: rows[key]["median"])
    left, width, bar, gap = 260, 360, 20, 10
    scale = width / max(max(row["median"] for row in rows.values()) * 1.05, 1e-9)
    height = 50 + len(order) * (bar + gap) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="760" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(name)}: ms per inference, one thread</text>',
    ]
    for number, key in enumerate(order):
        row, (_, precision) = rows[key], title(key)
        y, length = 42 + number * (bar + gap), row["median"] * scale
        tail = min(row["p99"] * scale, width)
        colour = COLOURS["gantry" if key == OURS else precision]
        ratio = f" (x {row['ratio']:.2f})" if row["ratio"] else ""
        parts += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(label(key))}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" fill="{colour}"/>',
            f'<line x1="{left + length:.1f}" x2="{left + tail:.1f}" y1="{y + bar / 2}" y2="{y + bar / 2}" stroke="{colour}"/>',
            f'<text x="{left + max(length, tail) + 6:.1f}" y="{y + 15}">{row["median"]:.2f}{ratio}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write(out, machine, results, given):
    out.mkdir(parents=True, exist_ok=True)
    hidden = f"; newer instructions than {machine['hidden']} hidden" if machine["hidden"] else ""
    lines = [
        f"# {out.name[:10]}, {machine['cores']} cores of an {machine['cpu']}: Gantry beside its peers",
        "",
        f"One core (number {machine['core']}), one thread, batch 1, one process per engine, {given.rounds} interleaved rounds of "
        f"{given.batch} inferences; branch {given.modality}{hidden}. Load average at the start: {machine['load_average']}.",
        "",
        f"```sh\n{machine['command']}\n```",
        "",
        f"Commit {machine['commit']}; instruction sets {', '.join(machine['isa']) or 'not told'}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + ".",
        "",
        "Every int8 engine runs the same weights, scales and biases; a label map is part of each inference, except where a "
        "note says otherwise. Load: reading, planning and the first inference, without starting Python and importing the "
        "library; Gantry: reading, planning and the self-test of all branches. Peak: of the process, less Python and numpy. "
        "Every time, wall and CPU, is in `raw.json`.",
    ]
    for number, (name, result) in enumerate(results.items()):
        notes = [f"* {label(key)}: {r['note']}" for key, r in result.items() if r.get("note")]
        lines += ["", f"## {name}", "", table(result)]
        if summary(result)[1]:
            (out / f"{name}.svg").write_text(chart(name, result))
            lines += ["", f"![{name}]({name}.svg)"]
        lines += ["", *notes]
    (out / "README.md").write_text("\n".join(lines) + "\n")
    (out / "raw.json").write_text(json.dumps({"machine": machine, "models": results}, indent=1) + "\n")
