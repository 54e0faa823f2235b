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
    "chain_system": "chain",
    "contract_kernels": "chain",
    "contraction": "chain",
    "history": "iteration",
    "solve": "fixed_point",
    "solve_chain": "chain",
    "spectral_radius": "fixed_point",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
