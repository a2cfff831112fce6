"""Rules by operator: a table, and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Rule = TypeVar("Rule")


def registering(rules: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that takes operators and enters what it decorates into ``rules`` for each of them."""

    def of(*operators: str) -> Callable[[Rule], Rule]:
        def register(rule: Rule) -> Rule:
            for operator in operators:
                assert operator not in rules, f"two rules for {operator}"
                rules[operator] = rule
            return rule

        return register

    return of
