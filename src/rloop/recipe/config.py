"""The recipe as checked models: what a run is, with nothing filled in later.

Every model refuses unknown keys, wrong types and values out of range. A field's docstring is its
only description; `rloop config` prints it. `engine.py` has the engine, `defaults.py` values for the
required keys.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rloop.recipe import checks
from rloop.recipe.engine import EngineConfig
from rloop.recipe.fields import Count, CountOrZero, Fraction, NonNegative, Positive, Strict

Date = Annotated[str, AfterValidator(checks.check_date)]
TemplateArgs = Annotated[dict[str, Any], AfterValidator(checks.check_template_args)]


class PolicyConfig(Strict):
    """Where the base policy comes from."""

    path: str
    """A Hugging Face directory or hub name; a `.gguf` file; `package:NAME` for a GGUF file in an
    installed package; `random:llama`, `random:qwen2` or `random:qwen3` for a tiny random model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""


class TaskConfig(Strict):
    """One set of problems and the verifier that judges answers to them."""

    source: str
    """`reasoning_gym:DATASET`, `file:PATH` (.jsonl, .json, .csv, .tsv, each with .gz or without, or
    .parquet), `hub:OWNER/NAME`, `verifiers:ENVIRONMENT` (one turn), or the plain name of a
    benchmark (`gsm8k`, `math500`, ...)."""
    name: str | None = None
    """Name in metrics and the store; the source's own name when absent."""
    split: str | None = None
    """Split of the source, `train` or `test`; when absent `test` for a benchmark that is held out
    and has one, else the source's first."""
    size: Count | None = None
    """Problems to take, chosen by `seed`; all when absent (reasoning-gym needs a size)."""
    seed: int = 0
    """Seed of the choice, or of the generator for reasoning-gym."""
    params: dict[str, Any] = {}
    """Parameters of a reasoning-gym data set or of an environment, for which `correct_from` is the
    share of the rubric's full reward that is correct; the `name` of a hub data set's
    configuration."""
    fields: dict[str, str] = {}
    """Which column holds `problem`, `answer`, `solution`, `id`, where it is not found by itself; a
    dot leads into an object, as in `reward_model.ground_truth`."""
    filters: dict[str, Any] = {}
    """Keep problems whose column equals the value, or is in the list of values."""
    verifier: str | None = None
    """`math`, `numeric`, `exact`, `choice` or `python:package.module:function`.

    When absent, the source's own; for files and hub data sets `numeric` where every answer is a
    plain number, else `math`."""
    verifier_timeout_s: Positive | None = None
    """Wall-clock limit of one of its verdicts (seconds); `tasks.verifier_timeout_s` when absent."""


class TasksConfig(Strict):
    """What the policy learns from and what it is measured on."""

    train: tuple[TaskConfig, ...] = Field(min_length=1)
    """Problems to explore."""
    evaluate: tuple[TaskConfig, ...] = ()
    """Held-out problems, left out of training; when absent 10 % of those: 20 to 256, at most a
    third."""
    data_dir: str | None = None
    """Folder with the benchmark files; else the variable RLOOP_DATA; else the hub."""
    bad_references: Literal["stop", "drop"] = "stop"
    """What to do with problems whose own reference answer is not judged correct."""
    verifier_workers: Count = 1
    """Worker processes that judge completions."""
    verifier_timeout_s: Positive = 5.0
    """Wall-clock limit of one verdict (seconds); the worker is killed and replaced."""
    max_error_frac: Fraction = 0.1
    """The run stops when more than this fraction of a step's verdicts, or of what one of the
    `rewards` said, are errors."""


class PromptConfig(Strict):
    """How a problem becomes a prompt."""

    system: str | None = None
    """System text; put before the problem by the chat template, or by `{system}` in `template`."""
    template: str | None = None
    """A template with `{problem}` used instead of the model's chat template."""
    suffix: str = ""
    """Text after the problem, such as `Put the final answer in \\boxed{}.`"""
    template_args: TemplateArgs = {}
    """Arguments of the model's chat template, such as `enable_thinking: false`."""
    date: Date | None = None
    """The day that a chat template sees which writes today's date, such as `2026-11-30`; when
    absent the day on which the run begins, and then kept for all of it."""
    max_tokens: Count = 1024
    """Longer prompts are left out and counted (tokens)."""


class RewardConfig(Strict):
    """A number in [0, 1] that RL adds to a completion's reward."""

    function: str
    """`accuracy` (the task's verifier), `format` (`pattern` fits), `length` (1 - tokens /
    `max_completion_tokens`) or `python:package.module:function`."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]+$")
    """Name in metrics and the store; the function's own when absent."""
    weight: float = 1.0
    """Factor in the sum; below 0 the number is a penalty, 0 only logs it."""
    pattern: str | None = None
    """Regular expression that all of the completion must match (`.` fits line ends too);
    for `format`, which needs one."""
    timeout_s: Positive | None = None
    """Wall-clock limit of one call (seconds); `tasks.verifier_timeout_s` when absent."""

    @property
    def label(self) -> str:
        """The reward's name."""
        return self.name or self.function.rpartition(":")[2]


class SamplingConfig(Strict):
    """How completions are drawn."""

    max_completion_tokens: Count
    """Completions are cut here (tokens); in `evaluate` as in `explore` when absent."""
    temperature: NonNegative = 1.0
    """Softmax temperature; 0 takes the most likely token."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus mass; 1 turns it off."""
    top_k: CountOrZero = 0
    """Most likely tokens kept; 0 turns it off."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a completion, such as `["\\nQuestion:"]`. Verifiers see what is before; the
    tokens are stored and trained on as sampled."""


class OptimizerConfig(Strict):
    """AdamW and its schedule."""

    learning_rate: NonNegative
    """Peak learning rate; 0 freezes the policy."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or cosine to zero at the phase's last update."""
    warmup_frac: Fraction = 0.0
    """Fraction of the phase's updates used for linear warm-up."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    grad_clip: NonNegative = 1.0
    """Bound on the global gradient norm; 0 turns it off."""


class EarlyStopConfig(Strict):
    """When exploration ends before `explore.steps`: each rule is off when absent."""

    pass_at_k_falls: Count | None = None
    """Held-out pass@k (largest k) fell this many evaluations in a row (needs `evaluate.every`)."""
    min_entropy: NonNegative | None = None
    """Mean policy entropy below this (nats per token)."""
    max_grad_norm: Positive | None = None
    """Gradient norm before clipping above this."""
    patience_steps: Count = 3
    """Steps in a row that an entropy or gradient rule must hold."""
    min_steps: Count = 1
    """Steps that an exploration has at least, whatever the rules say."""


class ExploreConfig(Strict):
    """Reinforcement learning from the iteration's start policy; every trajectory is kept."""

    steps: Count
    """RL steps in each iteration."""
    prompts_per_step: Count
    """Problems in a step's batch."""
    group_size: Annotated[int, Field(ge=1)]
    """Completions of each prompt (at least 2)."""
    sampling: SamplingConfig
    """How completions are drawn; `temperature` also scales the learner's logits."""
    optimizer: OptimizerConfig
    """A fresh optimizer in each iteration; learning rate 0 samples from a frozen policy (RAFT)."""
    advantage: Literal["grpo", "dr_grpo", "rloo", "maxrl"] = "grpo"
    """Group advantage: (r - mean) / std, r - mean, leave-one-out, or (r - mean) / mean."""
    loss: Literal["dapo", "gspo", "cispo"] = "dapo"
    """Policy loss: token-mean clipped ratio, sequence ratio, or clipped weight on the
    log-probability."""
    clip_low: NonNegative = 0.2
    """Ratios are clipped below 1 - clip_low (cispo: unused)."""
    clip_high: NonNegative = 0.28
    """Ratios are clipped above 1 + clip_high."""
    importance_cap: Annotated[float, Field(ge=1.0)] = 2.0
    """Dual clip: the ratio of a token with a negative advantage weighs no more than this, however
    much less probability the sampler gave it (dapo; the other losses do without)."""
    kl_coef: NonNegative = 0.0
    """Weight of the k3 divergence from the iteration's start policy; 0 turns it off."""
    entropy_coef: NonNegative = 0.0
    """Weight of the entropy bonus, the mean entropy of the tokens trained on; 0 turns it off."""
    updates_per_step: Count = 1
    """Optimizer updates a step's batch is split into."""
    refill_rounds: CountOrZero = 0
    """Dynamic sampling: at most this many extra rounds that replace groups all of whose completions
    are correct, or all wrong."""
    overlong_buffer_tokens: CountOrZero = 0
    """Soft overlong penalty over the last tokens before the limit (DAPO, section 3.4); 0 turns it
    off."""
    overlong_penalty: NonNegative = 1.0
    """Penalty at the limit itself."""
    mask_truncated: bool = False
    """Leave completions cut at the length limit out of the loss and its denominator; they count
    for their group's mean and standard deviation (DAPO, section 3.4; TRL)."""
    replay_per_group: CountOrZero = 0
    """Replay (RLEP): every iteration explores from the base, and from iteration 2 on this many
    stored successes of the problem join each group's advantages and loss; 0 turns it off."""
    focus: Literal["uniform", "hard"] = "uniform"
    """From iteration 2: every problem alike, or those with a low but not hopeless success rate
    first."""
    sampler: Literal["auto", "native", "vllm"] = "auto"
    """What draws completions: the native sampler, or vLLM; `auto` is vLLM on a GPU where it is
    installed."""
    early_stop: EarlyStopConfig = EarlyStopConfig()
    """When exploration ends early."""
    max_dead_steps: Count = 20
    """Exploration ends after this many steps in a row in which no group had a signal; so does the
    run where none ever had one, or where it goes on from RL's weights."""
    checkpoint_every: Count = 10
    """Steps between saved states that `rloop resume` continues from."""


class ExpertConfig(Strict):
    """Which trajectories become the expert set."""

    max_success_rate: Fraction
    """Problems solved more often than this over the iteration are left out (active learning)."""
    per_problem_cap: Count | None = None
    """At most this many successes of one problem; all when absent."""
    dedupe: bool = True
    """Remove successes of one problem whose completion text is the same."""
    prefer: Literal["diverse", "newest", "shortest", "random"] = "diverse"
    """Which successes stay when the cap bites: most mutually different first, or as named."""
    weight: Literal["uniform", "inverse_frequency", "importance"] = "uniform"
    """Weight of an example: 1; 1 / kept of its problem; or truncated 1 / behavior probability."""
    weight_cap: Positive = 10.0
    """Truncation of importance weights, relative to their median."""
    window: Literal["iteration", "accumulated"] = "iteration"
    """Trajectories of this iteration, or of all so far."""


class FinetuneConfig(Strict):
    """Rejection-sampling fine-tuning of the start policy on the expert set."""

    epochs: Count
    """Passes over the expert set."""
    batch_size: Count
    """Examples per update."""
    optimizer: OptimizerConfig
    """A fresh optimizer in each phase."""
    init: Literal["iteration_start", "base", "explored"] = "iteration_start"
    """Policy that is fine-tuned: RLoop's reset, always the base, or RL's own weights."""
    checkpoint_every: Count = 100
    """Updates between saved states that `rloop resume` continues from."""


class MixConfig(Strict):
    """What an iteration hands over: a weighted mean of policies; the weights sum to 1."""

    base: Fraction = 0.0
    """Weight of the base that entered the loop (WiSE-FT, arXiv 2109.01903)."""
    start: Fraction = 0.0
    """Weight of the iteration's start policy."""
    explored: Fraction = 0.0
    """Weight of RL's own weights."""
    finetuned: Fraction = 0.0
    """Weight of the policy fine-tuned on the expert set."""


class ColdstartConfig(Strict):
    """Supervised fine-tuning on a task's own solutions before iteration 0."""

    task: TaskConfig
    """Problems with solutions; those that also stand in an evaluation task are left out."""
    epochs: Count
    """Passes over the solutions."""
    batch_size: Count
    """Examples per update."""
    optimizer: OptimizerConfig
    """A fresh optimizer."""
    solution_template: str = "{solution}"
    """Completion text from `{solution}` and `{answer}`."""
    checkpoint_every: Count = 100
    """Updates between saved states that `rloop resume` continues from."""


class EvaluateConfig(Strict):
    """How policies are measured on the held-out tasks."""

    samples: Count
    """Completions per problem, n."""
    k: tuple[Count, ...] = Field(min_length=1)
    """Values of k for pass@k, each at most `samples`."""
    cover: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = (0.25, 0.5)
    """Values of tau for cover@tau: the share of problems solved in at least tau of the samples."""
    sampling: SamplingConfig
    """How completions are drawn."""
    every: CountOrZero = 0
    """RL steps between evaluations inside exploration; 0 turns them off."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Level of the intervals over problems."""
    temperatures: tuple[NonNegative, ...] = (0.3, 0.5, 0.7, 1.0)
    """Where the loop's base and its last policy are measured at the end: is training more than
    sharpening? Empty turns it off."""
    temperature_samples: Count = 16
    """Completions per problem at each of those temperatures, at most `samples`."""

    @property
    def samples_per_temperature(self) -> int:
        """Completions per problem of that check."""
        return min(self.samples, self.temperature_samples)

    @property
    def check_completions(self) -> int:
        """Completions per problem that the check draws in all, from both policies."""
        return 2 * len(set(self.temperatures)) * self.samples_per_temperature


class Recipe(Strict):
    """One experiment, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run; its directory is `runs/NAME`. The file's name when absent."""
    seed: int
    """Seed of everything drawn at random."""
    iterations: Count
    """Turns of the loop."""
    policy: PolicyConfig
    """The base policy."""
    tasks: TasksConfig
    """Problems and verifiers."""
    prompt: PromptConfig = PromptConfig()
    """How a problem becomes a prompt."""
    rewards: tuple[RewardConfig, ...] = ()
    """What RL learns from, as a weighted sum; the task's verifier alone when absent. Selection and
    evaluation go by correctness."""
    coldstart: ColdstartConfig | None = None
    """Teach the format first; off when absent."""
    explore: ExploreConfig
    """Reinforcement learning."""
    expert: ExpertConfig | None
    """Selection; null together with `finetune` gives plain RL."""
    finetune: FinetuneConfig | None
    """Rejection-sampling fine-tuning; null keeps RL's weights (plain RL)."""
    mix: MixConfig | None = None
    """Hand over a mean of weights instead of one policy; off when absent."""
    evaluate: EvaluateConfig
    """Measurement."""
    engine: EngineConfig = EngineConfig()
    """The engine."""
    sinks: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    """Where metrics go besides `metrics.jsonl`."""
    keep_explored: bool = False
    """Keep each iteration's RL weights as a policy directory; RLoop itself throws them away."""
    keep_policies: Literal["all", "last", "best"] = "all"
    """`last` removes the policies of an iteration once the next one's is kept and measured: for
    weights that would fill the disk. `best` does too, but the best policy so far stays."""
    best_by: Annotated[str, Field(pattern=checks.BEST_BY)] = "avg"
    """Which held-out measure the best policy has the highest of, here and for `--policy best`:
    `avg` or `pass@K`, as a mean over the tasks, or one task's, as in `validation/pass@8`."""

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        checks.check_recipe(self)
        return self

    def dated(self, day: str) -> "Recipe":
        """Return the recipe with `prompt.date` set, where it has none."""
        prompt = self.prompt.model_copy(update={"date": self.prompt.date or day})
        return self.model_copy(update={"prompt": prompt})

    def limited(self, size: int) -> "Recipe":
        """Return the recipe with at most so many problems of each evaluation task."""
        tasks = [
            task.model_copy(update={"size": min(size, task.size or size)})
            for task in self.tasks.evaluate
        ]
        config = self.tasks.model_copy(update={"evaluate": tuple(tasks)})
        return self.model_copy(update={"tasks": config})
