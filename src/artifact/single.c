/* single.c - the head of the single-file form (layout.h): a SafeTensors header
 * that names every piece and every gap, with the manifest in its metadata. The
 * reader derives it again and compares bytes, so this is the only spelling. */
#include <string.h>

#include "artifact/layout.h"

/* A JSON string literal's inside; text is UTF-8 without NUL. */
static novaq_status put_escaped(nq_buf *b, const char *s, size_t len, novaq_error *err) {
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        NQ_TRY(nq_buf_append(b, s + plain, i - plain, err));
        plain = i + 1;
        if (c == '\n') {
            NQ_TRY(nq_buf_puts(b, "\\n", err));
        } else if (c < 0x20) {
            NQ_TRY(nq_buf_printf(b, err, "\\u%04x", c));
        } else {
            NQ_TRY(nq_buf_printf(b, err, "\\%c", c));
        }
    }
    return nq_buf_append(b, s + plain, len - plain, err);
}

typedef struct head_writer {
    nq_buf buf;
    const nq_contents *c;
    uint64_t end;  /* bytes of the data section that are named so far */
    uint64_t gaps; /* padding tensors so far */
} head_writer;

static novaq_status put_range(head_writer *h, uint64_t begin, uint64_t bytes, novaq_error *err) {
    h->end = begin + bytes;
    return nq_buf_printf(&h->buf, err, "\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                         (unsigned long long)h->end);
}

/* SafeTensors allows no holes: bytes up to `begin` become a tensor of zeros. */
static novaq_status put_gap(head_writer *h, uint64_t begin, novaq_error *err) {
    if (begin == h->end) {
        return NOVAQ_OK;
    }
    uint64_t n = begin - h->end;
    NQ_TRY(nq_buf_printf(&h->buf, err, ",\"pad/%llu\":{\"dtype\":\"U8\",\"shape\":[%llu],",
                         (unsigned long long)h->gaps++, (unsigned long long)n));
    return put_range(h, h->end, n, err);
}

static novaq_status put_piece(head_writer *h, const char *layer, const nq_piece *p,
                              novaq_error *err) {
    uint64_t begin = h->c->chunks[p->chunk].offset + p->offset;
    NQ_TRY(put_gap(h, begin, err));
    NQ_TRY(nq_buf_puts(&h->buf, ",\"", err));
    NQ_TRY(put_escaped(&h->buf, layer, strlen(layer), err));
    NQ_TRY(nq_buf_printf(&h->buf, err, "/%s\":{\"dtype\":\"%s\",\"shape\":[",
                         nq_piece_name(p->kind), p->dtype));
    for (uint32_t i = 0; i < p->rank; i++) {
        NQ_TRY(nq_buf_printf(&h->buf, err, i == 0 ? "%llu" : ",%llu",
                             (unsigned long long)p->shape[i]));
    }
    NQ_TRY(nq_buf_puts(&h->buf, "],", err));
    return put_range(h, begin, p->bytes, err);
}

static novaq_status put_tensors(head_writer *h, novaq_error *err) {
    const nq_contents *c = h->c;
    for (size_t i = 0; i < c->layer_count; i++) {
        for (unsigned k = 0; k < c->layers[i].pieces; k++) {
            NQ_TRY(put_piece(h, c->layers[i].layer.name, &c->layers[i].piece[k], err));
        }
    }
    if (c->has_tokenizer) {
        NQ_TRY(put_piece(h, "tokenizer", &c->tokenizer, err));
    }
    const nq_chunk *last = &c->chunks[c->chunk_count - 1];
    NQ_TRY(put_gap(h, last->offset + last->bytes, err));
    return nq_buf_puts(&h->buf, "}", err);
}

/* The spaces that make the data start at a multiple of 64, and the length. */
static novaq_status close_head(nq_buf *b, novaq_error *err) {
    while (b->len % NQ_PIECE_ALIGN != 0) {
        NQ_TRY(nq_buf_puts(b, " ", err));
    }
    uint64_t n = b->len - 8;
    for (unsigned i = 0; i < 8; i++) {
        b->data[i] = (uint8_t)(n >> (8 * i));
    }
    return NOVAQ_OK;
}

novaq_status nq_single_head(char **head, size_t *len, const nq_contents *c, const char *manifest,
                            size_t manifest_len, novaq_error *err) {
    *head = NULL;
    head_writer h = {.buf = nq_buf_init(NQ_HEADER_MAX + 8), .c = c};
    novaq_status st = nq_buf_zeros(&h.buf, 8, err);
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(&h.buf, "{\"__metadata__\":{\"novaq_manifest\":\"", err);
    }
    if (st == NOVAQ_OK) {
        st = put_escaped(&h.buf, manifest, manifest_len, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(&h.buf, "\"}", err);
    }
    if (st == NOVAQ_OK) {
        st = put_tensors(&h, err);
    }
    if (st == NOVAQ_OK) {
        st = close_head(&h.buf, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_take(&h.buf, head, len, err);
    }
    nq_buf_free(&h.buf);
    return st;
}
