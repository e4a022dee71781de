"""Annealed importance sampling against sums over all states."""

from __future__ import annotations

import pytest
import torch

from mmcore.fusion.dbm.annealing import inferred_base, log_partition, sampled_base
from tests.fusion.dbm.exact import log_sum_given, log_z, random_machine
from tests.fusion.dbm.test_machine import MACHINES, visibles


@MACHINES
def test_the_estimate_of_log_z_is_within_its_error(kinds, depth) -> None:
    machine = random_machine(kinds, depth)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        found, error = log_partition(machine, sampled_base(machine, random), 200, 200, random)
        assert abs(found - log_z(machine)) < 4 * error
        assert error < 0.01


@pytest.mark.parametrize("present", [[True, True], [True, False], [False, True], [False, False]])
def test_the_sum_over_what_a_row_does_not_have_is_within_its_error(present) -> None:
    machine = random_machine(depth=2)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        rows, there = visibles(machine, 5), torch.tensor([present] * 5)
        found, error = log_partition(machine, inferred_base(machine, rows, there, 10), 200, 100, random, rows, there)
        assert ((found - log_sum_given(machine, rows, present)).abs() < 4 * error).all()
        assert (error < 0.02).all()


def test_more_temperatures_make_it_surer() -> None:
    machine = random_machine(strength=1.5)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        base = sampled_base(machine, random)
        coarse, fine = (log_partition(machine, base, 200, steps, random)[1] for steps in (5, 500))
    assert fine < coarse / 2


def test_one_chain_knows_no_error() -> None:
    machine = random_machine()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        _, error = log_partition(machine, sampled_base(machine, random), 1, 10, random)
    assert error.isinf()
