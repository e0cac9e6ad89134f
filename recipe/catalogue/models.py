"""The models: what is downloaded, how much memory it takes, and how much each token of context adds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from recipe.catalogue.base import GIB, MIB, Entry, Sources, look_up

DType = Literal["bfloat16", "fp8"]
BYTES: dict[DType, int] = {"bfloat16": 2, "fp8": 1}

FP8_BLOCK = 128
"""Side of the blocks that share a scale in Qwen's FP8 variants (`weight_block_size` in config.json). Engines cannot cut one in two."""

# A Qwen3 repository holds tokenizer.json, vocab.json, merges.txt and small JSON files beside the weights, about 16 MB.
_OTHER_FILES_BYTES = 16 * MIB


class Model(Entry):
    """A decoder of the Qwen3 family. Counts of weights are derived from the architecture, as `config.json` gives it."""

    id: str
    """Repository on Hugging Face."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit of that repository: a branch name would move."""
    weight_dtype: DType
    layers: PositiveInt
    hidden_size: PositiveInt
    attention_heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    intermediate_size: PositiveInt
    """Width of the feed-forward block: of one expert where there are experts."""
    experts: int = Field(default=0, ge=0)
    """Experts in each layer; 0 = dense."""
    experts_per_token: int = Field(default=0, ge=0)
    vocabulary: PositiveInt
    native_context_tokens: PositiveInt
    """What the model was trained for. More needs YaRN."""
    config_context_tokens: PositiveInt
    """`max_position_embeddings`: the engine's limit without YaRN (native context plus room for the answer)."""
    yarn_factor: float
    yarn_context_tokens: PositiveInt
    gated: bool = False
    """Needs a Hugging Face token."""
    cache_gib: PositiveInt
    """Size of the claim upstream asks for the model cache. Nominal on EFS."""
    published_bytes: PositiveInt | None = None
    """Size of the weight files as somebody else gives it, where found; a test holds `weight_bytes` against it."""
    sources: Sources

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def _attention_shapes(self) -> list[tuple[int, int, int]]:
        """(rows, columns, how many) of the matrices around the attention, which FP8 variants quantise."""
        q, kv = self.attention_heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (q, self.hidden_size, self.layers),
            (kv, self.hidden_size, 2 * self.layers),
            (self.hidden_size, q, self.layers),
        ]

    @property
    def _feed_forward_shapes(self) -> list[tuple[int, int, int]]:
        """The same of the feed-forward blocks: the experts where there are any."""
        blocks = self.layers * max(1, self.experts)
        return [
            (self.intermediate_size, self.hidden_size, 2 * blocks),
            (self.hidden_size, self.intermediate_size, blocks),
        ]

    @property
    def _linear_parameters(self) -> int:
        return _parameters([*self._attention_shapes, *self._feed_forward_shapes])

    @property
    def _other_parameters(self) -> int:
        """Embedding and head (untied), norms (two a layer, one for q, one for k, one last), router."""
        norms = self.layers * (2 * self.hidden_size + 2 * self.head_dim) + self.hidden_size
        router = self.layers * self.experts * self.hidden_size
        return 2 * self.vocabulary * self.hidden_size + norms + router

    @property
    def parameters(self) -> int:
        """Weights, without the scales of a quantised variant."""
        return self._linear_parameters + self._other_parameters

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, on disk and in GPU memory (over all GPUs of a worker)."""
        linear = self._linear_bytes([*self._attention_shapes, *self._feed_forward_shapes])
        return linear + BYTES["bfloat16"] * self._other_parameters

    def _linear_bytes(self, shapes: list[tuple[int, int, int]]) -> int:
        if self.weight_dtype == "bfloat16":
            return _parameters(shapes) * BYTES["bfloat16"]
        # FP8: linear weights 1 byte and one bfloat16 scale per block of 128 x 128; the rest stays bfloat16.
        scales = sum(-(-rows // FP8_BLOCK) * -(-columns // FP8_BLOCK) * count for rows, columns, count in shapes)
        return _parameters(shapes) + BYTES["bfloat16"] * scales

    def weight_gib_per_gpu(self, tensor_parallel: int, data_parallel: int = 1) -> float:
        """GiB of weights on each of a worker's GPUs: experts over all of them, the rest split by tensor and repeated by data parallelism."""
        experts = self._linear_bytes(self._feed_forward_shapes) if self.is_moe else 0
        rest = self.weight_bytes - experts
        return (experts / (tensor_parallel * data_parallel) + rest / tensor_parallel) / GIB

    @property
    def configuration_bytes(self) -> int:
        """Tokenizer and configuration, without the weights."""
        return _OTHER_FILES_BYTES

    def kv_bytes_per_token(self, dtype: DType = "bfloat16") -> int:
        """Bytes of key and value cache for one token over all layers. One GPU holds 1/TP of it while TP <= `kv_heads`;
        beyond that the heads are repeated and it holds 1/`kv_heads`."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES[dtype]


def _parameters(shapes: list[tuple[int, int, int]]) -> int:
    return sum(rows * columns * count for rows, columns, count in shapes)


_CONFIG = "config.json of the model, as packed in the wheel aisimulate 0.13.0.dev202610130000000070 (aisimulate_core/model_configs)"
_CARD = (
    "https://huggingface.co/{} (model card: 32,768 tokens natively, 131,072 with YaRN factor 4; Apache 2.0, no gate)"
)
_FACTS = "facts/dynamo.md §4.1 (revision, size of the cache claim)"


def _qwen3_32b(variant: str, **fields: object) -> Model:
    name = f"Qwen/Qwen3-32B{variant}"
    return Model.model_validate(
        {
            "id": name,
            "layers": 64,
            "hidden_size": 5120,
            "attention_heads": 64,
            "kv_heads": 8,
            "head_dim": 128,
            "intermediate_size": 25600,
            "vocabulary": 151936,
            "native_context_tokens": 32768,
            "config_context_tokens": 40960,
            "yarn_factor": 4.0,
            "yarn_context_tokens": 131072,
            "cache_gib": 100,
            **fields,
        }
    )


MODELS: dict[str, Model] = {
    model.id: model
    for model in (
        _qwen3_32b(
            "",
            revision="9216db5781bf21249d130ec9da846c4624c16137",
            weight_dtype="bfloat16",
            published_bytes=65_524_246_528,
            sources=(_CONFIG, _FACTS, _CARD.format("Qwen/Qwen3-32B"), "facts/aws.md §6 (65.5 GB)"),
        ),
        _qwen3_32b(
            "-FP8",
            revision="aa55da1ecc13d006e8b8e4f54579b1ea8c3db2df",
            weight_dtype="fp8",
            sources=(_CONFIG, _FACTS, _CARD.format("Qwen/Qwen3-32B-FP8")),
        ),
        Model(
            id="Qwen/Qwen3-235B-A22B-FP8",
            revision="39eb2b067ea6b8e3e1dd97d3cd0c7ffeaf3e1a35",
            weight_dtype="fp8",
            layers=94,
            hidden_size=4096,
            attention_heads=64,
            kv_heads=4,
            head_dim=128,
            intermediate_size=1536,
            experts=128,
            experts_per_token=8,
            vocabulary=151936,
            native_context_tokens=32768,
            config_context_tokens=40960,
            yarn_factor=4.0,
            yarn_context_tokens=131072,
            cache_gib=300,
            published_bytes=235_000_000_000,
            sources=(_CONFIG, _FACTS, _CARD.format("Qwen/Qwen3-235B-A22B-FP8"), "facts/dynamo.md §4.2 item 6 (235 GB)"),
        ),
    )
}


def model(name: str) -> Model:
    """The model with that Hugging Face id. Raises `UnknownName`."""
    return look_up("model", MODELS, name)
