#!/bin/sh
# The rules as a picture, docs/rulegraph.svg. Figures and targets that only gather are left out,
# and arrows that others imply. Usage: setup/rulegraph.sh SNAKEMAKE
if ! command -v dot >/dev/null 2>&1; then
	echo "graphviz is missing: apt-get install graphviz" >&2
	exit 1
fi
graph=$("$1" all --rulegraph dot) || exit 1
echo "$graph" | awk '
	/^digraph/ { inside = 1 }
	!inside { next }
	/label = "(plot_[a-z_]*|all|polysemy|imaging)"/ { split($1, node, "["); left_out[node[1]]; next }
	$2 == "->" && ($1 in left_out || $3 in left_out) { next }
	{ print }
' | tred | dot -Tsvg >docs/rulegraph.svg
