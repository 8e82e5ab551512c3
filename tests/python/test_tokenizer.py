#!/usr/bin/env python3
"""Token ids on the demonstration model equal those of Hugging Face `tokenizers`.

Usage: test_tokenizer.py NOVAQ. Exit 77 when the model or the packages are not here.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import oracle_tokenizer
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

if __name__ == "__main__":
    sys.exit(oracle_tokenizer.main())
