"""The report's page shows what others wrote as text, and nothing of it is interpreted."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np

from sta_hw.compiler.encoder import compile_encoder
from sta_hw.compiler.quantize import quantize
from sta_hw.model.random import random_ids, random_model
from sta_hw.report.page import html_page
from sta_hw.report.timeline import chrome_trace
from sta_hw.spec.isa import Opcode
from sta_hw.spec.presets import PRESETS
from sta_hw.spec.registers import COUNTERS

EVIL = '</title></svg><script>alert("x")</script><img src=x onerror=alert(1)>&$\\frac'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_is_escaped() -> None:
    model = compile_encoder(quantize(random_model(0, layers=1), [random_ids(0, 9)]), PRESETS["ci"], 4)
    name = "0.output.dense"
    layers = [
        dataclasses.replace(r, layer=f"0.{EVIL}", encoding=EVIL) if r.layer == name else r for r in model.info.layers
    ]
    labels = [f"0.{EVIL}" if label == name else label for label in model.labels]
    model = dataclasses.replace(model, labels=labels, info=dataclasses.replace(model.info, layers=tuple(layers)))
    matrix = sum(i.opcode in (Opcode.PRODUCT, Opcode.SCORES, Opcode.CONTEXT) for i in model.expanded())
    run = SimpleNamespace(
        cycles=100 * matrix, period=10, counters={c.name: 1 for c in COUNTERS},
        samples=np.zeros((20, len(COUNTERS) - 1), np.uint16),
        completed={"matrix": np.arange(1, matrix + 1) * 100, "norms": np.zeros(0, int), "loads": np.zeros(0, int)},
    )  # fmt: skip
    page = html_page(model, run, f"STA-HW: {EVIL}")
    parser = Tags()
    parser.feed(page)
    assert "script" not in parser.found and "img" not in parser.found
    assert parser.text.count(EVIL) == 4  # title, heading, and the layer's name and encoding
    names = {event["name"] for event in json.loads(chrome_trace(model, run))["traceEvents"]}
    assert f"0.{EVIL}" in names
