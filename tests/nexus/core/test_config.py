"""Configurations from mappings: names, types and rules; and back."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from nexus.core.config import Config, nearest


@dataclass(frozen=True, kw_only=True)
class Inner(Config):
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer(Config):
    """One field of every kind that recipes and models use."""

    name: str
    count: int = 1
    kind: Literal["a", "b"] = "a"
    size: int | tuple[int, int] = 3
    maybe: float | None = None
    many: tuple[int, ...] = ()
    flag: bool = False
    free: dict[str, Any] = field(default_factory=dict)
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 0:
            raise ValueError(f"count is {self.count}; it must be at least 0.")


def test_a_mapping_becomes_typed_and_comes_back():
    mapping = {
        "name": "x",
        "size": [4, 5],
        "maybe": 1,
        "many": [1, 2, 3],
        "free": {"k": [1]},
        "inner": {"rate": 1},
    }
    config = Outer.from_mapping(mapping)
    assert config.size == (4, 5)
    assert config.many == (1, 2, 3)
    assert isinstance(config.maybe, float)
    assert config.inner == Inner(rate=1.0)
    assert Outer.from_mapping(config.to_dict()) == config
    assert config.replace(count=2).count == 2
    assert config.count == 1


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "x", "cuont": 1}, r"Outer has no key 'cuont'\. Did you mean 'count'\?"),
        ({"name": "x", "zzz": 1}, r"Outer has no key 'zzz'\. Known: count, flag"),
        ({}, r"Outer needs name\."),
        ({"name": 3}, r"Outer\.name is 3; it must be str\."),
        ({"name": "x", "count": True}, r"Outer\.count is True; it must be int\."),
        ({"name": "x", "count": 1.5}, r"Outer\.count is 1\.5; it must be int\."),
        ({"name": "x", "flag": 1}, r"Outer\.flag is 1; it must be bool\."),
        ({"name": "x", "kind": "c"}, r"Outer\.kind is 'c'; it must be one of 'a', 'b'\."),
        ({"name": "x", "size": [1, 2, 3]}, r"Outer\.size is \[1, 2, 3\]; it must be int or tuple\[int, int\]\."),
        ({"name": "x", "many": [1, "2"]}, r"Outer\.many is '2'; it must be int\."),
        ({"name": "x", "inner": {"rat": 1}}, r"Inner has no key 'rat'\. Did you mean 'rate'\?"),
        ({"name": "x", "count": -1}, r"count is -1; it must be at least 0\."),
    ],
)
def test_what_does_not_fit_is_named(mapping, message):
    with pytest.raises(ValueError, match=message):
        Outer.from_mapping(mapping)


def test_nearest_of_nothing():
    assert nearest("x", []) == "None is known."


def test_counts_of_stages_are_bounded_one_by_one():
    from nexus import create_model

    with pytest.raises(ValueError, match=r"ResNetConfig.num_layers is \(-1, 1, 1, 1\); it must be at least 0\."):
        create_model("resnet18", num_layers=(-1, 1, 1, 1))


def test_a_number_is_no_other_number_misspelt():
    assert nearest("10", ["0", "1", "2"]) == "Known: 0, 1, 2."
    assert nearest("cot", ["cat", "dog"]) == "Did you mean 'cat'?"
