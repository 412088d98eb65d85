"""The fused decode step of Llama-like models on a CPU: matrix products, and kernels between them.

Shape letters: R rows, D model width, H query heads, G key-value heads, K head width, I width of the
MLP, V vocabulary. The plain step (`decode.PlainStep`) gets the same logits from transformers, and
tests compare with it. The query, key and value weights of a layer are adjacent in memory, as are
gate and up, so that each set is one product. The model's parameters are views of them, so a
learner's in-place updates are visible at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from rloop.engines.native.cpu.cache import PagedCache
from rloop.engines.native.cpu.kernels import (
    DTYPES,
    LANES,
    Heads,
    KernelsUnavailable,
    load_kernels,
)
from rloop.engines.native.draw import draw_tokens
from rloop.recipe.config import SamplingConfig

ARCHITECTURES = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
ROTARY_KINDS = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding that depend only on the position, not on the length of a row."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product with an optional bias: weight [N, D] transposed, bias [N]."""

    weight_DN: torch.Tensor
    bias_N: torch.Tensor | None

    def into(self, input_RD: torch.Tensor, out_RN: torch.Tensor) -> torch.Tensor:
        """Return out, which now holds the product."""
        if self.bias_N is None:
            return torch.mm(input_RD, self.weight_DN, out=out_RN)
        return torch.addmm(self.bias_N, input_RD, self.weight_DN, out=out_RN)

    @property
    def width(self) -> int:
        """N."""
        return self.weight_DN.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One decoder layer's weights, as the step reads them."""

    attention_norm_D: torch.Tensor
    qkv: Product
    norms: tuple[torch.Tensor | None, torch.Tensor | None]
    """Weights [K] of the norms of queries and keys, if the model has them."""
    output: Product
    mlp_norm_D: torch.Tensor
    gate_up: Product
    down: Product


class FusedStep:
    """Decodes one token of each row with kernels; created for each batch, which is cheap."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Check the model and join its weights; KernelsUnavailable says why that is not
        possible."""
        why = unsupported(model)
        if why:
            raise KernelsUnavailable(why)
        config, foreign = model.config, _foreign(model)
        self._num_heads = config.num_attention_heads
        self._num_kv_heads = config.num_key_value_heads
        self._head_width = foreign.model.layers[0].self_attn.head_dim
        self._kernels = load_kernels(
            foreign.lm_head.weight.dtype,
            self._head_width,
            self._num_heads // self._num_kv_heads,
        )
        self._embedding = foreign.model.embed_tokens
        self._rotary = foreign.model.rotary_emb
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None
        with torch.inference_mode(mode=False), torch.no_grad():
            self._layers = [_read_layer(layer) for layer in foreign.model.layers]
            self._head = lay_together([foreign.lm_head])
        self._final_norm_D = foreign.model.norm.weight
        self._eps = config.rms_norm_eps
        self._scaling = foreign.model.layers[0].self_attn.scaling
        self._rooms: dict[str, torch.Tensor] = {}

    def open_cache(self, num_rows: int, longest_prompt: int, max_tokens: int) -> PagedCache:
        """Return the cache of a new batch, which `logits` reads and writes from now on."""
        self._cache = PagedCache(num_rows, max_tokens)
        return self._cache

    def logits(self, tokens_R: torch.Tensor, positions_R: torch.Tensor, reach: int) -> torch.Tensor:
        """Return the logits [R, V] after each row's token, which enters the cache at its position,
        below the reach; good until the next call.
        """
        cache = self._cache
        cache.begin_step(positions_R)
        kernels, eps = self._kernels, self._eps
        num_rows = len(tokens_R)
        residual_RD = self._embedding(tokens_R)
        normed_RD = self._room("normed", num_rows, residual_RD.shape[1])
        mixed_RN = self._room("mixed", num_rows, self._num_heads * self._head_width)
        scores_RHS = self._scores(num_rows, reach)
        delta_RD: torch.Tensor | None = None
        for number, layer in enumerate(self._layers):
            kernels.add_norm(residual_RD, delta_RD, layer.attention_norm_D, normed_RD, eps)
            qkv_RN = self._multiply("qkv", layer.qkv, normed_RD)
            heads = self._heads(layer, reach)
            states = cache.layer(number)
            kernels.attend(qkv_RN, positions_R, heads, states, scores_RHS, mixed_RN)
            delta_RD = self._multiply("output", layer.output, mixed_RN)
            kernels.add_norm(residual_RD, delta_RD, layer.mlp_norm_D, normed_RD, eps)
            gate_up_R2I = self._multiply("gate_up", layer.gate_up, normed_RD)
            acted_RI = self._room("acted", num_rows, layer.gate_up.width // 2)
            kernels.silu_mul(gate_up_R2I, acted_RI)
            delta_RD = self._multiply("down", layer.down, acted_RI)
        kernels.add_norm(residual_RD, delta_RD, self._final_norm_D, normed_RD, eps)
        return self._multiply("logits", self._head, normed_RD)

    def draw(
        self, logits_RV: torch.Tensor, uniforms_R: torch.Tensor, settings: SamplingConfig
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (tokens_R, logprobs_R) for float64 uniforms; see `draw.draw_tokens`."""
        if settings.temperature == 0 or settings.top_k or settings.top_p < 1:
            return draw_tokens(logits_RV, uniforms_R, settings)
        return self._kernels.draw(logits_RV.contiguous(), uniforms_R, settings.temperature)

    def _multiply(self, name: str, product: Product, input_RD: torch.Tensor) -> torch.Tensor:
        return product.into(input_RD, self._room(name, len(input_RD), product.width))

    def _room(self, name: str, num_rows: int, width: int) -> torch.Tensor:
        """Return a scratch tensor [rows, width], reused while it is large enough."""
        room = self._rooms.get(name)
        if room is None or len(room) < num_rows or room.shape[1] != width:
            room = self._head.weight_DN.new_empty(num_rows, width)
            self._rooms[name] = room
        return room[:num_rows]

    def _scores(self, num_rows: int, reach: int) -> torch.Tensor:
        reach = (-(-reach // LANES) + 1) * LANES  # prompt and rest begin a page each
        wanted = num_rows * self._num_heads * reach
        room = self._rooms.get("scores")
        if room is None or room.numel() < wanted:
            room = self._rooms["scores"] = torch.empty(wanted * 5 // 4)
        return room[:wanted].view(num_rows, self._num_heads, reach)

    def _heads(self, layer: Layer, reach: int) -> Heads:
        """Return the layer's, with rotary tables of all positions up to the reach and beyond."""
        if self._tables is None or len(self._tables[0]) < reach:
            positions = torch.arange(max(256, 2 * reach))[None]
            cosines, sines = self._rotary(self._head.weight_DN[:1], positions)
            self._tables = cosines[0].contiguous(), sines[0].contiguous()
        return Heads(
            cosines_PK=self._tables[0],
            sines_PK=self._tables[1],
            query_norm_K=layer.norms[0],
            key_norm_K=layer.norms[1],
            scaling=self._scaling,
            eps=self._eps,
        )


def unsupported(model: PreTrainedModel) -> str | None:
    """Return why the model cannot use the fused step, as a clause; None if it can."""
    config = model.config
    if type(model) not in ARCHITECTURES:
        return f"a {config.model_type} model is not supported by it"
    foreign = _foreign(model)
    linears = [m for m in foreign.model.modules() if "Linear" in type(m).__name__]
    attention = foreign.model.layers[0].self_attn
    widths = [attention.head_dim, config.hidden_size, config.intermediate_size]
    found = {
        "weights in another precision": {p.dtype for p in model.parameters()} - {*DTYPES}
        or len({p.dtype for p in model.parameters()}) > 1,
        "linear layers of another kind": any(type(m) is not nn.Linear for m in linears),
        f"an activation {config.hidden_act}": config.hidden_act != "silu",
        "rotary embeddings that change with the length": foreign.model.rotary_emb.rope_type
        not in ROTARY_KINDS,
        f"widths {widths} that are no multiples of {LANES}": any(w % LANES for w in widths),
        "an output embedding with a bias": foreign.lm_head.bias is not None,
    }
    return next((f"the model has {what}" for what, is_so in found.items() if is_so), None)


def lay_together(linears: Sequence[nn.Linear]) -> Product:
    """Return one product for linear layers of the same input, whose parameters become views of it.

    If they are already adjacent, nothing moves.
    """
    weight = _joined([linear.weight for linear in linears])
    biases = [linear.bias for linear in linears if linear.bias is not None]
    return Product(weight.t(), _joined(biases) if biases else None)


def _joined(parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the parameters' data as one tensor, joined along the first dimension."""
    first = parameters[0].data
    length = sum(len(p) for p in parameters)
    end = first.data_ptr()
    storage = first.untyped_storage().data_ptr()
    for parameter in parameters:
        data = parameter.data
        same = data.untyped_storage().data_ptr() == storage and data.is_contiguous()
        if not same or data.data_ptr() != end:
            break
        end += data.numel() * data.element_size()
    else:
        # They are already adjacent.
        return first.as_strided((length, *first.shape[1:]), first.stride())
    joined = torch.cat([p.data for p in parameters])
    begin = 0
    for parameter in parameters:
        parameter.data = joined[begin : begin + len(parameter)]
        begin += len(parameter)
    return joined


def _read_layer(layer: nn.Module) -> Layer:
    foreign: Any = layer
    attention, mlp = foreign.self_attn, foreign.mlp
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    query, key = (None if norm is None else norm.weight for norm in norms)
    return Layer(
        attention_norm_D=foreign.input_layernorm.weight,
        qkv=lay_together([attention.q_proj, attention.k_proj, attention.v_proj]),
        norms=(query, key),
        output=lay_together([attention.o_proj]),
        mlp_norm_D=foreign.post_attention_layernorm.weight,
        gate_up=lay_together([mlp.gate_proj, mlp.up_proj]),
        down=lay_together([mlp.down_proj]),
    )


def _foreign(model: PreTrainedModel) -> Any:  # noqa: ANN401 (transformers' attributes have no types)
    return model
