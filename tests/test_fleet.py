"""The model of a fleet: what can be worked out by hand comes out."""

from __future__ import annotations

import pytest

from benchmarks.fleet import Fleet, direct, table, tree

EVEN = Fleet(machines=7, size=1000.0, origin=10.0, link=10.0, air=10.0, hop=0.0)


def test_one_machine_takes_as_long_as_its_link_does():
    alone = Fleet(machines=1, size=1000.0, origin=40.0, link=10.0, air=10.0)

    assert (100.0, 1000.0, 1) == (tree(alone, 2).seconds, tree(alone, 2).sent, tree(alone, 2).levels)
    assert 100.0 == direct(alone).seconds


def test_each_from_the_origin_shares_its_link():
    assert (700.0, 7000.0) == (direct(EVEN).seconds, direct(EVEN).sent)


def test_a_chain_adds_what_is_in_the_air_for_each_machine():
    assert pytest.approx(100.0 + 6 * 1.0) == tree(EVEN, 1).seconds


def test_a_link_sends_each_byte_as_often_as_the_tree_is_wide():
    # 100 parts: the first is there after 1 s, and each of them takes 2 s to both of those behind a machine.
    assert pytest.approx(1.0 + 100 * 2.0 + 2.0) == tree(EVEN, 2).seconds
    assert 1000.0 == tree(EVEN, 2).sent


def test_the_table_of_the_page_is_that_of_the_model():
    rows = {row[0]: row[1:] for row in table(Fleet())}

    assert ("1", "89 h", "4.0 PB") == rows["each from the origin"]
    assert ("14", "4.8 min", "400.0 GB") == rows["a tree of width 2"]
    assert ("8", "9.1 min", "400.0 GB") == rows["a tree of width 4"]
