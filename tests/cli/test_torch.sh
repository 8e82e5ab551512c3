#!/usr/bin/env bash
# A PyTorch model and its SafeTensors twin (tests/fixtures/torch/make_torch.py) are
# the same model: the same artifact but for what it says of its source, and the
# same perplexity.
# Usage: test_torch.sh PROGRAM
set -euo pipefail
novaq=$1
fixtures=$(cd "$(dirname "$0")/../fixtures" && pwd)
export SOURCE_DATE_EPOCH=1700000000

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# The name of the folder is the name of the model.
for form in llama llama-twin; do
    mkdir -p "$form/model"
    cp "$fixtures/torch/$form"/* "$fixtures"/model/a-hf/tokenizer*.json "$form/model"
    for option in "--target-bits 2" "--scheme pq16x8d4" "--target-bits 8"; do
        read -ra words <<<"$option"
        "$novaq" compress --input "$form/model" --output "$form/out${words[1]}" "${words[@]}" \
            --calibration none --quiet >report
    done
    "$novaq" verify "$form/out2" >report
    "$novaq" eval "$form/model" --perplexity "$fixtures/model/text.txt" -c 32 --json --quiet \
        >"$form.json"
done
for out in out2 outpq16x8d4 out8; do
    python3 - "llama/$out" "llama-twin/$out" <<'END'
import json, pathlib, sys

def load(folder):
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["source"].pop("format")  # the tensors, and so their hash, are the same
    manifest.pop("manifest_sha256")  # it is over the source fields, too
    source = manifest["model"].pop("source_format")
    chunks = {p.name: p.read_bytes() for p in folder.glob("chunk-*.bin")}
    assert chunks
    return source, manifest, chunks

torch, twin = load(sys.argv[1]), load(sys.argv[2])
assert torch[0] == "pytorch" and twin[0] == "safetensors", (torch[0], twin[0])
assert torch[1] == twin[1], "the manifests differ"
assert torch[2] == twin[2], "the chunks differ"
END
done
cmp <(python3 -c 'import json; print(json.load(open("llama.json"))["perplexity"])') \
    <(python3 -c 'import json; print(json.load(open("llama-twin.json"))["perplexity"])') ||
    fail "another perplexity"

# A file that would run code is refused, and the command fails.
python3 - <<'END'
import pickle, zipfile

class Bad:
    def __reduce__(self):
        import os
        return os.system, ("touch executed",)

with zipfile.ZipFile("bad.pt", "w") as z:
    z.writestr("m/data.pkl", pickle.dumps({"a": Bad()}, protocol=2))
END
got=0
"$novaq" compress --input bad.pt --output bad --calibration none --quiet >report 2>message || got=$?
[ "$got" -eq 1 ] || fail "exit $got for a file that executes: $(cat message)"
grep -q 'system".*nothing was executed' message || fail "not refused by name: $(cat message)"
[ ! -e executed ] && [ ! -e bad ] || fail "something was executed or written"
echo "a PyTorch model is its twin"
