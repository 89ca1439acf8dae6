"""Cycles of a decoder's token by the cycle model are those of RTL, with one N:M and with several."""

from __future__ import annotations

from dataclasses import replace

import pytest
from decoder_files import decoder_folder

from sta_hw.bench.decode import estimated_token, token_of_table
from sta_hw.errors import ConfigError
from sta_hw.spec.patterns import DENSE, Pattern, parse_nm
from sta_hw.spec.presets import PRESETS
from sta_hw.tasks.text import TextModel, load_text_model

CONFIG = replace(PRESETS["ci"], features=("decoder",))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    folder = tmp_path_factory.mktemp("decoder")
    decoder_folder(folder)
    return load_text_model(folder)


@pytest.mark.slow
def test_the_cycle_model_and_rtl_agree(model: TextModel) -> None:
    """Of a table with three N:M; the bytes are the same, and fewer than dense ones."""
    patterns: dict[str, Pattern] = dict.fromkeys(model.language.graph.linears, parse_nm("2:4"))
    patterns |= {"0.mlp.down_proj": parse_nm("1:4"), "1.self_attn.q_proj": DENSE}
    rtl, estimated = (token_of_table(model, patterns, by, config=CONFIG) for by in ("rtl", "model"))
    assert rtl["least_bytes"] == estimated["least_bytes"]
    assert abs(float(str(rtl["cycles"])) - float(str(estimated["cycles"]))) < 0.03 * float(str(rtl["cycles"]))
    dense = token_of_table(model, {}, "model", config=CONFIG)
    assert int(str(dense["least_bytes"])) > int(str(rtl["least_bytes"]))
    assert float(str(dense["cycles"])) > float(str(estimated["cycles"]))


def test_one_nm_from_two_layers(model: TextModel) -> None:
    """Of a network with two layers nothing is left to what is said of the others."""
    pattern = parse_nm("2:4")
    one = estimated_token(model, pattern, CONFIG)
    table = token_of_table(model, dict.fromkeys(model.language.graph.linears, pattern), "model", config=CONFIG)
    assert one["least_bytes"] == table["least_bytes"]
    assert abs(float(str(one["cycles"])) - float(str(table["cycles"]))) < 0.03 * float(str(table["cycles"]))
    with pytest.raises(ConfigError, match="16:32"):
        estimated_token(model, parse_nm("16:32"), PRESETS["decoder"])
