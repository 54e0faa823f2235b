"""Networks whose states depend on both neighbours, solved as a fixed point."""

from ffnlab.lazy import attach

_NAMES = {
    "Anderson": "solvers",
    "FeedbackConfig": "layers",
    "FeedbackLayer": "layers",
    "FeedbackNetwork": "layers",
    "GaussSeidel": "solvers",
    "Jacobi": "solvers",
    "Krylov": "solvers",
    "Newton": "solvers",
    "Solution": "iteration",
    "System": "iteration",
    "Unrolled": "solvers",
    "solve": "fixed_point",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
