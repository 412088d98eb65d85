"""The C kernels of a decode step (`kernels.c`): built by the machine's compiler, called on tensors.

Each does in one pass what takes PyTorch about forty small operations per layer. A build is for one
precision and shape of heads, takes about a second, and is cached under a name that covers source,
compiler and processor. If it fails, `KernelsUnavailable` says why.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from rloop.policies.directory import cache_root

SOURCE = Path(__file__).with_name("kernels.c")
LANES = 16
"""Widths must be multiples of it."""
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""No -ffast-math: it would treat NaN as a number."""
DTYPES = (torch.bfloat16, torch.float32)
_Pointer = ctypes.c_void_p
_Int = ctypes.c_int64
_Float = ctypes.c_float
_log = logging.getLogger(__name__)
SIGNATURES = {
    "add_norm": [*[_Pointer] * 4, _Int, _Int, _Float],
    "silu_mul": [*[_Pointer] * 2, _Int, _Int],
    "attend": [*[_Pointer] * 11, *[_Int] * 5, _Float, _Float],
    "draw": [*[_Pointer] * 4, _Int, _Int, _Float],
}


class KernelsUnavailable(Exception):
    """There are no kernels here; the message says why, as a clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Parameters that turn projections into queries and keys. P positions, K head width."""

    cosines_PK: torch.Tensor
    """Of the rotary embedding, as are the sines."""
    sines_PK: torch.Tensor
    query_norm_K: torch.Tensor | None
    """Weight of the norm of each query, if the model has one."""
    key_norm_K: torch.Tensor | None
    scaling: float
    """Factor of the scores."""
    eps: float
    """Of the norms."""


@dataclass(frozen=True, slots=True)
class LayerStates:
    """A layer's keys and values. R rows, F families, which are rows of one prompt."""

    rows_R: torch.Tensor
    """Family by family."""
    families_F4: torch.Tensor
    """Where its rows begin, how many they are, the address of its prompt's pages of all layers
    [layers, G, T / LANES rounded up, 2, LANES K], the prompt's length T."""
    own: torch.Tensor
    """Pages of what follows the prompts, [R, G, C / LANES, 2, LANES K]."""
    number: int
    """Of the layer."""


class Kernels:
    """The functions of one build. Tensors are contiguous, on the CPU, and in its precision.

    Shape letters: R rows, D model width, I width of the MLP, H query heads, G key-value heads, K
    head width, C capacity of the cache, S positions seen, V vocabulary.
    """

    def __init__(self, library: Path) -> None:
        """Load a build; KernelsUnavailable where the machine will not."""
        try:
            foreign = ctypes.CDLL(str(library))
        except OSError as error:
            raise KernelsUnavailable(f"{library} does not load ({error})") from error
        for name, signature in SIGNATURES.items():
            function = getattr(foreign, name)
            function.argtypes, function.restype = signature, None
        self.is_parallel = bool(foreign.is_parallel())
        self._add_norm, self._silu_mul = foreign.add_norm, foreign.silu_mul
        self._attend, self._draw = foreign.attend, foreign.draw

    def add_norm(
        self,
        residual_RD: torch.Tensor,
        delta_RD: torch.Tensor | None,
        weight_D: torch.Tensor,
        normed_RD: torch.Tensor,
        eps: float,
    ) -> None:
        """Add delta to the residual, in place; normed = weight residual / rms(residual)."""
        delta = None if delta_RD is None else delta_RD.data_ptr()
        self._add_norm(
            residual_RD.data_ptr(),
            delta,
            weight_D.data_ptr(),
            normed_RD.data_ptr(),
            *residual_RD.shape,
            eps,
        )

    def silu_mul(self, gate_up_R2I: torch.Tensor, out_RI: torch.Tensor) -> None:
        """Write out = silu(gate) * up."""
        self._silu_mul(gate_up_R2I.data_ptr(), out_RI.data_ptr(), *out_RI.shape)

    def attend(
        self,
        qkv_RN: torch.Tensor,
        positions_R: torch.Tensor,
        heads: Heads,
        states: LayerStates,
        scores_RHS: torch.Tensor,
        out_RN: torch.Tensor,
    ) -> None:
        """Write each row's key and value at its position, and attend up to it.

        qkv is [R, (H + 2G) K]; scores is room, [R, H, S] float32, S a multiple of LANES, enough
        for prompt and rest, each rounded up to one; out is [R, HK].
        """
        self._attend(
            qkv_RN.data_ptr(),
            positions_R.data_ptr(),
            states.rows_R.data_ptr(),
            states.families_F4.data_ptr(),
            heads.cosines_PK.data_ptr(),
            heads.sines_PK.data_ptr(),
            None if heads.query_norm_K is None else heads.query_norm_K.data_ptr(),
            None if heads.key_norm_K is None else heads.key_norm_K.data_ptr(),
            states.own.data_ptr(),
            out_RN.data_ptr(),
            scores_RHS.data_ptr(),
            states.number,
            len(states.families_F4),
            states.own.shape[1],
            states.own.shape[2] * LANES,
            scores_RHS.shape[2],
            heads.scaling,
            heads.eps,
        )

    def draw(
        self, logits_RV: torch.Tensor, uniforms_R: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (tokens_R, logprobs_R) as `draw.draw_tokens` does, at a temperature above 0 and
        without top-p or top-k; uniforms are float64.
        """
        tokens_R = torch.empty(len(logits_RV), dtype=torch.long)
        logprobs_R = torch.empty(len(logits_RV), dtype=torch.float32)
        self._draw(
            logits_RV.data_ptr(),
            uniforms_R.data_ptr(),
            tokens_R.data_ptr(),
            logprobs_R.data_ptr(),
            *logits_RV.shape,
            1.0 / temperature,
        )
        return tokens_R, logprobs_R


@cache
def load_kernels(dtype: torch.dtype, head_width: int, num_sharing: int) -> Kernels:
    """Return the kernels for a precision and shape of heads, from the cache or built now.

    KernelsUnavailable says that there is no compiler, or what it said.
    """
    compiler = find_compiler()
    if compiler is None:
        raise KernelsUnavailable("there is no C compiler (CC, cc, gcc or clang)")
    shape = [f"-DHEAD={head_width}", f"-DSHARING={num_sharing}"]
    flags = [*FLAGS, *shape, *(["-DBF16"] if dtype == torch.bfloat16 else [])]
    name = hashlib.sha256(
        "\n".join((SOURCE.read_text(), compiler, _version(compiler), _processor(), *flags)).encode()
    ).hexdigest()[:16]
    target = cache_root() / "kernels" / f"{name}.so"
    if not target.exists():
        _build(compiler, flags, target)
    kernels = Kernels(target)
    if not kernels.is_parallel:
        _log.warning(
            "Sampling uses one core between the matrix products: %s builds no OpenMP. Set CC to a "
            "compiler that does, such as gcc or Homebrew's clang.",
            compiler,
        )
    return kernels


def find_compiler() -> str | None:
    """Return the path of a C compiler: the variable CC, or the first of the usual ones."""
    names = [*os.environ.get("CC", "").split()[:1], "cc", "gcc", "clang"]
    return next((path for path in map(shutil.which, names) if path), None)


def _build(compiler: str, flags: list[str], target: Path) -> None:
    """Compile to the target, completely or not at all; single-threaded if OpenMP is missing."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            part = Path(folder) / target.name
            for threads in (["-fopenmp"], []):
                command = [compiler, *flags, *threads, str(SOURCE), "-o", str(part), "-lm"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    part.replace(target)
                    return
    except OSError as error:
        raise KernelsUnavailable(f"{target.parent} cannot be used ({error})") from error
    said = (done.stderr.strip() or "nothing").splitlines()[0]
    raise KernelsUnavailable(f"{compiler} could not build them ({said})")


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


def _processor() -> str:
    """Return the processor's features, on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
