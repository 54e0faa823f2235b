"""Many runs in one compiled program, and the comparisons made with them."""

from ffnlab.lazy import attach

_NAMES = {
    "CompareConfig": "comparison_config",
    "CompareResult": "results",
    "FeedbackCompareConfig": "feedback_config",
    "JudgeConfig": "judge_config",
    "ScratchParityConfig": "scratch_parity_config",
    "check_parity": "scratch_parity",
    "compare": "comparison",
    "compare_feedback": "feedback_comparison",
    "curves": "result_lines",
    "evaluate_members": "scoring",
    "fit_population": "population",
    "judge": "judgement",
    "rank": "ranking",
}

__getattr__, __dir__, __all__ = attach(__name__, _NAMES)
