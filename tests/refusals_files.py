"""Commands that are refused for what files hold, where output should go, or for the environment.

Of each: the command, its exit status, words of what it says, and what is different: see `Case`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ENVIRONMENTS", "INPUTS", "OUTPUTS", "STREAMS", "Case"]


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes
    ----------
    status : int, or several of them
    says : str
        Words of its standard error; of its standard output where it succeeds.
    environment : variables that are set (None: taken away); ``{here}`` is the scratch folder
    redirect : str
        What a shell gets behind the command, such as ``>&-``.
    """

    command: str
    status: int | tuple[int, ...]
    says: str
    environment: Mapping[str, str | None] = field(default_factory=dict)
    redirect: str = ""


INPUTS = [
    # compiled models
    ("run missing.npz", "there is no file missing.npz"),
    ("run empty", "is not a compiled model"),
    ("run folder", "is not a compiled model"),
    ("run truncated.npz", "is not a compiled model"),
    ("run text.npz", "is not a compiled model"),
    ("run other.npz", "is not a compiled model"),
    ("run /dev/null", "is not a compiled model"),
    ("run table.json", "is not a compiled model"),
    # devices that never end
    ("run endless.npz", "is a folder, a device or a pipe, and no file"),
    ("import endless.onnx -o imported", "is a folder, a device or a pipe, and no file"),
    *(
        (f"import endless-{name} -o imported", "is a folder, a device or a pipe, and no file")
        for name in ("weights", "tokenizer", "config")
    ),
    ("import endless-modules -o imported", "modules.json is no list of modules"),
    ("synth --part liberty:endless.npz", "is a folder, a device or a pipe, and no file"),
    ("compile --model endless-weights --tokens 9 -o m.npz", "is a folder, a device or a pipe, and no file"),
    ("report missing.npz", "there is no file missing.npz"),
    ("report truncated.npz", "is not a compiled model"),
    ("trace missing.npz", "there is no file missing.npz"),
    ("trace text.npz", "is not a compiled model"),
    ("run 'name with spaces.npz'", "there is no file name with spaces.npz"),
    # texts, one a line
    ("embed /dev/zero", "/dev/zero is a device"),
    ("generate-text --batch /dev/zero", "/dev/zero is a device"),
    ("estimate --batch truncated.npz", "truncated.npz: "),
    ("embed missing.txt", "missing.txt: No such file"),
    ("embed folder", "folder: Is a directory"),
    ("embed empty", "empty holds no text"),
    ("embed -", "standard input holds no text"),
    ("embed bits", "bits, line 1: it is not text in UTF-8"),
    ("embed gaps.txt", "gaps.txt, line 2: it is empty"),
    ("embed long.txt", "long.txt, line 2: the text has 602 tokens; the model takes 512; --truncate cuts it"),
    ("classify lines.txt", "gives an embedding, no classes"),
    # model folders
    ("compile --model nowhere", "model folder nowhere"),
    ("compile --model empty", "model folder empty"),
    ("compile --model folder", "model folder folder"),
    ("compile --model m.npz", "model folder m.npz"),
    ("compile --model ''", "--model is empty"),
    ("run --model nowhere", "model folder nowhere"),
    ("report --model nowhere", "model folder nowhere"),
    ("trace --model nowhere", "model folder nowhere"),
    ("compile --preset ci --model no-weights", "model folder no-weights"),
    ("compile --preset ci --model no-tokenizer", "tokenizer"),
    ("compile --preset ci --model damaged-config", "damaged-config"),
    ("compile --preset ci --model damaged-weights", "damaged-weights"),
    ("compile --preset ci --model other-family", "'t5' is not supported"),
    # tables
    ("compile --nm-table none.json", "N:M table none.json cannot be read: No such file"),
    ("compile --nm-table folder", "it is a folder, a device or a pipe"),
    ("compile --nm-table /dev/zero", "it is a folder, a device or a pipe"),
    ("compile --nm-table empty", "N:M table empty cannot be read"),
    ("compile --nm-table list.json", "no JSON object"),
    ("compile --nm-table latin.json", "not text in UTF-8"),
    ("compile --nm-table nul.json", "N:M table nul.json"),
    ("compile --nm-table twice.json", "twice"),
    ("compile --nm-table nan.json", "NaN is not JSON"),
    ("compile --nm-table deep.json", "nested too deeply"),
    ("compile --preset ci --model model --nm-table numbers.json", "is no pattern"),
    ("compile --preset ci --model model --nm-table nested.json", "is no pattern"),
    ("compile --preset ci --model model --nm-table strange.json", "there is no linear layer"),
    ("compile --preset ci --model model --nm-table far.json", "there is no linear layer"),
    ("compile --preset ci --model model --nm-table bad.json", "M = 3"),
    ("run --nm-table none.json", "N:M table none.json"),
    ("report --nm-table latin.json", "not text in UTF-8"),
    ("demo --nm-table list.json", "no JSON object"),
    ("prune --nm-table none.json", "N:M table none.json"),
    ("prune --nm-table twice.json", "twice"),
    # manifests
    ("compile --preset none.json", "the manifest none.json cannot be read"),
    ("compile --preset list.json", "no JSON object"),
    ("compile --preset table.json", "no manifest"),
    ("compile --preset latin.json", "not text in UTF-8"),
    ("compile --preset engine.json", "manifest of 'engine'"),
    ("generate --name list -o .", "the manifest would be written to list.json, where another file is"),
    ("run --preset engine.json", "manifest of 'engine'"),
    ("estimate --preset engine.json", "manifest of 'engine'"),
    ("estimate --preset changed.json", "was changed"),
    ("estimate --preset types.json", "has rows = 4.0"),
    ("estimate --preset flags.json", "has rows = True"),
    ("estimate --preset words.json", "has nm = any"),
    ("estimate --preset unknown.json", "does not know"),
    ("estimate --preset ./folder", "it is a folder"),
    ("fit --preset changed.json", "was changed"),
    ("synth --preset types.json", "has rows = 4.0"),
    ("build --preset none.json", "cannot be read"),
    ("generate --preset changed.json", "was changed"),
    ("trace --preset /dev/zero", "it is a folder, a device or a pipe"),
    # checkpoints to import, bitstreams, pruned networks, ports
    ("import nowhere.onnx", "nowhere.onnx"),
    ("import empty", "empty"),
    ("import text.npz", "text.npz"),
    ("import folder", "folder"),
    ("import damaged-config", "damaged-config"),
    ("import model --tokenizer none.json -o imported", "none.json cannot be read: No such file"),
    ("import model --tokenizer table.json -o imported", "tokenizer table.json is none"),
    ("flash nowhere.bit", "there is no bitstream nowhere.bit"),
    ("flash empty", "the bitstream empty is empty"),
    ("flash folder", "there is no bitstream folder"),
    ("evaluate nowhere", "no pruned encoder in nowhere"),
    ("evaluate model", "no pruned encoder in model"),
    ("evaluate damaged-pruned", "holds no pruned network"),
    ("selftest --port /dev/nowhere", "cannot open /dev/nowhere"),
    ("selftest --port folder", "cannot open folder"),
    ("compile --preset ci --model model --text $'\\xff\\xfe'", "not text in UTF-8"),
    ("run $'\\xff.npz'", "not text in UTF-8"),
]
"""Status 2 all."""

_LONG = "x" * 300
OUTPUTS = [
    ("embed lines.txt -o v.csv", "it ends in .npy or .json, the nearest is v.csv.npy"),
    ("embed lines.txt -o folder", "it is a folder"),
    ("embed table.json -o table.json", "is the same file as FILE"),
    ("embed lines.txt --calibration table.json -o table.json", "is the same file as --calibration"),
    ("report --input lines.txt -o lines.txt", "is the same file as --input"),
    ("embed lines.txt --calibration lines.txt", "calibrated with the bundled sentences"),
    ("compile -o folder", "is a folder; name a file in it"),
    ("compile -o /dev/null", "a device or a pipe"),
    ("compile -o fifo", "a device or a pipe"),
    ("compile -o /dev/full", "a device or a pipe"),
    ("compile -o table.json/m.npz", "is not a folder"),
    ("compile -o /proc/m.npz", "no permission"),
    ("compile -o /dev/null/m.npz", "is not a folder"),
    (f"compile -o {_LONG}.npz", "too long"),
    (f"compile -o {_LONG[:251]}.npz", "...) cannot be written: File name too long; choose another."),
    ("compile -o .", "-o (.) is a folder"),
    (f"compile -o {_LONG}/m.npz", "too long"),
    ("compile -o ''", "-o is empty"),
    ("compile -o lost/m.npz", "leads nowhere"),
    ("compile --listing -o m.txt", "the same file as -o"),
    ("report -o /dev/null/x.html", "cannot be written"),
    ("report -o folder", "it is a folder"),
    ("report -o report.json", "would be written twice"),
    ("report -o fifo", "a device or a pipe"),
    ("trace -o folder", "it is a folder"),
    ("trace -o /dev/null", "a device or a pipe"),
    ("trace -o empty/t.fst", "is not a folder"),
    ("generate -o empty", "is not a folder"),
    ("generate -o /proc/generated", "no permission"),
    ("generate -o fifo", "is not a folder"),
    ("generate -o /dev/null", "is not a folder"),
    (f"generate -o {_LONG}", "too long"),
    ("demo -o empty", "is not a folder"),
    ("synth -o empty", "is not a folder"),
    ("synth -o /proc/synth", "no permission"),
    ("build -o empty", "is not a folder"),
    ("prune -o empty", "is not a folder"),
    ("prune -o /sys/pruned", "no permission"),
    ("evaluate --picture folder", "it is a folder"),
    ("evaluate --picture /dev/null", "a device or a pipe"),
    ("import model -o empty", "is not a folder"),
    ("import model -o /proc/imported", "no permission"),
]
"""Status 2 all."""

_RUN = "run --model model --preset ci --nm dense --text 'the sparse hardware'"
_NEW = {"STA_HW_CACHE": "{here}/cache"}
ENVIRONMENTS = [
    # homes and caches
    Case(_RUN, 3, "set STA_HW_CACHE to another folder", {"HOME": "/proc", "STA_HW_CACHE": None}),
    Case(_RUN, 3, "set STA_HW_CACHE to another folder", {"STA_HW_CACHE": "/proc/cache"}),
    Case(_RUN, 3, "set STA_HW_CACHE to another folder", {"STA_HW_CACHE": "{here}/empty"}),
    Case(_RUN, 3, "set STA_HW_CACHE to another folder", {"XDG_CACHE_HOME": "/dev/null", "STA_HW_CACHE": None}),
    Case(_RUN + " --backend reference", 0, "Cosine", {"HOME": "/proc", "STA_HW_CACHE": None}),
    Case("cache", 0, "all", {"HOME": "/proc", "STA_HW_CACHE": None}),
    Case("cache --clear", 0, "all", {"STA_HW_CACHE": "{here}/nowhere"}),
    Case("cache", 3, "cannot be read", {"STA_HW_CACHE": "{here}/empty"}),
    Case("doctor", 1, "cache folder", {"STA_HW_CACHE": "/proc/cache"}),
    Case("estimate --layers 1 --tokens 8", 0, "cycles", {"HOME": "/proc", "STA_HW_CACHE": None}),
    Case("fit", 0, "reference", {"HOME": "/proc", "STA_HW_CACHE": None}),
    Case("fit", 0, "reference", {"HOME": None}),
    # compilers and tools
    Case(_RUN, 3, "no-such-compiler is not there", _NEW | {"CXX": "no-such-compiler"}),
    Case(_RUN, 3, "false failed with status 1", _NEW | {"CXX": "/bin/false"}),
    Case(_RUN, 3, "cannot be started", _NEW | {"CXX": "{here}/empty"}),
    Case(_RUN, 3, "is not there", _NEW | {"PATH": "/nowhere"}),
    Case("doctor", 1, "no-such-compiler", {"CXX": "no-such-compiler"}),
    Case("doctor", 1, "/bin/false", {"CXX": "/bin/false"}),
    Case("doctor", 1, "apt-get install make", {"PATH": "/nowhere"}),
    Case("flash bits", (2, 3), "sta-hw: "),
    Case("flash bits --json", (2, 3), "sta-hw: "),
    # temporary folders
    Case(_RUN, (0, 3), "", _NEW | {"TMPDIR": "/nowhere", "CXX": "/bin/false"}),
    Case("generate --preset ci --top decoder -o made", 0, "decoder.v", {"TMPDIR": "/nowhere"}),
    # locales and terminals
    Case("fit", 0, "reference", {"PYTHONIOENCODING": "ascii"}),
    Case("fit", 0, "reference", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Case("fit", 0, "reference", {"PYTHONIOENCODING": "latin-1"}),
    Case("fit", 0, "reference", {"TERM": "dumb"}),
    Case("fit", 0, "reference", {"TERM": "nonsense", "COLUMNS": "80"}),
    Case("fit", 0, "reference", {"COLUMNS": "40"}),
    Case("fit", 0, "reference", {"COLUMNS": "1"}),
    Case("fit", 0, "reference", {"COLUMNS": "0"}),
    Case("fit", 0, "reference", {"COLUMNS": "wide"}),
    Case("doctor", (0, 1), "numpy", {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}),
    Case("run --text 'Grüße' --model nowhere", 2, "model folder nowhere", {"LC_ALL": "C", "PYTHONUTF8": "0"}),
    Case("run 'größer.npz'", 2, "there is no file gr", {"PYTHONIOENCODING": "ascii"}),
    Case("run 'größer.npz'", 2, "there is no file gr",
         {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Case(_RUN + " --backend reference", 0, "Cosine",
         {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Case("compile --model model --preset ci --nm dense --tokens 9 -o 'größer.npz'", 0, "9 tokens",
         {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Case("compile --nm 5:4", 2, "the nearest is 4:4", {"STA_HW_TRACEBACK": ""}),
]  # fmt: skip

STREAMS = [
    Case("fit", (0, 141), "", redirect="| head -1"),
    Case("doctor", (0, 1, 141), "", redirect="| head -1"),
    Case("--help", (0, 141), "", redirect="| head -1"),
    Case("fit --json", (0, 141), "", redirect="| true"),
    Case("fit", 3, "standard output is closed", redirect=">&-"),
    Case("fit --json", 3, "standard output is closed", redirect=">&-"),
    Case("fit", 3, "No space left on device", redirect="> /dev/full"),
    Case("fit --json", 3, "No space left on device", redirect="> /dev/full"),
    Case("compile --nm 5:4", 2, "", redirect="2>&-"),
    Case("compile --nm 5:4", 2, "", redirect="2> /dev/full"),
    Case("fit", 0, "reference", redirect="2>&-"),
    Case("fit", 0, "reference", redirect="<&-"),
    Case("fit", 3, "", redirect=">&- 2>&- <&-"),
    Case("embed - --model model --preset ci --nm dense -o made.npy", 2, "standard input holds no text", redirect="<&-"),
    Case("compile --model model --preset ci --nm dense --tokens 9 -o made.npz", 0, "9 tokens", redirect="<&-"),
    Case("generate-text -", 2, "standard input is a device", redirect="< /dev/zero"),
    Case("generate-text -", 2, "standard input holds more than 256 MB", redirect="< <(cat /dev/zero)"),
]
