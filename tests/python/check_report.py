"""Checks a page that `gan report` wrote: that it is well-formed XML, loads nothing from anywhere, and has the numbers of the
first run's table, of its recipe and of what `gan evaluate --json` wrote of it.

    python tests/python/check_report.py PAGE [RUN JSON]

Prints `the page agrees` and exits with 0, or fails with the first difference.
"""

import base64
import csv
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def text_of(element):
    return "".join(element.itertext())


def check_alone(raw, page):
    for element in page.iter():
        for name, value in element.attrib.items():
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:image/png;base64,", "#")), (element.tag, name, value[:60])
                if value.startswith("data:"):
                    assert base64.b64decode(value.split(",", 1)[1])[:8] == b"\x89PNG\r\n\x1a\n"
        assert element.tag not in ("link", "iframe", "object", "embed"), element.tag
    style = text_of(page.find("head/style"))
    script = text_of(page.find("body/script"))
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"fetch|XMLHttp|import\s*\(|https?:", script)
    assert "http://" not in raw and "https://" not in raw


def check_numbers(page, run, measured):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    charts = {}
    for figure in page.iter("figure"):
        if figure.get("class") == "chart":
            spans = [s for s in figure.iter("span") if s.get("class") == "last"]
            charts[figure.find("figcaption/b").text] = [float(s.get("data-v")) for s in spans]
    for column in rows[0]:
        values = [float(r[column]) for r in rows if r[column]]
        if column != "step" and values:
            assert charts[column][0] == values[-1], (column, charts[column], values[-1])

    network = measured["network"]
    (table,) = [t for t in page.iter("table") if "cases" in t.get("class", "").split()][:1]
    heads = [text_of(h) for h in table.iter("th")]
    found = {}
    for row in table.find("tbody"):
        cells = [c.get("data-v") for c in row]
        found[cells[0]] = dict(zip(heads[1:], map(float, cells[1:])))
    assert len(found) == len(network["cases"]) > 0
    for case in network["cases"]:
        for metric, value in case.items():
            if metric != "case":
                assert found[case["case"]][metric] == float(value), (case, metric)
    means = next(t for t in page.iter("table") if t.get("class") == "means")
    lines = {text_of(r[0]): [float(c.get("data-v") or "nan") for c in r[1:]] for r in means.find("tbody")}
    for name, line in lines.items():
        summary = measured[name.replace("-", "")]
        assert line == [float(m["mean"]["mean"]) for m in summary["metrics"]], name

    # The best and the worst case, by the metric that ranks.
    captions = [text_of(c) for c in page.iter("figcaption")]
    order = sorted(network["cases"], key=lambda c: c["psnr"])
    for what, case in [("best", order[-1]), ("worst", order[0])]:
        if len(order) > 1 or what == "best":
            assert any(f"The {what} case by psnr: {case['case']} " in c for c in captions), (what, captions)

    blocks = [text_of(p) for p in page.iter("pre")]
    assert any((run / "recipe.toml").read_text().strip() == b.strip() for b in blocks), "the recipe"
    info = json.loads((run / "run.json").read_text())
    assert any(info["command"] in b for b in blocks), "the command"
    facts = " ".join(text_of(t) for t in page.iter("table") if t.get("class") == "facts")
    assert info["hardware"] in facts and info["started"] in facts


def main(page, *rest):
    raw = Path(page).read_text()
    tree = ElementTree.fromstring(raw)
    check_alone(raw, tree)
    if rest:
        run, measured = rest
        check_numbers(tree, Path(run), json.loads(Path(measured).read_text()))
    print("the page agrees")


if __name__ == "__main__":
    main(*sys.argv[1:])
