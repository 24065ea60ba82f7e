"""Tests of links between files of the repository, as they are in the site."""

import pytest
from repository_links import linked_within_site


@pytest.mark.parametrize(
    ("page", "link", "led_to"),
    [
        ("cluster.md", "security.md", "security.md"),
        ("cluster.md", "training.md#images", "training.md#images"),
        ("cluster.md", "../deploy/README.md", "deploy/README.md"),
        ("how-to/slurm.md", "../cluster.md", "../cluster.md"),
        ("how-to/slurm.md", "../../deploy/slurm.sh", "../deploy/slurm.sh"),
        ("deploy/README.md", "../docs/security.md", "../security.md"),
        ("deploy/README.md", "slurm.sh", "slurm.sh"),
        ("CONTRIBUTING.md", "docs/design.md#glossary", "design.md#glossary"),
        ("index.md", "images/report.png", "images/report.png"),
        ("index.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("index.md", "#start", "#start"),
    ],
)
def test_a_link_of_the_repository_is_led_to_its_place(page: str, link: str, led_to: str) -> None:
    assert linked_within_site(f"see [it]({link}).", page, ()) == f"see [it]({led_to})."


@pytest.mark.parametrize(
    "code", ["`[a](../deploy/b)`", "    [a](../deploy/b)", "```\n[a](../deploy/b)\n```"]
)
def test_code_is_left_as_it_is(code: str) -> None:
    text = f"before\n\n{code}\n\n[a](../deploy/b)"
    assert linked_within_site(text, "a.md", ()) == f"before\n\n{code}\n\n[a](deploy/b)"


def test_a_page_that_is_made_for_the_site_is_left_as_it_is() -> None:
    assert (
        linked_within_site("[a](../b.md)", "reference/a.md", {"reference/a.md"}) == "[a](../b.md)"
    )
