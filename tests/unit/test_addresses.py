"""Whose an address is."""

import pytest

from cpro.addresses import customer_of


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("0.0.0.0", "::", False),
        ("unknown", "unknown", True),
        ("unknown", "_hidden", False),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(one: str, other: str, are_same: bool):
    assert (customer_of(one) == customer_of(other)) is are_same


def test_no_address_is_nobodys():
    assert customer_of("") == ""
