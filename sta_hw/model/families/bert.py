"""BERT and those of its shape: RoBERTa, XLM-R, CamemBERT, ELECTRA, DistilBERT."""

from __future__ import annotations

from ..operations import TOKENS, Activate, Add, Embed, Input, Select
from ..settings import Settings
from ..tensors import Tensors
from .layers import LINEAR, Builder, Layer

__all__ = ["build", "classify"]

_ROBERTA = ("roberta", "xlm-roberta", "camembert")

_NAMES = LINEAR | {"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
_DISTILBERT_NAMES = {
    "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin", "projection": "attention.out_lin",
    "expand": "ffn.lin1", "contract": "ffn.lin2", "norm1": "sa_layer_norm", "norm2": "output_layer_norm",
}  # fmt: skip

_LEFT = {
    "*position_ids": "counting numbers, which the tables' rows are",
    "*token_type_ids": "zeros, which the tables' rows are",
    "cls.*": "a head of pre-training",
    "lm_head.*": "a head of pre-training",
    "vocab_*": "a head of pre-training",
    "discriminator_predictions.*": "a head of pre-training",
    "generator_*": "a head of pre-training",
}


def _layer(settings: Settings, family: str) -> tuple[Layer, int]:
    if family == "distilbert":
        # Sinusoidal positions are stored like those that were learnt.
        settings.pass_over("sinusoidal_pos_embds dropout qa_dropout seq_classif_dropout")
        width = settings.size("dim", 768)
        heads, layers = settings.size("n_heads", 12), settings.size("n_layers", 6)
        function, intermediate = settings.function("activation", "gelu"), settings.size("hidden_dim", 3072)
        return Layer(width, intermediate, heads, function, 1e-12, _DISTILBERT_NAMES), layers
    small = family == "electra"
    causal = settings.flag("is_decoder", False)
    settings.require("add_cross_attention", False, "cross-attention is not supported")
    settings.require("position_embedding_type", "absolute", "positions relative to each other are not supported")
    width = settings.size("hidden_size", 256 if small else 768)
    of = Layer(
        width, settings.size("intermediate_size", 1024 if small else 3072),
        settings.size("num_attention_heads", 4 if small else 12), settings.function("hidden_act", "gelu"),
        settings.epsilon("layer_norm_eps", 1e-12), _NAMES, causal=causal,
    )  # fmt: skip
    # Of heads that are not built here, and of the first BERT's pooler.
    settings.pass_over(
        "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head "
        "pooler_type summary_type summary_use_proj summary_activation summary_last_dropout classifier_dropout"
    )
    return of, settings.size("num_hidden_layers", 12)


def build(settings: Settings, tensors: Tensors, family: str) -> tuple[Builder, str]:
    """The encoder, and the name of its last value: every token's output."""
    tensors.take_off_prefix("embeddings.word_embeddings.weight")
    tensors.leave(_LEFT)
    of, layers = _layer(settings, family)
    if of.width % of.heads:
        settings.problem(f"{of.heads} attention heads do not divide a hidden size of {of.width}.")
    b = Builder(tensors)
    b.width = of.width
    width = settings.size("embedding_size", 128) if family == "electra" else of.width
    b.add(Input("ids", (), (TOKENS,)))

    def table(name: str, rows: str, count: int, padding: int | None = None) -> str:
        array = b.take(f"{name}.table", f"embeddings.{name}_embeddings.weight", count, width)
        return b.add(Embed(name, ("ids",), array, rows, padding=padding))

    padding = settings.size("pad_token_id", 1, 0) if family in _ROBERTA else None
    total = table("word", "token", settings.size("vocab_size", 50265 if family in _ROBERTA else 30522))
    parts = [table("position", "position", settings.size("max_position_embeddings", 512), padding)]
    if family != "distilbert":
        parts.append(table("token_type", "first", settings.size("type_vocab_size", 2)))
    for part in parts:
        total = b.add(Add("embedded" if part == parts[-1] else f"{total}+{part}", (total, part)))
    x = b.norm("embeddings", total, "embeddings.LayerNorm", width, of.epsilon)
    if width != of.width:
        x = b.linear("embeddings_project", x, "embeddings_project", of.width, width)
    where = "transformer.layer" if family == "distilbert" else "encoder.layer"
    for number in tensors.layers(layers):
        x = b.post_norm(number, x, f"{where}.{number}.", of)
    return b, x


def classify(settings: Settings, b: Builder, x: str, family: str) -> str | None:
    """Add the head of a classifier, and give its last value; None if the architecture is none."""
    kind, width, labels = settings.architecture, b.width, len(settings.labels)
    for ending, tensor, count in (
        ("TokenClassification", "classifier", labels),
        ("QuestionAnswering", "qa_outputs", 2),
    ):
        if kind.endswith("For" + ending):
            return b.linear("scores", x, tensor, count, width)
    if not kind.endswith("ForSequenceClassification"):
        return None
    first = b.add(Select("first", (x,), 0))
    dense, function, last = {
        "bert": ("pooler.dense", "tanh", "classifier"),
        "distilbert": ("pre_classifier", "relu", "classifier"),
        "electra": ("classifier.dense", "gelu", "classifier.out_proj"),
    }.get(family, ("classifier.dense", "tanh", "classifier.out_proj"))
    pooled = b.add(Activate("pooler", (b.linear("pooler.dense", first, dense, width, width),), function))
    return b.linear("scores", pooled, last, labels, width)
