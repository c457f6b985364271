#!/usr/bin/env python3
"""Times the pix2pix training step of `gan` and of a PyTorch program on the CPU, alternately, and writes a record.

    python3 bench_cpu_step.py --gan target/release/gan --peer torch_peer.py --peer-python python --out RECORD

writes RECORD.json (everything) and RECORD.md (a table). Needs only Python's standard library; run it in the root of
the repository. The PyTorch program must take the options shown in README.md and write JSON with `times_ms`.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time


def output(command):
    """What a command prints, or None where it does not work."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def processor():
    """Model and instruction sets that matter."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    flags = set(fields.get("flags", "").split())
    sets = [f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile") if f in flags]
    return fields.get("model name", platform.machine()), sets


def memory_gib():
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        return None


def load():
    """Processes that compute at this moment, by the one-minute average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def run(command, result, quiet_for):
    """Runs a program that writes JSON to `result`; returns that with what the machine was doing."""
    time.sleep(quiet_for)
    before, began = load(), time.time()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\nfailed with {done.returncode}:\n{done.stdout}{done.stderr}")
    values = json.loads(pathlib.Path(result).read_text())
    return {"load_before": before, "seconds": round(time.time() - began, 1), "result": values}


def times(values):
    """The milliseconds of every timed step."""
    for key in ("ms", "times_ms", "ms_all"):
        if isinstance(values.get(key), list):
            return values[key]
    sys.exit(f"no list of times in {sorted(values)}; the program must write `times_ms`")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gan", required=True, help="the gan binary (release build)")
    p.add_argument("--peer", required=True, help="the PyTorch program (torch_peer.py)")
    p.add_argument("--peer-python", default=sys.executable, help="a Python that has PyTorch")
    p.add_argument("--peer-mode", default="eager", help="the PyTorch program's --mode")
    p.add_argument("--recipe", default="recipes/mr2pet.toml", help="the recipe of gan bench")
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=5, help="timed steps of a round")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--pause", type=float, default=2, help="seconds before each program")
    p.add_argument("--out", required=True, help="the record's name without an ending")
    a = p.parse_args()
    if min(a.size, a.batch, a.threads, a.steps, a.rounds) < 1:
        p.error("size, batch, threads, steps and rounds must be at least 1")
    return a


def main():
    a = arguments()
    folder = tempfile.mkdtemp(prefix="gan-bench-")
    files = {name: os.path.join(folder, f"{name}.json") for name in ("gan", "pytorch")}
    paper = ["model.generator.downs=8", "model.generator.ngf=64", "model.discriminator.layers=3",
             "model.discriminator.ndf=64", f"train.batch={a.batch}"]
    commands = {
        "gan": [a.gan, "bench", "step", a.recipe, "--size", str(a.size), "--steps", str(a.steps), "--device", "cpu",
                "--threads", str(a.threads), "--json", files["gan"]] + [w for s in paper for w in ("--set", s)],
        "pytorch": [a.peer_python, a.peer, "--recipe", "pix2pix", "--size", str(a.size), "--batch", str(a.batch),
                    "--dtype", "f32", "--mode", a.peer_mode, "--device", "cpu", "--threads", str(a.threads),
                    "--steps", str(a.steps), "--warmup", "1", "--json", files["pytorch"]],
    }
    rounds = []
    for i in range(a.rounds):
        # The first place changes hands, so that neither always meets a machine that the other has warmed.
        order = ["gan", "pytorch"] if i % 2 == 0 else ["pytorch", "gan"]
        entry = {"order": order}
        for name in order:
            entry[name] = run(commands[name], files[name], a.pause)
            entry[name]["ms"] = times(entry[name].pop("result"))
        rounds.append(entry)
        print(f"round {i + 1}/{a.rounds}: " + ", ".join(
            f"{n} {statistics.median(entry[n]['ms']):.1f} ms (load {entry[n]['load_before']})" for n in commands), flush=True)

    summary = {}
    for name in commands:
        medians = [statistics.median(r[name]["ms"]) for r in rounds]
        everything = [t for r in rounds for t in r[name]["ms"]]
        summary[name] = {"ms_median": statistics.median(medians), "ms_min": min(everything), "ms_max": max(everything),
                         "round_medians": medians}
    ratio = summary["pytorch"]["ms_median"] / summary["gan"]["ms_median"]
    model, sets = processor()
    versions = {
        "gan": output([a.gan, "--version"]),
        "pytorch": output([a.peer_python, "-c", "import torch; print(torch.__version__)"]),
        "python": output([a.peer_python, "--version"]),
        "rustc": output(["rustc", "--version"]),
    }
    changed = output(["git", "status", "--porcelain"])
    record = {
        "what": f"one pix2pix training step, {a.size} x {a.size}, batch {a.batch}, f32, CPU",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output(["git", "rev-parse", "HEAD"]),
        "tree_changed": None if changed is None else changed != "",
        "processor": model, "instruction_sets": sets, "logical_cores": os.cpu_count(), "memory_gib": memory_gib(),
        "system": platform.platform(), "threads": a.threads, "versions": versions,
        # Commands without this machine's folders.
        "commands": {n: shlex.join([os.path.basename(w) if os.path.isabs(w) else w for w in c])
                     for n, c in commands.items()},
        "summary": summary, "speed_relative_to_pytorch": ratio, "rounds": rounds,
    }
    out = pathlib.Path(a.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"{out}.json").write_text(json.dumps(record, indent=1) + "\n")
    pathlib.Path(f"{out}.md").write_text(table(record, a))
    for path in files.values():
        os.remove(path)
    os.rmdir(folder)
    print(f"gan needs {1 / ratio:.2f} times PyTorch's time (speed {ratio:.2f}); wrote {out}.json and {out}.md")


def table(r, a):
    loads = [x[n]["load_before"] for x in r["rounds"] for n in r["commands"] if x[n]["load_before"] is not None]
    # Our own programs add up to as many as there are threads.
    busy = ["The machine was busy with other programs: take it again before anything is concluded.", ""]
    busy = busy if max(loads, default=0) > r["threads"] + 0.5 else []
    lines = [
        f"# {r['what'][0].upper()}{r['what'][1:]}",
        "",
        f"{r['date'][:10]}, commit {(r['commit'] or 'unknown')[:12]}{' (changed)' if r['tree_changed'] else ''}; "
        f"{r['processor']} ({', '.join(r['instruction_sets']) or 'no vectors known'}), {r['logical_cores']} logical cores, "
        f"{r['threads']} threads, {r['memory_gib']} GiB; load before a round {min(loads, default='?')} to {max(loads, default='?')}.",
        "",
        f"{a.rounds} rounds of {a.steps} timed steps, the two programs by turns; median over the rounds' medians.",
        "",
        *busy,
        "| program | median ms | fastest | slowest | medians of the rounds |",
        "|---|---|---|---|---|",
    ]
    titles = {"gan": f"{r['versions']['gan']}", "pytorch": f"PyTorch {r['versions']['pytorch']}, {a.peer_mode}"}
    for name, s in r["summary"].items():
        medians = ", ".join(f"{m:.0f}" for m in s["round_medians"])
        lines.append(f"| {titles[name]} | {s['ms_median']:.1f} | {s['ms_min']:.1f} | {s['ms_max']:.1f} | {medians} |")
    lines += ["", f"Speed relative to PyTorch: {r['speed_relative_to_pytorch']:.2f}.", ""]
    lines += [f"    {c}" for c in r["commands"].values()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
