"""Every error that rloop raises on purpose.

RLoopError
|-- ConfigError        the recipe or the command line is wrong (also a ValueError); exit code 2
|-- TaskError          a problem set or a verifier is malformed (also a ValueError)
|-- StoreError         a run directory is damaged, in use, full, or of another schema version
|-- EngineError        the engine failed
|   |-- EngineUnavailable   an extra package or a device is missing
|   `-- NonFinitePolicy     the policy gives NaN or infinities (also a DegenerateRun)
`-- DegenerateRun      nothing to learn from: said plainly, with the counts

A message says what is wrong, the value, and the remedy, with names as the user writes them. A bad
completion is data (a `Verdict`), not an error.
"""


class RLoopError(Exception):
    """Base of all errors below: a sentence for the user, no traceback needed."""


class ConfigError(RLoopError, ValueError):
    """The recipe or the command line asks for something that cannot be."""


class TaskError(RLoopError, ValueError):
    """A problem set or its verifier is malformed."""


class StoreError(RLoopError):
    """A run directory is damaged, in use by another process, full, or of another schema version."""


class EngineError(RLoopError):
    """The engine could not do its work."""


class EngineUnavailable(EngineError):
    """The engine needs a package or a device that is not here."""


class DegenerateRun(RLoopError):
    """The run has nothing left to learn from; everything so far is kept."""


class NonFinitePolicy(EngineError, DegenerateRun):
    """The policy's weights or log-probabilities are NaN or infinite: nothing can be done with it.

    An exploration that meets it ends early with its pool; anything else stops, with all kept.
    """
