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
    "NotConverged": "failures",
    "NotConvergedWarning": "failures",
    "SOLVERS": "solvers",
    "Solution": "iteration",
    "System": "iteration",
    "Unrolled": "solvers",
    "checked": "failures",
    "chain_system": "chain",
    "contract_kernels": "chain",
    "contraction": "chain",
    "history": "fixed_point",
    "solve": "fixed_point",
    "solve_chain": "chain",
    "spectral_radius": "fixed_point",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
