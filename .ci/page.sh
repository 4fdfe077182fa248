#!/usr/bin/env bash
# The page of results in a real browser, the tables through pdflatex, and a run in a
# terminal. Installs Debian's chromium, texlive-latex-base, texlive-latex-recommended
# (booktabs) and tmux where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v pdflatex >/dev/null || missing+=(texlive-latex-base)
{ command -v kpsewhich && kpsewhich booktabs.sty; } >/dev/null 2>&1 || missing+=(texlive-latex-recommended)
command -v tmux >/dev/null || missing+=(tmux)
if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
go test -tags browser,latex -run 'Browser|LaTeX' ./experiments/report
go test -run TestTerminal ./experiments
