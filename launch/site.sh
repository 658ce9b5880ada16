#!/usr/bin/env bash
# Builds the documentation as a site of plain files. A link that leads nowhere, or a page that is in no menu, is an error.
#
#   bash launch/site.sh [FOLDER]      build/site, where none is named; open its index.html
#
# The search takes a server: python3 -m http.server --bind 127.0.0.1 --directory build/site
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

set_up docs
folder=$(realpath -m -- "${1:-$ROOT/build/site}")
# Quietly would not do: what MkDocs does not say it does not count as an error either.
if ! words=$(NO_MKDOCS_2_WARNING=1 "$VENV/bin/python" -P -m mkdocs build --strict --config-file "$ROOT/launch/site/mkdocs.yml" --site-dir "$folder" 2>&1); then
    grep -vE '^INFO' <<< "$words" >&2
    fail "the documentation is no site yet"
fi
say "the documentation: $folder/index.html"
