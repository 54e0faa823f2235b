"""Jacobi and optimistix's iteration stop at the same evaluation of F."""

import pytest

from benchmarks import feedback
from ffnlab.feedback.solvers import Jacobi

pytest.importorskip("optimistix", reason="a peer of benchmarks alone")


def test_rows_beside_optimistix(capsys):
    task = feedback.make_task("certified", 64, 4)
    forward, gradient = feedback._forward_rows(task), feedback._gradient_rows(task)
    assert [entry.target for entry in forward] == [None, 1.1]
    assert [entry.target for entry in gradient] == [None, 0.3, 0.3]
    assert forward[0].setting == forward[1].setting
    assert capsys.readouterr().out.count("evaluations of F, to") == 2


def test_other_stopping_rules_are_an_error():
    from benchmarks import feedback_peers

    task = feedback.make_task("certified", 64, 4)
    ours = feedback.solving(task, None, solver=Jacobi(1e-4, 60))
    theirs = feedback_peers.solving(1e-5, 60)
    with pytest.raises(AssertionError, match="same rule"):
        feedback._check_evaluations(task, 1e-4, ours, theirs)
