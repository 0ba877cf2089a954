"""What is installed is what was locked, and nothing that is known to be vulnerable. Needs no network.

A new advisory is a line in FIXED: its test fails until the lock has moved (`make lock LOCK_ARGS=--upgrade`).
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.architecture.source import ROOT

LOCKS = ("requirements.txt", "requirements-test.txt")
# The first version without the fault, and the fault's name: of what we run, whatever part of it we use.
FIXED = {
    "aiohttp": ("3.13.3", "CVE-2025-69223"),
    "celery": ("5.2.2", "CVE-2021-23727"),
    "certifi": ("2024.7.4", "CVE-2024-39689"),
    "cryptography": ("44.0.1", "CVE-2024-12797"),
    "flask": ("3.1.1", "CVE-2025-47278"),
    "flask-cors": ("6.0.0", "CVE-2024-6839"),
    "flower": ("1.2.0", "CVE-2022-30034"),
    "gevent": ("23.9.0", "CVE-2023-41419"),
    "gunicorn": ("23.0.0", "CVE-2024-6827"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "idna": ("3.7", "CVE-2024-3651"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "mako": ("1.2.2", "CVE-2022-40023"),
    "marshmallow": ("4.1.2", "CVE-2025-68480"),
    "pyjwt": ("2.10.1", "CVE-2024-53861"),
    "requests": ("2.32.4", "CVE-2024-47081"),
    "setuptools": ("78.1.1", "CVE-2025-47273"),
    "tornado": ("6.5", "CVE-2025-47287"),
    "urllib3": ("2.5.0", "CVE-2025-50181"),
    "werkzeug": ("3.1.4", "CVE-2025-66221"),
}


@cache
def locked(name: str) -> dict[str, tuple[str, int]]:
    """Return each package of a lock with its version and how many hashes it may have."""
    found = re.findall(r"^([a-z0-9-]+)==(\S+).*\\\n((?:    --hash=sha256:\S+.*\n?)*)", _text(name), re.MULTILINE)
    return {package: (number, hashes.count("--hash=sha256:")) for package, number, hashes in found}


def _text(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_locked_to_a_version_and_its_hashes(lock: str) -> None:
    named = re.findall(r"^(\S+)", _text(lock), re.MULTILINE)

    assert len(named) == len(locked(lock)) > 50
    assert [package for package, (_, hashes) in locked(lock).items() if not hashes] == []


@pytest.mark.parametrize("package", FIXED)
def test_nothing_that_is_locked_has_a_known_vulnerability(package: str) -> None:
    least, name = FIXED[package]
    numbers = {locked(lock)[package][0] for lock in LOCKS if package in locked(lock)}

    assert numbers, f"{package} is not used any more: take out its line"
    assert min(map(Version, numbers)) >= Version(least), name


@pytest.mark.parametrize("package", FIXED)
def test_what_runs_is_what_is_locked(package: str) -> None:
    numbers = {locked(lock)[package][0] for lock in LOCKS if package in locked(lock)}

    assert {version(package)} == numbers
