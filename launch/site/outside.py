"""What the documentation links to outside its folder, for the site: a hook of MkDocs.

`../CHANGELOG.md` is right where somebody browses the repository. In the site such a file lies beside the pages, under
the path that it has in the repository; a folder is a page that lists its files.
"""

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parent.parent.parent
OUTSIDE: Final = re.compile(r"\]\(\.\./([^)#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add what any page links to outside the folder, and the style."""
    linked = {name for page in files.documentation_pages() for name in OUTSIDE.findall(page.content_string)}
    for name in sorted(linked):
        path = ROOT / name
        if path.is_dir():
            below = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith("__")]
            listing = "\n".join(f"- [{file.name}]({file.name})" for file in below)
            files.append(File.generated(config, f"{name}/index.md", content=f"# {name}\n\n{listing}\n"))
            for file in below:
                files.append(File.generated(config, f"{name}/{file.name}", abs_src_path=str(file)))
        elif path.is_file():
            files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "site.css", abs_src_path=str(Path(__file__).with_name("site.css"))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the site: of pages in the folder to what lies outside, and the other way round."""
    if page.file.generated_by:
        return markdown.replace("](docs/", "](")
    return OUTSIDE.sub(lambda link: f"]({link[1]}" + ("/index.md" if (ROOT / link[1]).is_dir() else ""), markdown)
