"""Links of the documentation lead somewhere, its API page names what is there, and no file of results is unknown."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest

import pengi

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


def documented() -> set[object]:
    """The classes and functions of the API page: those that it lists, and those of the modules that it lists."""
    found: set[object] = set()
    for name in re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE):
        value = resolve_name(name)
        if isinstance(value, ModuleType):
            found |= {member for member in vars(value).values() if getattr(member, "__module__", "") == name}
        else:
            found.add(value)
    return found


@by_page
def test_what_the_docs_name_is_on_the_api_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    imports = re.findall(r"from (pengi[\w.]*) import (\w+(?:, \w+)*)", text)
    names = {f"{module}.{name}" for module, listed in imports for name in listed.split(", ")}
    for name in names | set(re.findall(r"`(pengi(?:\.\w+)+)", text)):
        parts = name.split(".")
        parents = [resolve_name(".".join(parts[: count + 1])) for count in range(1, len(parts))]
        assert isinstance(parents[-1], ModuleType) or documented() & {*parents}, name


def test_public_names_and_the_options_of_the_engine_are_on_the_api_page() -> None:
    sources = [inspect.getsource(part) for part in pengi.Pengi.__mro__ if part.__module__.startswith("pengi.")]
    options = {name for source in sources for name in re.findall(r"Unpack\[(\w+)\]", source)}
    expected = {*pengi.__all__, *options} - {"__version__"}
    assert expected <= {getattr(each, "__name__", "") for each in documented()}


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
