"""Links of the documentation lead somewhere, its API page names what is there, and no file of results is unknown."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results/README.md", ROOT / "examples/README.md"])
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@by_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_on_the_site_and_in_the_readme() -> None:
    site, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("mkdocs.yml", "README.md"))
    for page in ROOT.glob("docs/*.md"):
        assert f" {page.name}\n" in site, page
        assert page.name == "index.md" or f"(docs/{page.name})" in readme, page


def test_the_api_page_names_what_is_there() -> None:
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        assert attribute in vars(import_module(module)) or import_module(name), name


def test_every_file_of_results_is_described() -> None:
    described = (ROOT / "results/README.md").read_text(encoding="utf-8")
    for file in ROOT.glob("results/**/*"):
        name = file.relative_to(ROOT / "results").as_posix()
        assert file.is_dir() or name == "README.md" or f"`{name}`" in described, name


def test_scripts_that_the_docs_name_are_there() -> None:
    for page in PAGES:
        for script in re.findall(r"\bbenchmarks/\w+\.py|\brecipes/[\w-]+\.yaml", page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file() or page.name == "CHANGELOG.md", (page, script)


def test_the_reference_of_the_command_line_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    make_cli = import_module("make_cli")
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert page == make_cli.reference(), "run: python docs/make_cli.py"
