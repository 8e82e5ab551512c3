/* opt_table.c - every command and every option, once. See opt.h. */
#include "opt.h"

#include <math.h>

#define BIT(c)      ((uint32_t)1 << (c))
#define ALL         (BIT(CMD_COUNT) - 1)
#define FETCH       (BIT(CMD_HF) | BIT(CMD_OLLAMA) | BIT(CMD_URL))
#define SEED1       (BIT(CMD_LOCAL) | FETCH)
#define COMPRESSING (BIT(CMD_COMPRESS) | SEED1)
#define INSPECTING  (BIT(CMD_VALIDATE) | BIT(CMD_VERIFY) | BIT(CMD_STATS) | BIT(CMD_INFO))
#define TALKING     (BIT(CMD_RUN) | BIT(CMD_CHAT))
#define RUNNING     (BIT(CMD_EVAL) | TALKING | BIT(CMD_TOKENIZE))
#define U64_MAX     18446744073709551615.0

#define EXAMPLES(...) ((const char *const[]){__VA_ARGS__, NULL})

const opt_command opt_commands[CMD_COUNT] = {
    [CMD_NONE] =
        {"novaq", "COMMAND [OPTIONS]", "make large language models small and run the result",
         "novaq compresses the weights of a language model to between 0.2 and 8 bits each, "
         "measures what that costs, runs the result on an ordinary CPU, and exports it again "
         "for other tools.",
         0, 0, "",
         EXAMPLES("novaq compress --input model.gguf --output small --target-bits 4",
                  "novaq stats small", "novaq run small -p \"The capital of France is\"")},
    [CMD_COMPRESS] =
        {"compress", "--input MODEL --output PATH [OPTIONS]", "compress a model",
         "MODEL is a SafeTensors, GGUF, PyTorch or ONNX file or a directory, or lies elsewhere: "
         "hf://ORG/NAME[@REVISION][/FILE] on the Hugging Face Hub, ollama://NAME[:TAG] in the "
         "library of Ollama, or an http:// or https:// address. What is elsewhere is compressed "
         "while it arrives; nothing of it is written to disk. The new artifact is a directory, or "
         "one file when PATH ends in .bin, .novaq or .safetensors or when --single-file is given. "
         "An interrupted run goes on where it stopped when the same command is given again. With "
         "only --target-bits the planner picks a scheme for each tensor. Giving "
         "--level1-centroids, --level2-centroids, --max-subspace-dim, --min-subspace-dim or "
         "--subspaces selects two-level product quantization with exactly those parameters. A "
         "model that novaq can run is first run on text it samples itself, so that the codec "
         "knows which weights matter; --calibration takes a text of yours instead, or none.",
         0, 1, "",
         EXAMPLES("novaq compress --input model.safetensors --output ./artifacts",
                  "novaq compress --input hf://ORG/NAME --output ./artifacts",
                  "novaq compress --input hf://ORG/NAME@main/model-f16.gguf --output small.novaq",
                  "novaq compress --input https://example.com/model.gguf --output small.novaq "
                  "--calibration none",
                  "novaq compress --input model.gguf --output small.novaq --target-bits 2",
                  "novaq compress --input model.gguf --output small --target-bits 2 "
                  "--calibration text.txt",
                  "novaq compress --input model.gguf --output small --target-bits 2 "
                  "--calibration none",
                  "novaq compress --input ./model --output ./artifacts --target-bits 2.0 "
                  "--level1-centroids 32 --level2-centroids 16",
                  "novaq compress --input ./model --output ./artifacts --scheme k16d1l2 "
                  "--keep-embedding",
                  "novaq compress --input model.gguf --output small.novaq --target-size 45MB",
                  "novaq compress --input ./model --tensor-type 'attn_.*=k16d1l2' "
                  "--tensor-type 'embd=q8' --dry-run")},
    [CMD_LOCAL] = {"local", "PATH [OPTIONS]", "compress a model on disk into one file",
                   "The same as compress with --single-file; PATH is the input.", 1, 1,
                   "give the path of a model: a .safetensors or .gguf file or a directory",
                   EXAMPLES("novaq local model.safetensors --output local-model-novaq.bin",
                            "novaq local model.gguf --bits 1.5 --subspaces 4 --output x.bin")},
    [CMD_HF] = {"hf", "REPO [-f FILE] [--revision REV] [OPTIONS]",
                "compress a model of the Hugging Face Hub",
                "REPO is ORG/NAME, hf://ORG/NAME[@REVISION][/FILE] or the address of its page. "
                "Weights are compressed while they arrive, into one file. A private or gated "
                "repository needs a token in HF_TOKEN; HF_ENDPOINT names another hub. Where a "
                "repository has several models, --file chooses.",
                1, 1, "give a repository such as ORG/NAME",
                EXAMPLES("novaq hf ORG/NAME --bits 1.5 --subspaces 4 --output model-novaq.bin",
                         "novaq hf ORG/NAME --revision v1.0 --target-bits 4",
                         "novaq hf ORG/NAME-GGUF -f name-q8_0.gguf --target-size 2GB")},
    [CMD_OLLAMA] = {"ollama", "MODEL [OPTIONS]", "compress a model of the Ollama library",
                    "MODEL is a name as Ollama takes it: [HOST/][NAMESPACE/]NAME[:TAG]. It is read "
                    "from the store of a local Ollama (OLLAMA_MODELS) if it is there, else from "
                    "the registry, and compressed while it arrives, into one file.",
                    1, 1, "give a model such as NAME:TAG",
                    EXAMPLES("novaq ollama NAME:TAG --bits 1.5 --output model-novaq.bin",
                             "novaq ollama hf.co/ORG/NAME:Q8_0 --target-bits 4")},
    [CMD_URL] = {"url", "URL [OPTIONS]", "compress a model behind a web address",
                 "URL is a SafeTensors, GGUF, PyTorch or ONNX file, or the index.json of a sharded "
                 "one, on a server that answers range requests. config.json and the tokenizer are "
                 "looked for beside it.",
                 1, 1, "give the address of a .safetensors or .gguf file",
                 EXAMPLES("novaq url https://example.com/model.safetensors --output "
                          "model-novaq.bin")},
    [CMD_VALIDATE] = {"validate", "ARTIFACT [OPTIONS]", "check an artifact's structure",
                      "Checks the manifest, sizes and bounds. Reads no weights, so it is fast; "
                      "verify checks every byte. Exit status 3 when something does not hold.",
                      1, 1, "give the path of an artifact",
                      EXAMPLES("novaq validate small.novaq", "novaq validate ./artifacts --json")},
    [CMD_VERIFY] = {"verify", "ARTIFACT [OPTIONS]", "check every byte of an artifact",
                    "validate, then every SHA-256 and BLAKE3, then a full decode. Exit status 3 "
                    "when something does not hold.",
                    1, 1, "give the path of an artifact",
                    EXAMPLES("novaq verify small.novaq", "novaq verify ./artifacts --threads 2")},
    [CMD_STATS] = {"stats", "MODEL [OPTIONS]", "size and error of every layer",
                   "Two tables: size and error of each layer; of each coded one the best, mean "
                   "and worst error over its subspaces and how evenly its symbols are used. Bits "
                   "per weight are counted from bytes on disk over all tensors; ratios are "
                   "against the same tensors in 16-bit and 32-bit floats. --plot draws error, "
                   "bits and cosine of the coded layers, block by block, with gnuplot.",
                   1, 1, "give the path of an artifact or a model",
                   EXAMPLES("novaq stats small.novaq", "novaq stats ./artifacts --json",
                            "novaq stats small.novaq --plot layers.png",
                            "novaq stats hf://ORG/NAME")},
    [CMD_INFO] = {"info", "MODEL [OPTIONS]", "what a model is",
                  "Architecture, hyperparameters, tokenizer and tensors of a model or an artifact.",
                  1, 1, "give the path of an artifact or a model",
                  EXAMPLES("novaq info model.gguf", "novaq info ./artifacts --json",
                           "novaq info hf://ORG/NAME")},
    [CMD_REFINE] =
        {"refine", "ARTIFACT --teacher SOURCE --output PATH [OPTIONS]",
         "teach an artifact by its source",
         "Runs the artifact beside the model it was made from and changes codebooks, row scales "
         "and gains (symbols with --rounds alone), so that its predictions come nearer to the "
         "model's. Windows "
         "of the text that are not learnt from decide which values are kept: the new artifact is "
         "never worse on them than ARTIFACT, which stays as it is. The size grows by the "
         "codebooks alone (--codebook-columns). A run that is interrupted leaves a checkpoint "
         "beside the output; the same command goes on from it and gives the same bytes. --plot "
         "draws how the divergence fell, however the run ended, with gnuplot.",
         1, 1, "give the artifact to refine",
         EXAMPLES("novaq refine small.novaq --teacher model.gguf --output better.novaq",
                  "novaq refine small.novaq --teacher hf://ORG/NAME --output better.novaq "
                  "--calibration text.txt --steps 300",
                  "novaq refine small.novaq --output better.novaq --calibration text.txt "
                  "--json-lines > curve.jsonl",
                  "novaq refine small.novaq --output better.novaq --plot curve.png")},
    [CMD_EVAL] =
        {"eval", "MODEL --perplexity TEXTFILE [OPTIONS]", "measure quality on a text",
         "Perplexity by the protocol of llama-perplexity: windows of --n-ctx tokens, the "
         "second half of each scored. --against SOURCE adds the Kullback-Leibler "
         "divergence from that model's predictions. --kl-divergence-base FILE keeps "
         "MODEL's predictions in the file format of llama-perplexity; with "
         "--kl-divergence and no text, MODEL is measured against such a file. "
         "--ablation compresses MODEL, a source, once as asked (by default --scheme "
         "k16d2l3 --keep-embedding) and then with one part of the codec left out at a "
         "time, and prints what each part is worth; artifacts live in TMPDIR meanwhile. With "
         "--refine the first is refined as well, and a row tells what it was before.",
         0, 1, "",
         EXAMPLES("novaq eval small.novaq --perplexity wiki.test.raw --chunks 20",
                  "novaq eval --perplexity wiki.test.raw ./artifacts --against model.gguf "
                  "--json",
                  "novaq eval small.novaq --kl-divergence-base base.kld --kl-divergence",
                  "novaq eval model.gguf --ablation --perplexity wiki.test.raw --chunks 20 "
                  "--calibration text.txt",
                  "novaq eval model.gguf --ablation --perplexity wiki.test.raw --chunks 20 "
                  "--calibration text.txt --refine=300 --variants no-sliding,paper")},
    [CMD_RUN] = {"run", "MODEL [-p PROMPT] [OPTIONS]", "continue a prompt",
                 "Text appears on standard output as it is generated. Without -p the prompt is "
                 "read from standard input. The prompt is continued as it is; with --chat it is "
                 "what a user says, in the words of the model's chat template. The same seed "
                 "gives the same text.",
                 0, 1, "",
                 EXAMPLES("novaq run small.novaq -p \"Once upon a time\" -n 64",
                          "novaq run small.novaq --chat -p \"Name three rivers.\"",
                          "novaq run ./artifacts --temperature 0 --stop END < prompt.txt")},
    [CMD_CHAT] = {"chat", "MODEL [OPTIONS]", "talk with a model",
                  "Reads lines and answers each, in the words of the model's chat template. On a "
                  "terminal Ctrl-C stops an answer, /help lists commands and Ctrl-D leaves; from a "
                  "pipe every line is a turn. Earlier turns are not computed again. When the "
                  "context is full the oldest turns are forgotten, the system prompt never.",
                  0, 1, "",
                  EXAMPLES(
                      "novaq chat small.novaq",
                      "novaq chat ./artifacts --system \"You answer in one sentence.\" --kv q8",
                      "echo \"Hello\" | novaq chat small.novaq --temperature 0")},
    [CMD_TOKENIZE] = {"tokenize", "MODEL [TEXT] [OPTIONS]", "turn text into token ids",
                      "TEXT is the argument, else --file, else standard input. Prints the ids "
                      "separated by spaces; with --json an object {\"ids\": [...]}; with --lines "
                      "one JSON array for each line of the input.",
                      0, 2, "",
                      EXAMPLES("novaq tokenize model.gguf \"Hello world\"",
                               "novaq tokenize --model small.novaq --file text.txt --json")},
    [CMD_EXPORT] = {"export", "MODEL --to FORMAT --output PATH [OPTIONS]",
                    "write plain weights for other tools",
                    "Decodes every tensor, undoes the rotation and writes a GGUF file or a "
                    "directory with SafeTensors weights, configuration and tokenizer. Matrices "
                    "take --dtype, vectors stay in 32-bit floats.",
                    1, 1, "give the path of an artifact or a model",
                    EXAMPLES("novaq export small.novaq --to gguf --output decoded.gguf",
                             "novaq export ./artifacts --to safetensors --output ./decoded --dtype "
                             "bf16")},
    [CMD_BENCH] = {"bench", "MODEL | --synthetic SHAPE | --codec | --encoder | --kernels [OPTIONS]",
                   "measure how fast a model runs, or the codec itself",
                   "Tokens per second of processing a prompt (pp) and of generating (tg), as mean "
                   "and standard deviation of --repetitions. --synthetic makes an artifact of a "
                   "known shape with random content in a temporary folder, so that speed can be "
                   "measured without weights. Without a model: mean squared error of each scheme "
                   "on unit Gaussian data beside the rate-distortion bound; with --encoder the "
                   "weights coded per second and core, with --kernels the weights multiplied "
                   "per second and the share of the memory's bandwidth.",
                   0, 1, "",
                   EXAMPLES("novaq bench small.novaq -p 128,512 -n 64 -t 1,2",
                            "novaq bench --synthetic llama-1b --bits 2 --format csv",
                            "novaq bench --synthetic llama-2-7b --scheme k16d2l3 -r 1 --json",
                            "novaq bench --codec --schemes k16d2l3,pq16x16d4 --json",
                            "novaq bench --encoder --threads 1",
                            "novaq bench --kernels --schemes k16d2l2 --json")},
    [CMD_COMPLETION] = {"completion", "bash|zsh|fish", "print a shell completion script",
                        "Load it from the shell's start file or install it where the shell looks.",
                        1, 1, "give a shell: bash, zsh or fish",
                        EXAMPLES("source <(novaq completion bash)",
                                 "novaq completion fish > ~/.config/fish/completions/novaq.fish")},
    [CMD_VERSION] = {"version", "[--json]", "print the version", "The same as novaq --version.", 0,
                     0, "", EXAMPLES("novaq version")},
    [CMD_HELP] = {"help", "[COMMAND]", "print help", "The same as COMMAND --help.", 0, 1, "",
                  EXAMPLES("novaq help compress")},
};

const opt_spec opt_specs[] = {
    {OPT_INPUT, BIT(CMD_COMPRESS), OPT_T_TEXT, 'i', "input", NULL, "MODEL", NULL, 0, 0, false, NULL,
     "model to read: a file, an index.json, a directory, or a place: hf://, ollama://, https://"},
    {OPT_REVISION, BIT(CMD_HF), OPT_T_TEXT, 0, "revision", NULL, "REV", NULL, 0, 0, false, NULL,
     "branch, tag or commit to read; the commit it stands for is recorded"},
    {OPT_FILE, BIT(CMD_HF), OPT_T_TEXT, 'f', "file", NULL, "FILE", NULL, 0, 0, false, NULL,
     "file of the repository to read, such as a GGUF among several"},
    {OPT_OUTPUT, BIT(CMD_COMPRESS), OPT_T_TEXT, 'o', "output", NULL, "PATH", NULL, 0, 0, false,
     NULL, "artifact to write: a directory, or a file ending in .bin, .novaq or .safetensors"},
    {OPT_OUTPUT, SEED1, OPT_T_TEXT, 'o', "output", NULL, "FILE", NULL, 0, 0, false,
     "novaq_compressed.bin", "artifact to write"},
    {OPT_TARGET_BITS, COMPRESSING, OPT_T_REAL, 'b', "target-bits", "bits", "BITS", NULL, 0.19, 8,
     false, "1.5",
     "bits per weight over all tensors whose scheme the planner chooses, embeddings and head "
     "included"},
    {OPT_TARGET_SIZE, COMPRESSING, OPT_T_SIZE, 0, "target-size", NULL, "BYTES", NULL, 1, 9e18,
     false, NULL,
     "instead: bytes the whole artifact may take; units kB MB GB are powers of 1000, K M G and "
     "KiB MiB GiB of 1024"},
    {OPT_LEVEL1, COMPRESSING, OPT_T_UINT, 0, "level1-centroids", NULL, "N", NULL, 2, 256, false,
     "16", "entries of the first-level codebook"},
    {OPT_LEVEL2, COMPRESSING, OPT_T_UINT, 0, "level2-centroids", NULL, "N", NULL, 2, 256, false,
     "8", "entries of the second-level (residual) codebook"},
    {OPT_MAX_DIM, COMPRESSING, OPT_T_UINT, 0, "max-subspace-dim", NULL, "N", NULL, 1, 64, false,
     "16", "longest subvector that may be chosen"},
    {OPT_MIN_DIM, COMPRESSING, OPT_T_UINT, 0, "min-subspace-dim", NULL, "N", NULL, 1, 64, false,
     "4", "shortest subvector that may be chosen"},
    {OPT_SUBSPACES, COMPRESSING, OPT_T_UINT, 0, "subspaces", NULL, "N", NULL, 1, 64, false, NULL,
     "length of the subvectors; K1 and K2 follow from --bits unless given"},
    {OPT_ITERATIONS, COMPRESSING, OPT_T_UINT, 0, "max-iterations", NULL, "N", NULL, 1, 1000, false,
     "100",
     "rounds of codebook training at most (sliding schemes start from trained codebooks and take "
     "at most 8)"},
    {OPT_TOLERANCE, COMPRESSING, OPT_T_REAL, 0, "tolerance", NULL, "X", NULL, 0, INFINITY, true,
     "1e-4", "relative improvement of the error that ends training"},
    {OPT_SEED, COMPRESSING, OPT_T_UINT, 's', "seed", NULL, "N", NULL, 0, U64_MAX, false, "42",
     "seed of everything random; the same seed gives the same bytes"},
    {OPT_OUTLIERS, COMPRESSING, OPT_T_REAL, 0, "outlier-percentile", NULL, "X", NULL, 0, 1, false,
     "0.01", "share of rows that --normalize paper rescales"},
    {OPT_NORMALIZE, COMPRESSING, OPT_T_CHOICE, 0, "normalize", NULL, "HOW", "rotate|row|paper|none",
     0, 0, false, "rotate", "what is done to the rows before coding"},
    {OPT_CALIBRATION, COMPRESSING, OPT_T_TEXT, 0, "calibration", NULL, "FILE|self|auto|none", NULL,
     0, 0, false, "auto",
     "what the codec learns the inputs of each matrix from: a text, the model's own samples, or "
     "nothing; auto is self if the model can be run and has at most 2^31 parameters, else none"},
    {OPT_CALIBRATION_TOKENS, COMPRESSING, OPT_T_UINT, 0, "calibration-tokens", NULL, "N", NULL, 0,
     4194304, false, "0",
     "tokens of calibration; 0 means 16384 of a text, 8192 of the model's own"},
    {OPT_NO_FEEDBACK, COMPRESSING, OPT_T_FLAG, 0, "no-feedback", NULL, NULL, NULL, 0, 0, false,
     NULL, "do not make up for a column's errors in the columns coded after it"},
    {OPT_NO_PROPAGATE, COMPRESSING, OPT_T_FLAG, 0, "no-propagate", NULL, NULL, NULL, 0, 0, false,
     NULL, "calibrate each block on what the source computes, not on what coded blocks do"},
    {OPT_SWEEPS, COMPRESSING, OPT_T_UINT, 0, "sweeps", NULL, "N", NULL, 0, 16, false, "0",
     "further passes over the columns of each matrix"},
    {OPT_DAMPING, COMPRESSING, OPT_T_REAL, 0, "damping", NULL, "X", NULL, 0, 10, true, "0.03",
     "added to each Hessian, as a share of its mean diagonal"},
    {OPT_COLUMN_ORDER, COMPRESSING, OPT_T_CHOICE, 0, "column-order", NULL, "HOW", "natural|energy",
     0, 0, false, "natural", "order in which the columns of a matrix are coded"},
    {OPT_COLUMN_SCALES, COMPRESSING, OPT_T_REAL, 0, "column-scales", NULL, "X", NULL, 0, 2, false,
     NULL,
     "exponent of the scales that follow the strength of each input; 0 is none (the default; 0.5 "
     "with --no-feedback)"},
    {OPT_ROW_MEANS, COMPRESSING, OPT_T_FLAG, 0, "row-means", NULL, NULL, NULL, 0, 0, false, NULL,
     "subtract and store the mean of each row"},
    {OPT_ROTATION_BLOCK, COMPRESSING, OPT_T_UINT, 0, "rotation-block", NULL, "N", NULL, 0, 512,
     false, "0", "largest block of the rotation, a power of two from 16; 0 means 512"},
    {OPT_SCHEME, COMPRESSING, OPT_T_TEXT, 0, "scheme", NULL, "NAME", NULL, 0, 0, false, NULL,
     "one scheme for every quantized tensor, such as k16d2l3, pq16x8d4 or q8"},
    {OPT_TENSOR_TYPE, COMPRESSING, OPT_T_LIST, 0, "tensor-type", NULL, "RE=SCHEME", NULL, 0, 0,
     false, NULL, "scheme for tensors whose name matches RE; repeatable, the first match wins"},
    {OPT_SEGMENT_ROWS, COMPRESSING, OPT_T_UINT, 0, "segment-rows", NULL, "N", NULL, 16, 1048576,
     false, "256", "rows that are coded as one chain"},
    {OPT_KEEP_EMBEDDING, COMPRESSING, OPT_T_FLAG, 0, "keep-embedding", NULL, NULL, NULL, 0, 0,
     false, NULL, "leave token embedding and output head as in the source"},
    {OPT_SINGLE_FILE, COMPRESSING, OPT_T_FLAG, 0, "single-file", NULL, NULL, NULL, 0, 0, false,
     NULL, "write one file instead of a directory, whatever its name"},
    {OPT_MAX_MEMORY, COMPRESSING, OPT_T_SIZE, 0, "max-memory", NULL, "BYTES", NULL, 1, 9e18, false,
     NULL,
     "bound on what is fetched ahead of the tensor at work and on the state of the calibration "
     "tokens, which beyond it goes to a temporary file; half of the machine's memory for the state "
     "if not given"},
    {OPT_RESUME, COMPRESSING, OPT_T_FLAG, 0, "resume", NULL, NULL, NULL, 0, 0, false, NULL,
     "go on where an interrupted run of the same command stopped (always done)"},
    {OPT_RESTART, COMPRESSING, OPT_T_FLAG, 0, "restart", NULL, NULL, NULL, 0, 0, false, NULL,
     "throw away what an interrupted run left and begin again"},
    {OPT_DRY_RUN, COMPRESSING, OPT_T_FLAG, 0, "dry-run", NULL, NULL, NULL, 0, 0, false, NULL,
     "print the plan and the size it would give; write nothing (with calibration the model is run "
     "to measure sensitivities; --calibration none makes it fast)"},

    {OPT_REFINE, COMPRESSING, OPT_T_UINT, 0, "refine", NULL, "[=STEPS]", NULL, 0, 1000000, false,
     "0", "refine the result with the source as teacher, see novaq refine; 0 means 300 steps"},
    {OPT_REFINE_BLOCKS, COMPRESSING, OPT_T_UINT, 0, "refine-blocks", NULL, "N", NULL, 0, 100000,
     false, "0",
     "steps by which each block, once coded, learns to give what the original one gives, before "
     "the next is coded"},

    {OPT_TEACHER, BIT(CMD_REFINE), OPT_T_TEXT, 0, "teacher", NULL, "SOURCE", NULL, 0, 0, false,
     NULL, "the model the artifact was made from; if not given, where the artifact says it was"},
    {OPT_OUTPUT, BIT(CMD_REFINE), OPT_T_TEXT, 'o', "output", NULL, "PATH", NULL, 0, 0, false, NULL,
     "artifact to write: a directory, or a file ending in .bin, .novaq or .safetensors"},
    {OPT_SINGLE_FILE, BIT(CMD_REFINE), OPT_T_FLAG, 0, "single-file", NULL, NULL, NULL, 0, 0, false,
     NULL, "write one file instead of a directory, whatever its name"},
    {OPT_STEPS, BIT(CMD_REFINE), OPT_T_UINT, 'n', "steps", NULL, "N", NULL, 1, 1000000, false,
     "300", "steps; the rate of learning falls towards the last"},
    {OPT_ROUNDS, BIT(CMD_REFINE), OPT_T_UINT, 0, "rounds", NULL, "N", NULL, 1, 16, false, "1",
     "split the steps over so many rounds; between two of them symbols are chosen again under the "
     "codebooks learnt so far, and kept where held-out predictions come nearer to the teacher's"},
    {OPT_CALIBRATION, BIT(CMD_REFINE), OPT_T_LIST, 0, "calibration", NULL, "FILE|self", NULL, 0, 0,
     false, NULL,
     "text to learn from, or text that the teacher samples itself (if not given); may be repeated: "
     "files are read one after the other"},
    {OPT_CALIBRATION_TOKENS, BIT(CMD_REFINE), OPT_T_UINT, 0, "calibration-tokens", NULL, "N", NULL,
     0, 4194304, false, "0",
     "tokens of the text at most; 0 means all of a file, or what the steps can use, at most 65536, "
     "of the teacher's own"},
    {OPT_SEQUENCE, BIT(CMD_REFINE), OPT_T_UINT, 0, "sequence", NULL, "N", NULL, 8, 65536, false,
     "512", "tokens of a sequence"},
    {OPT_BATCH, BIT(CMD_REFINE), OPT_T_UINT, 0, "batch", NULL, "N", NULL, 1, 4096, false, "2",
     "sequences a step"},
    {OPT_RATE, BIT(CMD_REFINE), OPT_T_REAL, 0, "lr", "rate", "X", NULL, 0, 1, true, "0.003",
     "rate of learning: a step changes a codebook entry by about this share of the codebook's "
     "size, times the squared relative error of its matrix by 0.09"},
    {OPT_SCALE_RATE, BIT(CMD_REFINE), OPT_T_REAL, 0, "lr-scales", NULL, "X", NULL, 0, 1, false,
     NULL, "the same of row scales and means (twice --lr); 0 leaves them as they are"},
    {OPT_GAIN_RATE, BIT(CMD_REFINE), OPT_T_REAL, 0, "lr-gains", NULL, "X", NULL, 0, 1, false, NULL,
     "the same of the gains and biases of norms (twice --lr); 0 leaves them as they are"},
    {OPT_LAMBDA, BIT(CMD_REFINE), OPT_T_REAL, 0, "lambda", NULL, "X", NULL, 0, 1000000, false, "0",
     "weight of the angle between teacher and student after each block, beside the divergence of "
     "predictions"},
    {OPT_TEMPERATURE, BIT(CMD_REFINE), OPT_T_REAL, 0, "temperature", NULL, "X", NULL, 0, 100, true,
     "1", "temperature of the predictions that are compared"},
    {OPT_TEACHER_CACHE, BIT(CMD_REFINE), OPT_T_TEXT, 0, "teacher-cache", NULL, "FILE", NULL, 0, 0,
     false, NULL,
     "for a teacher that has no room beside the artifact: it is run alone, once, its predictions "
     "for the text go to FILE, and it is closed before learning begins; a FILE of the same teacher "
     "and text is used again, and no teacher is run (--lambda must be 0)"},
    {OPT_TEACHER_TOP, BIT(CMD_REFINE), OPT_T_UINT, 0, "teacher-top", NULL, "K", NULL, 1,
     4294967295.0, false, NULL,
     "most probable next tokens of each prediction that --teacher-cache keeps (64 if not given), 4 "
     "bytes of FILE each (6 with more than 65536 tokens in the vocabulary); all others count as "
     "one"},
    {OPT_CODEBOOK_COLUMNS, BIT(CMD_REFINE), OPT_T_UINT, 0, "codebook-columns", NULL, "N", NULL, 0,
     4294967295.0, false, "64",
     "columns that share codebooks; fewer fit better and take more bytes; 0 means as they are"},
    {OPT_CHECKPOINT, BIT(CMD_REFINE), OPT_T_TEXT, 0, "checkpoint", NULL, "FILE", NULL, 0, 0, false,
     NULL,
     "where an interrupted run is kept (OUTPUT.refine if not given); nothing else is overwritten"},
    {OPT_EXACT, BIT(CMD_REFINE), OPT_T_FLAG, 0, "float32", NULL, NULL, NULL, 0, 0, false, NULL,
     "multiply float32 also where the CPU is faster with bfloat16"},
    {OPT_RESTART, BIT(CMD_REFINE), OPT_T_FLAG, 0, "restart", NULL, NULL, NULL, 0, 0, false, NULL,
     "throw away what an interrupted run left and begin again"},
    {OPT_SEED, BIT(CMD_REFINE), OPT_T_UINT, 's', "seed", NULL, "N", NULL, 0, U64_MAX, false, "42",
     "seed of the order of the text and of what is sampled"},

    {OPT_MODEL, RUNNING, OPT_T_TEXT, 'm', "model", NULL, "PATH", NULL, 0, 0, false, NULL,
     "the model, instead of the argument"},
    {OPT_PERPLEXITY, BIT(CMD_EVAL), OPT_T_TEXT, 'f', "perplexity", "file", "TEXTFILE", NULL, 0, 0,
     false, NULL, "text to measure on"},
    {OPT_CHUNKS, BIT(CMD_EVAL), OPT_T_UINT, 0, "chunks", NULL, "N", NULL, 0, 4294967295.0, false,
     "0", "windows to measure; 0 means all"},
    {OPT_N_CTX, BIT(CMD_EVAL), OPT_T_UINT, 'c', "n-ctx", "ctx", "N", NULL, 8, 1048576, false, "512",
     "tokens in a window"},
    {OPT_AGAINST, BIT(CMD_EVAL), OPT_T_TEXT, 0, "against", NULL, "SOURCE", NULL, 0, 0, false, NULL,
     "model whose predictions are the reference for the divergence"},
    {OPT_LAYER_KL, BIT(CMD_EVAL), OPT_T_FLAG, 0, "layer-kl", NULL, NULL, NULL, 0, 0, false, NULL,
     "with --against: the divergence that each layer causes alone"},
    {OPT_FAST, BIT(CMD_EVAL), OPT_T_FLAG, 0, "fast", NULL, NULL, NULL, 0, 0, false, NULL,
     "multiply as run and chat do, with activations of 8 bits; otherwise float32"},
    {OPT_KL_BASE, BIT(CMD_EVAL), OPT_T_TEXT, 0, "kl-divergence-base", "save-all-logits", "FILE",
     NULL, 0, 0, false, NULL,
     "write the model's predictions to FILE; with --kl-divergence read the reference's from it"},
    {OPT_KL_DIVERGENCE, BIT(CMD_EVAL), OPT_T_FLAG, 0, "kl-divergence", NULL, NULL, NULL, 0, 0,
     false, NULL, "measure against --kl-divergence-base FILE, on the text it was made from"},
    {OPT_ABLATION, BIT(CMD_EVAL), OPT_T_FLAG, 0, "ablation", NULL, NULL, NULL, 0, 0, false, NULL,
     "compress MODEL with one part of the codec left out at a time and measure each"},
    {OPT_VARIANTS, BIT(CMD_EVAL), OPT_T_TEXT, 0, "variants", NULL, "A,B,...", NULL, 0, 0, false,
     NULL, "with --ablation: only these of its rows"},
    {OPT_TARGET_BITS, BIT(CMD_EVAL), OPT_T_REAL, 'b', "target-bits", "bits", "BITS", NULL, 0.19, 8,
     false, NULL, "with --ablation: bits per weight over all quantized tensors"},
    {OPT_SCHEME, BIT(CMD_EVAL), OPT_T_TEXT, 0, "scheme", NULL, "NAME", NULL, 0, 0, false, NULL,
     "with --ablation: one scheme for every quantized tensor"},
    {OPT_KEEP_EMBEDDING, BIT(CMD_EVAL), OPT_T_FLAG, 0, "keep-embedding", NULL, NULL, NULL, 0, 0,
     false, NULL, "with --ablation: leave token embedding and output head as in the source"},
    {OPT_CALIBRATION, BIT(CMD_EVAL), OPT_T_TEXT, 0, "calibration", NULL, "FILE|self|auto|none",
     NULL, 0, 0, false, NULL, "with --ablation: as for compress (auto)"},
    {OPT_SEED, BIT(CMD_EVAL), OPT_T_UINT, 's', "seed", NULL, "N", NULL, 0, U64_MAX, false, NULL,
     "with --ablation: seed of everything random (42)"},
    {OPT_REFINE, BIT(CMD_EVAL), OPT_T_UINT, 0, "refine", NULL, "[=STEPS]", NULL, 0, 1000000, false,
     "0",
     "with --ablation: refine what has everything on, as compress does, and measure it before and "
     "after; all other rows stay unrefined; 0 means 300 steps"},

    {OPT_PROMPT, BIT(CMD_RUN), OPT_T_TEXT, 'p', "prompt", NULL, "TEXT", NULL, 0, 0, false, NULL,
     "text to continue; - reads it from standard input, as no -p does"},
    {OPT_N_PREDICT, BIT(CMD_RUN), OPT_T_UINT, 'n', "max-tokens", "n-predict", "N", NULL, 1, 1048576,
     false, "128", "tokens to generate at most"},
    {OPT_N_PREDICT, BIT(CMD_CHAT), OPT_T_UINT, 'n', "max-tokens", "n-predict", "N", NULL, 1,
     1048576, false, "1024", "tokens of an answer at most"},
    {OPT_TEMPERATURE, TALKING, OPT_T_REAL, 0, "temperature", "temp", "X", NULL, 0, 100, false,
     "0.8", "0 always takes the likeliest token"},
    {OPT_TOP_K, TALKING, OPT_T_UINT, 0, "top-k", NULL, "N", NULL, 0, 4294967295.0, false, "40",
     "choose among the N likeliest tokens; 0 is off"},
    {OPT_TOP_P, TALKING, OPT_T_REAL, 0, "top-p", NULL, "X", NULL, 0, 1, false, "0.95",
     "choose among the likeliest tokens that reach this probability together; 1 is off"},
    {OPT_MIN_P, TALKING, OPT_T_REAL, 0, "min-p", NULL, "X", NULL, 0, 1, false, "0.05",
     "drop tokens less likely than this share of the likeliest; 0 is off"},
    {OPT_REPEAT_PENALTY, TALKING, OPT_T_REAL, 0, "repeat-penalty", NULL, "X", NULL, 0, 100, true,
     "1", "divide the odds of the last 64 tokens by this; 1 is off"},
    {OPT_SEED, TALKING, OPT_T_UINT, 's', "seed", NULL, "N", NULL, 0, U64_MAX, false, "42",
     "seed of the sampling"},
    {OPT_IGNORE_EOS, TALKING, OPT_T_FLAG, 0, "ignore-eos", NULL, NULL, NULL, 0, 0, false, NULL,
     "go on when the model ends its text"},
    {OPT_N_CTX, BIT(CMD_RUN), OPT_T_UINT, 'c', "ctx", "n-ctx", "N", NULL, 0, 16777216, false, "0",
     "positions of the key/value cache; 0 means what prompt and --max-tokens need"},
    {OPT_N_CTX, BIT(CMD_CHAT), OPT_T_UINT, 'c', "ctx", "n-ctx", "N", NULL, 0, 16777216, false, "0",
     "tokens the conversation may have; 0 means the model's context, at most 8192"},
    {OPT_KV_TYPE, TALKING, OPT_T_CHOICE, 0, "kv", "kv-type", "TYPE", "f16|f32|q8", 0, 0, false,
     "f16", "element type of the key/value cache"},
    {OPT_STOP, TALKING, OPT_T_LIST, 0, "stop", NULL, "TEXT", NULL, 0, 0, false, NULL,
     "end before this text; repeatable"},
    {OPT_CHAT, BIT(CMD_RUN), OPT_T_FLAG, 0, "chat", NULL, NULL, NULL, 0, 0, false, NULL,
     "the prompt is what a user says: apply the chat template"},
    {OPT_SYSTEM, BIT(CMD_RUN), OPT_T_TEXT, 0, "system", NULL, "TEXT", NULL, 0, 0, false, NULL,
     "with --chat: the system prompt"},
    {OPT_SYSTEM, BIT(CMD_CHAT), OPT_T_TEXT, 0, "system", NULL, "TEXT", NULL, 0, 0, false, NULL,
     "the system prompt"},
    {OPT_CHAT_TEMPLATE, TALKING, OPT_T_TEXT, 0, "chat-template", NULL, "FILE", NULL, 0, 0, false,
     NULL, "Jinja template to use instead of the model's own"},
    {OPT_TEMPLATE_ARGS, TALKING, OPT_T_TEXT, 0, "template-args", "chat-template-kwargs", "JSON",
     NULL, 0, 0, false, NULL,
     "further variables of the template, such as {\"enable_thinking\": false}"},

    {OPT_FILE, BIT(CMD_TOKENIZE), OPT_T_TEXT, 'f', "file", NULL, "FILE", NULL, 0, 0, false, NULL,
     "read the text from a file; - is standard input"},
    {OPT_LINES, BIT(CMD_TOKENIZE), OPT_T_FLAG, 0, "lines", NULL, NULL, NULL, 0, 0, false, NULL,
     "treat each line as a text of its own"},
    {OPT_NO_SPECIAL, BIT(CMD_TOKENIZE), OPT_T_FLAG, 0, "no-special", NULL, NULL, NULL, 0, 0, false,
     NULL, "do not add the tokens that begin or end a text"},
    {OPT_NO_PARSE_SPECIAL, BIT(CMD_TOKENIZE), OPT_T_FLAG, 0, "no-parse-special", NULL, NULL, NULL,
     0, 0, false, NULL, "special tokens written out in the text are plain text"},

    {OPT_TO, BIT(CMD_EXPORT), OPT_T_CHOICE, 0, "to", "format", "FORMAT", "gguf|safetensors", 0, 0,
     false, NULL, "what to write"},
    {OPT_OUTPUT, BIT(CMD_EXPORT), OPT_T_TEXT, 'o', "output", NULL, "PATH", NULL, 0, 0, false, NULL,
     "file (gguf) or directory (safetensors) to write"},
    {OPT_DTYPE, BIT(CMD_EXPORT), OPT_T_CHOICE, 0, "dtype", NULL, "TYPE", "f16|f32|bf16", 0, 0,
     false, "f16", "element type of matrices"},

    {OPT_PLOT, BIT(CMD_REFINE), OPT_T_TEXT, 0, "plot", NULL, "FILE", NULL, 0, 0, false, NULL,
     "draw the curve of the run into FILE when it ends, a .png or .svg picture (needs gnuplot)"},
    {OPT_PLOT, BIT(CMD_STATS), OPT_T_TEXT, 0, "plot", NULL, "FILE", NULL, 0, 0, false, NULL,
     "draw the layers into FILE, a .png or .svg picture (needs gnuplot)"},

    {OPT_MODEL, BIT(CMD_BENCH), OPT_T_TEXT, 'm', "model", NULL, "PATH", NULL, 0, 0, false, NULL,
     "the model, instead of the argument"},
    {OPT_BENCH_PROMPT, BIT(CMD_BENCH), OPT_T_TEXT, 'p', "n-prompt", NULL, "N,N,...", NULL, 0, 0,
     false, "512", "tokens of each prompt to process; 0 is none"},
    {OPT_BENCH_GENERATE, BIT(CMD_BENCH), OPT_T_TEXT, 'n', "n-gen", NULL, "N,N,...", NULL, 0, 0,
     false, "128", "tokens to generate; 0 is none"},
    {OPT_DEPTH, BIT(CMD_BENCH), OPT_T_TEXT, 'd', "n-depth", "depth", "N,N,...", NULL, 0, 0, false,
     "0", "positions that fill the cache before each test"},
    {OPT_REPETITIONS, BIT(CMD_BENCH), OPT_T_UINT, 'r', "repetitions", NULL, "N", NULL, 1, 10000,
     false, "5", "runs of each test"},
    {OPT_KV_TYPE, BIT(CMD_BENCH), OPT_T_CHOICE, 0, "kv-type", "kv", "TYPE", "f32|f16|q8", 0, 0,
     false, "f16", "element type of the key/value cache"},
    {OPT_FORMAT, BIT(CMD_BENCH), OPT_T_CHOICE, 0, "format", NULL, "FORMAT", "md|json|csv", 0, 0,
     false, "md", "how the table is printed; --json is json"},
    {OPT_SYNTHETIC, BIT(CMD_BENCH), OPT_T_TEXT, 0, "synthetic", NULL, "SHAPE", NULL, 0, 0, false,
     NULL,
     "bench random content of this shape: llama-1b, llama-2-7b, ...; list prints them all instead"},
    {OPT_SCHEME, BIT(CMD_BENCH), OPT_T_TEXT, 0, "scheme", NULL, "NAME", NULL, 0, 0, false, NULL,
     "with --synthetic: scheme of every matrix, such as k16d2l3, pq16x8d4, q8 or f16"},
    {OPT_TARGET_BITS, BIT(CMD_BENCH), OPT_T_REAL, 'b', "bits", "target-bits", "BITS", NULL, 1, 4,
     false, NULL, "with --synthetic: 1, 1.5, 2 (the default), 3 or 4 bits per weight"},
    {OPT_TENSOR_TYPE, BIT(CMD_BENCH), OPT_T_LIST, 0, "tensor-type", NULL, "RE=SCHEME", NULL, 0, 0,
     false, NULL, "with --synthetic: scheme for tensors whose name matches RE"},
    {OPT_SEED, BIT(CMD_BENCH), OPT_T_UINT, 's', "seed", NULL, "N", NULL, 0, U64_MAX, false, NULL,
     "with --synthetic: seed of the content (42)"},
    {OPT_OUTPUT, BIT(CMD_BENCH), OPT_T_TEXT, 'o', "output", "keep", "PATH", NULL, 0, 0, false, NULL,
     "with --synthetic: where the artifact stays; a temporary folder otherwise"},
    {OPT_CODEC, BIT(CMD_BENCH), OPT_T_FLAG, 0, "codec", NULL, NULL, NULL, 0, 0, false, NULL,
     "measure the schemes on unit Gaussian data (the default without a model)"},
    {OPT_ENCODER, BIT(CMD_BENCH), OPT_T_FLAG, 0, "encoder", NULL, NULL, NULL, 0, 0, false, NULL,
     "measure how fast symbols are chosen, with each kernel this machine can run"},
    {OPT_KERNELS, BIT(CMD_BENCH), OPT_T_FLAG, 0, "kernels", NULL, NULL, NULL, 0, 0, false, NULL,
     "measure products with weights, coded or plain, from memory and from cache"},
    {OPT_SCHEMES, BIT(CMD_BENCH), OPT_T_TEXT, 0, "schemes", NULL, "A,B,...", NULL, 0, 0, false,
     NULL,
     "with --codec, --encoder or --kernels: schemes to measure; --kernels also knows q8_0, GGUF's "
     "blocks"},

    {OPT_THREADS, BIT(CMD_BENCH), OPT_T_TEXT, 't', "threads", NULL, "N,N,...", NULL, 0, 0, false,
     "0", "threads to use; 0 means one per processor"},
    {OPT_THREADS, COMPRESSING | BIT(CMD_REFINE) | BIT(CMD_VERIFY) | RUNNING | BIT(CMD_EXPORT),
     OPT_T_UINT, 't', "threads", NULL, "N", NULL, 0, 1024, false, "0",
     "threads to use; 0 means one per processor"},
    {OPT_JSON,
     COMPRESSING | BIT(CMD_REFINE) | INSPECTING | RUNNING | BIT(CMD_EXPORT) | BIT(CMD_BENCH) |
         BIT(CMD_VERSION),
     OPT_T_FLAG, 0, "json", NULL, NULL, NULL, 0, 0, false, NULL,
     "print the report as JSON on standard output"},
    {OPT_JSON_LINES, COMPRESSING, OPT_T_FLAG, 0, "json-lines", NULL, NULL, NULL, 0, 0, false, NULL,
     "print a line of JSON for each tensor as it is finished, with --refine for each step, too, "
     "then one with the report"},
    {OPT_JSON_LINES, BIT(CMD_REFINE), OPT_T_FLAG, 0, "json-lines", NULL, NULL, NULL, 0, 0, false,
     NULL,
     "print a line of JSON before the first step and one for each step, then one with the report"},
    {OPT_QUIET,
     COMPRESSING | BIT(CMD_REFINE) | INSPECTING | RUNNING | BIT(CMD_EXPORT) | BIT(CMD_BENCH),
     OPT_T_FLAG, 'q', "quiet", NULL, NULL, NULL, 0, 0, false, NULL,
     "no progress on standard error"},

    {OPT_VERSION, BIT(CMD_NONE), OPT_T_FLAG, 'V', "version", NULL, NULL, NULL, 0, 0, false, NULL,
     "print the version"},
    {OPT_COMPLETION, BIT(CMD_NONE), OPT_T_CHOICE, 0, "completion", NULL, "SHELL", "bash|zsh|fish",
     0, 0, false, NULL, "print a shell completion script"},
    {OPT_MAN, BIT(CMD_NONE), OPT_T_FLAG, 0, "man", NULL, NULL, NULL, 0, 0, false, NULL,
     "print the man page as roff source"},
    {OPT_HELP, ALL, OPT_T_FLAG, 'h', "help", NULL, NULL, NULL, 0, 0, false, NULL, "print help"},
};
const size_t opt_spec_count = sizeof opt_specs / sizeof opt_specs[0];
