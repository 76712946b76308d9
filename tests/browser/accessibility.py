"""Barriers in a folder of pages, found by axe-core: what a reader with a screen reader or weak sight runs into."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe

GRAVE = ("serious", "critical")


def barriers(page, folder, pattern: str = "**/*.html") -> list[str]:
    """Serious and critical findings in the pages of a folder, one line each; an empty list: none.

    Parameters
    ----------
    page : of a Playwright browser.   folder : with the html files.   pattern : which of them.

    Raises
    ------
    ValueError : there is no page, so that an empty list never means that nothing was looked at.
    """
    files = sorted(Path(folder).glob(pattern))
    if not files:
        raise ValueError(f"{folder}: no page {pattern} there")
    found = []
    for file in files:
        page.goto(file.resolve().as_uri())
        results = Axe().run(page, options={"resultTypes": ["violations"]}).response
        for rule in results["violations"]:
            if rule["impact"] in GRAVE:
                nodes = [node["html"][:120] for node in rule["nodes"]]
                found.append(f"{file.name}: {rule['id']} ({rule['help']}), {len(nodes)} times, such as {nodes[:3]}")
    return found
