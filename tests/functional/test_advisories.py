"""Advisories: each one has its row in the threat model, with a test that exists or the reason why there is none."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = (FOLDER.parents[1] / "docs" / "threat-model.rst").read_text(encoding="utf-8")

ADVISORIES = """
CVE-2024-37032
CVE-2026-7020
CVE-2025-44779
CVE-2024-45436
CVE-2025-51471
CVE-2024-12886
CVE-2025-0312
CVE-2025-0315
CVE-2025-1975
CVE-2024-28224
CVE-2025-63389
CVE-2026-7482
CVE-2026-5530
oll#15504
CVE-2026-50151
GHSA-vh4v-2xq2-g5cg
CVE-2026-48978
CVE-2026-50162
CVE-2026-50163
GHSA-m37j-52j7-pjw7
GHSA-h7vf-4x9w-h99v
GHSA-298f-872v-2rcx
GHSA-h3wm-jjqf-8jm2
GHSA-whvf-jp7m-59f3
GHSA-5jhf-2qmf-m8c5
CVE-2021-21272
ggcr #2349
ggcr #2360
ggcr #2293
ggcr #2295
ggcr #2292
ggcr #2332
ggcr #2285
ggcr #2296
ggcr #2328
ggcr #2227
ggcr #2250
CVE-2026-85180
CVE-2026-49349
regclient 1a80807
regclient 39de02d
GHSA-qv35-3gw6-8q4j
CVE-2024-3727
CVE-2019-10214
CVE-2020-15157
CVE-2023-25153
GHSA-5j5w-g665-5m35
GHSA-mc8v-mgrf-8f4m
GHSA-qq97-vm5h-rrhg
CVE-2025-47290
CVE-2026-33540
CVE-2026-35172
CVE-2023-2253
CVE-2022-47747
CVE-2025-59352
CVE-2025-59346
CVE-2026-54637
CVE-2025-59354
CVE-2025-59410
CVE-2025-59350
CVE-2025-59349
containerd 7b11d6cae
CVE-2026-15717
hf#1345
python-storage #1768
python-storage #1774
CVE-2026-22701
CVE-2025-68146
CVE-2023-32681
CVE-2024-35195
CVE-2024-47081
CVE-2026-25645
CVE-2018-18074
CVE-2018-20060
CVE-2018-25091
CVE-2023-43804
CVE-2023-45803
GHSA-34jh-p97f-mpxf
GHSA-2xpw-w6gg-jr37
GHSA-gm62-xv2j-4w53
GHSA-38jv-5279-wg99
GHSA-mf9v-mfxr-j63j
GHSA-qccp-gfcp-xxvc
urllib3 2.5.0
CVE-2021-41131
CVE-2019-3500
""".strip().splitlines()


def rows() -> dict[str, str]:
    """What the page says about each advisory, by its name."""
    said: dict[str, str] = {}
    for row in re.findall(r"^   \* - (.+)\n     - (?:.+)\n     - ((?:.+\n?(?:       .+\n)*))", PAGE, re.MULTILINE):
        for name in row[0].split(","):
            said[name.strip()] = " ".join(row[1].split())
    return said


def defined() -> set[str]:
    """The tests of the advisories, by name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.glob("test_advisories_*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_advisory_has_a_row_with_a_test_or_a_reason():
    said = rows()
    for advisory in ADVISORIES:
        answered = said[advisory]
        assert re.match(r"``test_\w+``|Not applicable: .{20,}|Not yet: .{20,}", answered), (advisory, answered)


def test_every_test_that_the_page_names_exists():
    named = set(re.findall(r"``(test_\w+)``", PAGE))
    assert set() == named - defined()


def test_every_test_of_an_advisory_is_in_the_page():
    named = set(re.findall(r"``(test_\w+)``", PAGE))
    assert set() == {name for name in defined() if name.startswith("test_")} - named
