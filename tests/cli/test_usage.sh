#!/usr/bin/env bash
# What the command line says of itself and how it refuses: exit codes, one-line
# errors on standard error, help of every command, completions that their shells
# can parse, a man page without warnings, Ctrl-C.
# Usage: test_usage.sh PROGRAM
set -euo pipefail
novaq=$1
commands="compress local hf ollama url refine validate verify stats info eval run chat tokenize export
    bench completion version help"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# refuses STATUS PATTERN ARGUMENT...: the exit status, nothing on standard
# output, one line on standard error that begins with "novaq: ".
refuses() {
    local want=$1 pattern=$2 got=0
    shift 2
    "$novaq" "$@" >output 2>message </dev/null || got=$?
    [ "$got" -eq "$want" ] || fail "exit $got instead of $want: $* ($(cat message))"
    [ ! -s output ] || fail "a refusal wrote to standard output: $*"
    [ "$(wc -l <message)" -eq 1 ] || fail "not one line: $* ($(cat message))"
    grep -q '^novaq: ' message || fail "no 'novaq: ' in front: $(cat message)"
    grep -qe "$pattern" message || fail "'$pattern' is not in: $(cat message)"
}
succeeds() {
    "$novaq" "$@" >output 2>message </dev/null || fail "exit $?: $* ($(cat message))"
    [ ! -s message ] || fail "a success wrote to standard error: $* ($(cat message))"
    [ -s output ] || fail "no output: $*"
}

# ---- usage errors ------------------------------------------------------------
refuses 2 'novaq --help'
refuses 2 "did you mean 'compress'" compres
refuses 2 'novaq --help' xyzzy
refuses 2 "did you mean '--target-bits'" compress --target-bit 2
refuses 2 'from 0.19 to 8' compress --input x --output y --target-bits 99
refuses 2 'from 0.19 to 8' compress --input x --output y --target-bits=0.18
refuses 2 'nan' compress --input x --output y --target-bits nan
refuses 2 'from 2 to 256' compress --input x --output y --level1-centroids 1
refuses 2 'from 1 to 64' compress --input x --output y --max-subspace-dim 65
refuses 2 'from 1 to 64' compress --input x --output y --min-subspace-dim 65
refuses 2 'resume and --restart contradict' compress --input x --output y --resume --restart
refuses 2 'json and --json-lines are two forms' local x --json --json-lines
refuses 2 'says already what --revision' hf org/name@v1 --revision v2
refuses 2 'says already what --file' hf org/name/m.gguf -f m.gguf
refuses 2 "did you mean '--restart'" compress --input x --output y --restrat
refuses 2 'bytes such as 45000000, 45MB' local x --max-memory=2X
refuses 2 'bytes such as 45000000, 45MB' compress --input x --output y --target-size 45MiBs
refuses 2 'target-size and --target-bits contradict' compress --input x --output y \
    --target-size 45MB --target-bits 2
refuses 2 'target-size and --target-bits contradict' local x --target-size 45MB --bits 2
refuses 2 'target-size and --scheme contradict' compress --input x --output y \
    --target-size 45MB --scheme q8
refuses 2 'target-size and --subspaces contradict' local x --subspaces 4 --target-size 1G
refuses 2 'sweeps and --calibration none contradict' compress --input x --output y \
    --calibration none --sweeps 2
for option in --no-feedback --no-propagate '--column-scales 0.5' '--damping 1' \
    '--calibration-tokens 512' '--column-order energy'; do
    # shellcheck disable=SC2086 # an option and its value
    refuses 2 "^novaq: ${option%% *} and --calibration none contradict" compress --input x \
        --output y --calibration none $option
done
refuses 2 'from 0 to 16' compress --input x --output y --sweeps 99
refuses 2 'from 0 to 4194304' compress --input x --output y --calibration-tokens 4194305
refuses 2 'from 16 to 1048576' compress --input x --output y --segment-rows 15
refuses 2 'natural|energy' compress --input x --output y --column-order up
refuses 2 'above 0' compress --input x --output y --tolerance 0
refuses 2 'needs a value' compress --input
refuses 2 'give --input' compress --output y
refuses 2 'give --output' compress --input x
refuses 2 'two models' compress x --input y --output z
refuses 2 'REGEX=SCHEME' compress --input x --output y --tensor-type k16d1l2
refuses 2 'contradict' compress --input x --output y --scheme q8 --subspaces 4
refuses 2 'is above' compress --input x --output y --min-subspace-dim 8 --max-subspace-dim 4
refuses 2 'ORG/NAME' hf
refuses 2 'path of a model' local
refuses 2 'not a web address' url model.safetensors
refuses 2 'path of an artifact' validate
refuses 2 "unexpected argument 'b'" verify a b
refuses 2 'no model' eval --perplexity x
refuses 2 'give --perplexity' eval m
refuses 2 '--against' eval m --perplexity x --layer-kl
refuses 2 'no prompt' run m
refuses 2 'no model' run -p hello
refuses 2 'no model' chat
refuses 2 'no model' tokenize
refuses 2 'two texts' tokenize m text --file f
refuses 2 'give --to' export m --output y
refuses 2 'give --output' export m --to gguf
refuses 2 'gguf|safetensors' export m --to onnx --output y
refuses 2 'not a known shell' completion tcsh
refuses 2 "did you mean 'stats'" help stat
refuses 2 'unknown option' stats m --threads 2

# ---- failures ----------------------------------------------------------------
refuses 1 'no-such-file' stats no-such-file
refuses 1 'no-such-file' info no-such-file --json
refuses 1 'no-such-file' validate no-such-file
refuses 1 'no-such-file' verify no-such-file
refuses 1 'no-such-file' run no-such-file -p hello
refuses 1 'no-such-file' chat no-such-file
refuses 1 'no-such-file' eval no-such-file --perplexity no-such-text
refuses 1 'no-such-file' export no-such-file --to gguf --output out.gguf
refuses 1 'no-such-file' compress --input no-such-file --output out
mkdir cut-short
: >cut-short/.chunk-000000.part
refuses 3 'cut-short: not a novaq artifact (no manifest.json; an interrupted' validate cut-short
refuses 3 'cut-short: not a novaq artifact (no manifest.json; an interrupted' verify cut-short
printf 'PK\3\4 and the rest of an archive' >weights.pt
printf '\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19' >legacy.bin
printf '\x08\7\x12\7pytorch' >graph.onnx
for command in stats info "compress --output out --input"; do
    # shellcheck disable=SC2086 # the words of a command
    refuses 1 'weights.pt: offset 9: zip: no end record' $command weights.pt
    # shellcheck disable=SC2086
    refuses 1 'legacy.bin: offset 0: a pickle, but not as torch.save begins' $command legacy.bin
    # shellcheck disable=SC2086
    refuses 1 'graph.onnx: offset 0: no graph: not an ONNX model' $command graph.onnx
done
[ ! -e out ] && [ ! -e out.gguf ] || fail "a failed command left something behind"

# Places that cannot be reached: exit status 4. Nobody listens at port 1.
nowhere=http://127.0.0.1:1
export NOVAQ_HTTP_RETRIES=0 NOVAQ_HTTP_CONNECT=5 HF_ENDPOINT=$nowhere HF_HUB_CACHE=$PWD/no-cache \
    HF_HOME=$PWD/no-home OLLAMA_MODELS=$PWD/no-store
for command in "compress --output ./artifacts --input" info stats url; do
    # shellcheck disable=SC2086 # the words of a command
    refuses 4 127.0.0.1 $command $nowhere/model.safetensors
done
refuses 4 '[oO]rg/name' hf org/name --bits 1.5 --subspaces 4 --output model.bin
refuses 4 '[oO]rg/name' compress --input hf://org/name@main --output ./artifacts
refuses 4 '[oO]rg/name' info hf://org/name
export HF_HUB_OFFLINE=1
refuses 4 '[oO]rg/name' hf org/name --output model.bin
unset HF_HUB_OFFLINE
refuses 4 'mistral' ollama http://127.0.0.1:1/library/mistral:7b --bits 1.5 --subspaces 4 --output model.bin
refuses 2 'hf://' hf 'org/na me'
refuses 2 'run: novaq hf hf://org/name' local hf://org/name
refuses 2 'run: novaq ollama ollama://mistral' local ollama://mistral
refuses 2 "run: novaq url $nowhere/m.gguf" local $nowhere/m.gguf
refuses 2 'hf://' hf 'org/name@../x'
unset NOVAQ_HTTP_RETRIES NOVAQ_HTTP_CONNECT HF_ENDPOINT HF_HUB_CACHE HF_HOME OLLAMA_MODELS
[ ! -e artifacts ] && [ ! -e model.bin ] && [ ! -e novaq_compressed.bin ] ||
    fail "a command that reached nothing left something behind"

# ---- reports of a tiny model ---------------------------------------------------
tiny=$(cd "$(dirname "$0")/../fixtures/model" && pwd)
refuses 2 'context of 64; give --n-ctx 64 or less' eval "$tiny/a.gguf" --perplexity "$tiny/text.txt"
printf 'short' >short.txt
refuses 2 'tokens, one window needs 16; give a longer text' eval "$tiny/a.gguf" --n-ctx 16 \
    --perplexity short.txt
measured=(eval "$tiny/aq.gguf" --perplexity "$tiny/text.txt" --against "$tiny/a.gguf" --n-ctx 16)
succeeds "${measured[@]}" --quiet --chunks 9
for label in 'perplexity  ' 'KL divergence mean  ' 'KL divergence 99 %  '; do
    grep -q "^$label" output || fail "eval has no '$label': $(cat output)"
done
grep -qx 'same top token  *[0-9.]* % +/- [0-9.]* %' output || fail "same top token: $(cat output)"
succeeds "${measured[@]}" --quiet --chunks 10 --json
grep -q '"chunks_available": 9' output || fail "chunks_available: $(cat output)"
"$novaq" "${measured[@]}" --quiet --chunks 10 >output 2>message
grep -qx 'novaq: note: the text has only 9 windows' message || fail "no note: $(cat message)"
succeeds run "$tiny/a.gguf" -p '' -n 4 --ignore-eos --temperature 0
succeeds info "$tiny/a.gguf"
grep -q '^bits per weight linear  *16$' output || fail "info: $(cat output)"

# A text is read more than once: not from a pipe. A target that will not do is refused
# before anything is read.
mkfifo pipe
refuses 2 'write it to a file first' local "$tiny/a.gguf" --calibration pipe --output piped.bin
[ ! -e piped.bin ] || fail "a refused calibration left something behind"
refuses 2 'choose another name' compress "$tiny/a.gguf" --single-file --output short.txt --quiet

# ---- pictures ------------------------------------------------------------------
"$novaq" local "$tiny/a.gguf" --calibration none --quiet >output
refuses 2 'neither in .png nor in .svg' stats novaq_compressed.bin --plot layers.gif
refuses 2 'neither in .png nor in .svg' stats nowhere.bin --plot layers.gif
refuses 1 'no coded layers' stats "$tiny/a.gguf" --plot layers.png
refuses 1 'nowhere/layers.png: No such' stats novaq_compressed.bin --plot nowhere/layers.png
status=0
env PATH="$PWD/empty" "$novaq" stats novaq_compressed.bin --plot layers.png >output 2>message ||
    status=$?
[ "$status" -eq 1 ] && grep -q 'needs gnuplot.*gnuplot-nox' message && [ ! -s output ] ||
    fail "without gnuplot: exit $status ($(cat message))"
if command -v gnuplot >/dev/null; then
    # A name is a name, whatever a shell or gnuplot would make of it.
    name='a $(touch owned) `touch owned` "q.png'
    succeeds stats novaq_compressed.bin --plot "$name"
    [ "$(head -c 4 "$name" | od -An -c | tr -d ' ')" = '211PNG' ] || fail "not a PNG: $name"
    succeeds stats novaq_compressed.bin --plot layers.svg
    grep -q '<svg' layers.svg && grep -q attn_output layers.svg || fail "not a picture of layers"
    [ ! -e owned ] || fail "a name was executed"
else
    echo "gnuplot is not installed: no picture was drawn"
fi
# Interrupted, whether gnuplot hears of it (Ctrl-C) or not (kill): nothing stays.
mkdir -p slow
printf '#!/bin/sh\nexec sleep 20\n' >slow/gnuplot
chmod +x slow/gnuplot
PATH="$PWD/slow:$PATH" "$novaq" stats novaq_compressed.bin --plot slow.png >drawn 2>message &
drawing=$!
for _ in $(seq 1200); do
    compgen -G 'slow.png.*' >/dev/null && break
    sleep 0.05
done
kill -TERM $drawing
status=0
wait $drawing || status=$?
[ "$status" -eq 130 ] && grep -q 'interrupted' message || fail "drawing: $status ($(cat message))"
ls | grep -q '\.png\.' && fail "a temporary picture was left behind"
grep -q '^name .* least mse ' output || fail "stats has no table of subspaces: $(cat output)"

# ---- help --------------------------------------------------------------------
succeeds --help
for command in $commands; do
    grep -q "^  $command " output || fail "the overview does not name $command"
done
for command in $commands; do
    succeeds "$command" --help
    grep -q "^Usage: novaq $command" output || fail "$command --help shows no usage"
    grep -q '^Examples:' output || fail "$command --help has no examples"
    [ "$(awk '{ if (length > 100) n++ } END { print n + 0 }' output)" -le 3 ] ||
        fail "$command --help has long lines"
    mv output by-option
    succeeds help "$command"
    cmp output by-option || fail "help $command differs from $command --help"
    succeeds "$command" -h
done
succeeds compress --help
for option in target-bits level1-centroids level2-centroids max-subspace-dim min-subspace-dim \
    max-iterations tolerance seed outlier-percentile threads tensor-type dry-run json quiet \
    'calibration text.txt' 'calibration none' target-size calibration-tokens no-feedback \
    no-propagate sweeps damping column-order column-scales row-means rotation-block max-memory \
    resume restart json-lines hf:// ollama:// https://; do
    case $option in *://) ;; *) option=--$option ;; esac
    grep -q -- "$option" output || fail "compress --help does not name $option"
done
succeeds --version
grep -q '^novaq [0-9]' output || fail "version: $(cat output)"
mv output by-option
succeeds version
cmp output by-option || fail "version differs from --version"
succeeds version --json
grep -qx '{"version": "[0-9.]*"}' output || fail "version --json: $(cat output)"

# ---- completions and man page --------------------------------------------------
parse_with() { # SHELL COMMAND...
    local shell=$1
    shift
    succeeds --completion "$shell"
    cp output "completion.$shell"
    succeeds completion "$shell"
    cmp output "completion.$shell" || fail "completion $shell differs from --completion $shell"
    for command in $commands; do
        grep -qw -- "$command" "completion.$shell" || fail "$shell completion lacks $command"
    done
    if command -v "$shell" >/dev/null; then
        "$@" "completion.$shell" || fail "$shell cannot parse its completion"
    else
        echo "$shell is not installed: its completion was not parsed"
    fi
}
parse_with bash bash -n
parse_with zsh zsh -n
parse_with fish fish -n

# Bash can be asked what it would offer.
offers() { # WANTED WORD...: the last word is being completed
    local wanted=$1
    shift
    bash -c 'source completion.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _novaq
        printf "%s\n" "${COMPREPLY[@]}"' bash "$@" >offered
    grep -qxe "$wanted" offered || fail "bash does not complete '$*' to $wanted"
}
offers compress novaq comp
offers --target-bits novaq compress --target
offers rotate novaq compress --normalize r
offers energy novaq compress --column-order e
offers --target-size novaq local --target-s
offers --max-memory novaq hf --max
offers --revision novaq hf --rev
offers --plot novaq stats --p
offers --plot novaq refine --p
offers gguf novaq export m --to g
offers zsh novaq completion z
touch some-model.gguf
offers some-model.gguf novaq stats some

succeeds --man
cp output novaq.1
for command in $commands; do
    grep -q "^.SS novaq $command" novaq.1 || fail "the man page lacks $command"
done
for name in scalar avx2 avx512 avx512vnni avx512vbmi neon dotprod; do
    grep -q "^Highest instruction set.*[ ,]$name[,.]" novaq.1 || fail "the man page lacks $name"
    NOVAQ_CPU=$name succeeds --version
done
NOVAQ_CPU='' succeeds --version
NOVAQ_CPU=avx "$novaq" --version >output 2>message || fail "exit $? because of NOVAQ_CPU"
grep -qx 'novaq: warning: NOVAQ_CPU=avx is none of scalar, .*dotprod; ignored' message ||
    fail "NOVAQ_CPU=avx: $(cat message)"
[ "$(wc -l <message)" -eq 1 ] && grep -q '^novaq [0-9]' output || fail "NOVAQ_CPU=avx: $(cat output)"
if command -v man >/dev/null; then
    # Bold is printed as letter, backspace, letter.
    LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l novaq.1 2>warnings | sed 's/.\x08//g' >page ||
        fail "man cannot show the page"
    [ ! -s warnings ] || fail "the man page has warnings: $(cat warnings)"
    grep -q 'EXIT STATUS' page || fail "the man page is cut short"
fi

# ---- standard output that cannot be written ------------------------------------
if [ -w /dev/full ]; then
    status=0
    "$novaq" --help >/dev/full 2>message || status=$?
    [ "$status" -eq 1 ] || fail "exit $status when standard output is full"
    grep -q 'cannot write' message || fail "says nothing when standard output is full"
fi
echo "usage complete"
